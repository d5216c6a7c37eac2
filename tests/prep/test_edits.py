import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.captions import KAOMOJI, join, parse
from prep.edits import EDITS, REASONS, Policy, drop_implied, drop_unwanted, fold, keep_strongest, order, wanted, with_keyword, without_name, worded
from prep.options import UserError

TAGS = st.lists(st.sampled_from(["1girl", "solo", "hat", "witch_hat", "^_^", "very_long_hair", "long_hair", "a b", "Sks", "sks", "smile"]))


@pytest.mark.parametrize(
    ("tags", "kept"),
    [
        ("1girl solo long_hair very_long_hair red_hair", "1girl solo very_long_hair red_hair"),
        ("breasts large_breasts", "large_breasts"),
        ("shirt white_shirt", "white_shirt"),
        ("horns demon_horns", "demon_horns"),
        ("swimsuit bikini micro_bikini", "micro_bikini"),  # through bikini too
        ("bra braid", "bra braid"),
        ("bow rainbow elbow_gloves", "bow rainbow elbow_gloves"),
        ("ring earrings", "ring earrings"),
        ("cape cityscape", "cape cityscape"),
        ("hat hatching_(texture)", "hat hatching_(texture)"),
        ("hat witch_hat bow hair_bow >_<", "witch_hat hair_bow >_<"),
    ],
)
def test_implied_tags_go_and_parts_of_words_do_not(tags: str, kept: str) -> None:
    assert drop_implied(tags.split(), Policy()) == kept.split()
    assert drop_implied(tags.split(), Policy(prune=False)) == tags.split()


def test_lists_take_wildcards_and_any_spelling() -> None:
    assert not wanted("simple_background", "Simple Background", "")
    assert not wanted("red_eyes", "*_eyes", "")
    assert wanted("eyes_visible_through_hair", "*_eyes", "")
    assert wanted("red_eyes", "", "*eyes, solo")
    assert not wanted("smile", "", "*eyes, solo")
    assert wanted("!!", "!?, :[, a.c", "") and not wanted("!?", "!?, :[", "") and wanted("abc", "a.c", "")
    assert drop_unwanted(["1girl", "hatsune_miku_(append)", "smile"], Policy(blacklist="smi*", full_name="Hatsune Miku")) == ["1girl"]


def test_counts_come_first() -> None:
    tags = ["red_hair", "solo", "6+boys", "multiple_girls", "no_humans", "1girl", "1other"]
    assert order(tags, Policy()) == ["multiple_girls", "1girl", "6+boys", "1other", "no_humans", "solo", "red_hair"]
    assert keep_strongest(tags, Policy(top_k=2)) == tags[:2]
    assert keep_strongest(tags, Policy()) == tags


POLICIES = st.builds(
    Policy,
    blacklist=st.sampled_from(["", "smile", "*hair", "@unseen, hat"]),
    whitelist=st.sampled_from(["", "*hair*, solo"]),
    top_k=st.integers(0, 5),
    prune=st.booleans(),
    expand=st.booleans(),
    drop_mixed=st.booleans(),
    full_name=st.sampled_from(["", "a b", "Sks"]),
    constants=st.sampled_from([{}, {"very_long_hair": 0.9, "long_hair": 0.9}]),
)
DROPPING = [name for name in EDITS if name not in ("alias", "expanded", "words")]


@given(TAGS, POLICIES, st.sampled_from(list(EDITS)))
def test_every_edit_done_twice_changes_nothing(tags: list[str], policy: Policy, name: str) -> None:
    edited = EDITS[name](list(dict.fromkeys(tags)), policy)
    assert EDITS[name](list(edited), policy) == edited
    assert len(edited) == len(set(edited))


@given(TAGS, POLICIES, st.sampled_from(DROPPING))
def test_edits_leave_out_whole_tags_and_keep_the_order_of_the_rest(tags: list[str], policy: Policy, name: str) -> None:
    tags = list(dict.fromkeys(tags))
    edited = EDITS[name](list(tags), policy)
    assert set(edited) <= set(tags)
    if name != "order":
        assert edited == [tag for tag in tags if tag in edited]
    for tag in set(tags) - set(edited):
        assert REASONS[name](tag, tags, policy)


@given(st.permutations(["bra", "braid", "bow", "rainbow", "ring", "earrings", "cape", "cityscape", "elbow_gloves", "hatching_(texture)"]))
def test_a_part_of_a_word_implies_nothing(tags: list[str]) -> None:
    edited = list(tags)
    for edit in EDITS.values():
        edited = edit(edited, Policy(drop_mixed=True))
    assert edited == [tag for tag in tags if tag != "hat"]


@pytest.mark.parametrize(
    ("tags", "kept"),
    [
        ("2girls blonde_hair black_hair long_hair blue_eyes red_eyes smile", "2girls long_hair smile"),
        ("2girls blonde_hair black_hair long_hair short_hair ponytail twintails", "2girls"),
        ("1girl 1boy red_eyes blue_eyes ahoge animal_ears", "1girl 1boy ahoge animal_ears"),
        ("1girl blonde_hair black_hair multicolored_hair", "1girl blonde_hair black_hair multicolored_hair"),
        ("2girls long_hair very_long_hair", "2girls long_hair very_long_hair"),  # one follows from the other: no contradiction
    ],
)
def test_looks_that_differ_between_people_are_nobodys(tags: str, kept: str) -> None:
    assert EDITS["mixed"](tags.split(), Policy()) == kept.split()
    assert EDITS["mixed"](tags.split(), Policy(drop_mixed=False)) == tags.split()


def test_aliases_take_their_proper_name_once() -> None:
    assert EDITS["alias"](["twin_tails", "twintails", "pony_tail", "smile", "^_^"], Policy()) == ["twintails", "ponytail", "smile", "^_^"]


def test_implied_tags_are_added_only_where_asked_and_never_a_blacklisted_one() -> None:
    tags = ["witch_hat", "smile"]
    assert EDITS["expanded"](tags, Policy()) == tags
    assert EDITS["expanded"](tags, Policy(expand=True)) == ["witch_hat", "hat", "smile"]
    assert EDITS["expanded"](tags, Policy(expand=True, blacklist="hat")) == tags


def test_a_plural_in_a_list_is_its_singular_and_a_tag_is_a_whole() -> None:
    assert not wanted("breasts", "breast", "") and wanted("large_breasts", "breast", "")
    assert not wanted("cat_ear", "cat ears", "") and wanted("dress", "dres", "")
    unseen = "@unseen"
    assert not any(wanted(tag, unseen, "") for tag in ("alternate_costume", "cosplay", "no_eyewear", "feet_out_of_frame", "highres"))
    assert wanted("red_hair", unseen, "") and wanted("solo", unseen, "") and not wanted("solo", "@unseen, solo", "")


@pytest.mark.parametrize(
    ("policy", "tag", "words"),
    [
        (Policy(replace="long hair => flowing hair, solo =>"), "long_hair", ["flowing hair"]),
        (Policy(replace="long hair => flowing hair, solo =>"), "solo", []),
        (Policy(replace="long hair => flowing hair, solo =>"), "very_long_hair", ["very_long_hair"]),
        (Policy(replace="a => b, b => c"), "a", ["b"]),
        (Policy(replace="a => b, b => c"), "d", ["d"]),
        (Policy(regex=r"(\w+) dress => dress in \1"), "red_dress", ["dress in red"]),
        (Policy(regex="^red .* =>\n^blue => azure"), "red_dress", []),
        (Policy(regex="^red .* =>\n^blue => azure"), "blue_eyes", ["azure eyes"]),
        (Policy(regex="nothing => x"), "^_^", ["^_^"]),
        (Policy(words="photo"), "1girl", ["woman"]),
        (Policy(words="photo", replace="1girl => lady"), "1girl", ["lady"]),
        (Policy(words="photo"), "^_^", ["eyes closed in a smile"]),
    ],
)
def test_words_take_the_place_of_tags(policy: Policy, tag: str, words: list[str]) -> None:
    assert worded(tag, policy) == words


@pytest.mark.parametrize("settings", [{"replace": "a, b"}, {"replace": "=> b"}, {"regex": "(a => b"}, {"regex": "a"}, {"words": "no_such"}])
def test_words_that_cannot_be_read_are_a_sentence(settings: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"write|give"):
        worded("a", Policy(**settings))
    with pytest.raises(UserError, match="invalid group"):
        worded("a", Policy(regex=r"a => \1"))


@pytest.mark.parametrize("full_name", ["hatsune_miku", "Hatsune Miku", "hatsune_miku_(vocaloid)"])
@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("1girl, hatsune_miku, smile", "1girl, smile"),
        ("1girl, Hatsune Miku (Vocaloid), smile", "1girl, smile"),
        (r"1girl, hatsune miku \(vocaloid\)", "1girl"),
        ("1girl, hatsune_miku_(append)_(vocaloid)", "1girl"),
        ("a photo of Hatsune  Miku's hat, smile", "a photo of hat, smile"),
        ("hatsune mikuru, sawhatsune miku", "hatsune mikuru, sawhatsune miku"),
        ("miku, smile", "miku, smile"),
    ],
)
def test_a_full_name_goes_in_every_form(full_name: str, text: str, left: str) -> None:
    assert join(without_name(parse(text), full_name)) == left


def test_one_word_goes_only_as_a_whole_tag_and_several_names_may_be_given() -> None:
    assert without_name(["asuka", "a photo of asuka", "rei"], "Asuka, Rei") == ["a photo of asuka"]
    assert without_name(["smile"], "") == ["smile"]


@given(TAGS, st.sampled_from(["sks", "SKS", "ohwx woman", "^_^"]), st.sampled_from(["", "a b", "very long_hair (x)"]))
def test_the_keyword_is_first_exactly_once_and_twice_changes_nothing(tags: list[str], keyword: str, name: str) -> None:
    text = with_keyword(join(tags), keyword, name)
    assert parse(text)[0] == keyword
    assert [fold(tag) for tag in parse(text)].count(fold(keyword)) == 1
    assert with_keyword(text, keyword, name) == text
    others = {fold(tag) for tag in tags} - {fold(keyword), "a b" if name == "a b" else "", "very long hair" if name.startswith("very") else ""}
    assert {fold(tag) for tag in parse(text)[1:]} == others


def test_a_text_that_is_right_stays_to_the_letter() -> None:
    assert with_keyword("sks,  a man ,smile", "sks") == "sks,  a man ,smile"
    assert with_keyword("sks,  a man\nin the rain ,smile", "sks") == "sks,  a man\nsks, in the rain, smile"  # each line is a caption
    assert with_keyword("a photo of a man", "sks") == "sks, a photo of a man"
    assert with_keyword("old, a man, sks", "sks", old_keyword="old") == "sks, a man"
    assert with_keyword("", "sks") == "sks"
    assert all(with_keyword(f"1girl, {face}", "sks") == f"sks, 1girl, {face}" for face in KAOMOJI)
