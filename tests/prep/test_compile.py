import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prep.captions import KAOMOJI, join, parse
from prep.compile import CATEGORIES, compile_tags, explain, limits, mcut, mcut_limits, merged, spelled
from prep.edits import Policy
from prep.options import UserError
from prep.scores import Labels
from prep.taggers import TaggerRow

ROW = TaggerRow("test", 0.35)
TAGS = ["1girl", "solo", "long_hair", "very_long_hair", "^_^", "smile", "hat", "witch_hat", "2boys"]
SCORES = {
    "rating": {"general": 0.3, "sensitive": 0.6, "questionable": 0.05, "explicit": 0.05},
    "general": {"smile": 0.9, "1girl": 0.99, "long_hair": 0.98, "very_long_hair": 0.5, "solo": 0.97, "hat": 0.34, ">_<": 0.35, "red_eyes": 0.9},
    "character": {"hatsune_miku_(vocaloid)": 0.9, "kagamine_rin": 0.84},
}
EVERYTHING = SCORES | {"copyright": {"vocaloid": 0.9}, "artist": {"someone": 0.95}, "meta": {"highres": 0.9}}


def test_a_caption_is_counts_then_names_then_tags_by_score() -> None:
    assert compile_tags(SCORES, Policy(), ROW) == ["1girl", "solo", "hatsune miku (vocaloid)", "red eyes", "smile", "very long hair", ">_<"]


@pytest.mark.parametrize(
    ("policy", "tags"),
    [
        (Policy(threshold=0.95), ["1girl", "solo", "hatsune miku (vocaloid)", "long hair"]),
        (Policy(threshold=0.95, character_threshold=0.8), ["1girl", "solo", "hatsune miku (vocaloid)", "kagamine rin", "long hair"]),
        (Policy(threshold=0.95, rating="first"), ["sensitive", "1girl", "solo", "hatsune miku (vocaloid)", "long hair"]),
        (Policy(threshold=0.95, rating="last"), ["1girl", "solo", "hatsune miku (vocaloid)", "long hair", "sensitive"]),
        (Policy(top_k=2), ["1girl", "solo"]),
        (Policy(whitelist="*hair, smile", prune=False), ["long hair", "smile", "very long hair"]),
        (Policy(threshold=0.95, full_name="Hatsune Miku"), ["1girl", "solo", "long hair"]),
        (Policy(threshold=1, character_threshold=1), []),
        (Policy(threshold=0.95, categories="general"), ["1girl", "solo", "long hair"]),
        (Policy(threshold=0.95, categories="general", words="photo"), ["woman", "long hair"]),
        (Policy(threshold=0.95, escape=True), ["1girl", "solo", r"hatsune miku \(vocaloid\)", "long hair"]),
        (Policy(categories="general", constants={"very_long_hair": 1.0, "long_hair": 1.0}), ["1girl", "solo", "red eyes", "smile", ">_<"]),
    ],
)
def test_the_policy_decides(policy: Policy, tags: list[str]) -> None:
    assert compile_tags(SCORES, policy, ROW) == tags


def test_kinds_of_tags_come_in_their_order() -> None:
    policy = Policy(threshold=0.95, categories="meta, General, artist, copyright, character")
    tags = ["1girl", "solo", "hatsune miku (vocaloid)", "vocaloid", "someone", "long hair", "highres"]
    assert compile_tags(EVERYTHING, policy, ROW) == tags
    assert compile_tags(EVERYTHING, Policy(threshold=0.95), ROW) == tags[:-1]
    assert limits(policy, ROW) == {"character": 0.85, "copyright": 0.85, "artist": 0.85, "general": 0.95, "meta": 0.35}
    with pytest.raises(UserError, match="'colour' is no kind"):
        limits(Policy(categories="general, colour"), ROW)


@given(st.dictionaries(st.sampled_from(TAGS), st.floats(0, 1)), st.randoms(use_true_random=False), st.floats(0, 1))
def test_compiling_does_not_depend_on_the_order_of_the_scores(general: dict[str, float], random, threshold: float) -> None:
    shuffled = list(general.items())
    random.shuffle(shuffled)
    policy = Policy(threshold=threshold)
    tags = compile_tags({"general": general}, policy)
    assert tags == compile_tags({"general": dict(shuffled)}, policy) and len(tags) == len(set(tags))


def test_kaomoji_reach_the_caption_whole_and_come_back() -> None:
    tags = compile_tags({"general": dict.fromkeys(KAOMOJI, 1.0)}, Policy())
    assert set(tags) == KAOMOJI and parse(join(tags)) == tags


@pytest.mark.parametrize("tag", [":d", ":p", ";)", r"\m/", "!?", "d'artagnan", "a&b", 'the_"end"', "kaguya-sama_wa_kokurasetai_~tensai-tachi~"])
def test_signs_survive(tag: str) -> None:
    assert spelled(tag) == tag.replace("_", " ")
    assert parse(join([spelled(tag)])) == [spelled(tag)]


def test_brackets_are_escaped_for_prompts_only() -> None:
    assert (spelled("a_(b)"), spelled("a_(b)", escape=True), spelled(r"\m/", escape=True)) == ("a (b)", r"a \(b\)", r"\\m/")


# MCut.


@pytest.mark.parametrize(
    ("values", "cut"),
    [
        ([], None),
        ([0.7], None),
        ([0.5, 0.5, 0.5], None),
        ([0.9, 0.1], 0.5),
        ([0.2, 0.8, 0.1, 0.9], 0.5),
        ([0, 0.5, 1.0], 0.75),
    ],
)
def test_mcut_cuts_in_the_widest_gap(values: list[float], cut: float | None) -> None:
    found = mcut(np.array(values, np.float32))
    assert found is None if cut is None else found == pytest.approx(cut, abs=1e-6)


def test_mcut_refuses_what_is_not_a_number() -> None:
    with pytest.raises(ValueError, match="not a number"):
        mcut(np.array([0.1, np.nan]))


@given(arrays(np.float32, st.integers(2, 30), elements=st.integers(0, 4000).map(lambda step: step / 4000)))
def test_mcut_parts_the_scores_and_no_gap_is_wider(values: np.ndarray) -> None:
    cut = mcut(values)
    if cut is None:
        assert values.min() == values.max()
        return
    upper, lower = values[values >= cut], values[values < cut]
    assert upper.size and lower.size
    assert np.diff(np.sort(values.astype(np.float64))).max() == pytest.approx(float(upper.min()) - float(lower.max()))


def test_mcut_cuts_each_category_and_leaves_names_a_floor() -> None:
    labels = Labels(("a", "b", "c", "x", "y", "general"), ("general", "general", "general", "character", "character", "rating"))
    values = np.array([0.9, 0.8, 0.1, 0.05, 0.01, 1.0], np.float32)
    usual = {"general": 0.35, "character": 0.85, "artist": 0.85}
    assert mcut_limits(values, labels, usual) == pytest.approx({"general": 0.45, "character": 0.15, "artist": 0.85})


# Imports.


def test_imported_tags_are_sure_and_say_their_kind() -> None:
    imported = {"general": ["hat", "kagamine_rin", "new"], "copyright": ["vocaloid"], "artist": ["smile"], "rating": ["explicit"]}
    scores = merged(SCORES, imported, "merge")
    assert scores["general"]["hat"] == scores["general"]["new"] == scores["copyright"]["vocaloid"] == 1.0
    assert scores["character"]["kagamine_rin"] == 1.0 and "kagamine_rin" not in scores["general"]  # the tagger knows that it is a name
    assert scores["artist"] == {"smile": 1.0} and "smile" not in scores["general"]  # the site knows better
    tags = ["kagamine rin", "hatsune miku (vocaloid)", "vocaloid", "smile", "hat", "new", "explicit"]
    assert compile_tags(scores, Policy(threshold=0.999, rating="last"), ROW) == tags
    assert SCORES["general"]["hat"] == 0.34


def test_imported_tags_alone_or_not_at_all() -> None:
    imported = {"general": ["hat"]}
    assert compile_tags(merged(SCORES, imported, "only"), Policy(), ROW) == ["hat"]
    assert merged(SCORES, imported, "ignore") is SCORES and merged(SCORES, {}, "only") is SCORES
    assert compile_tags(merged({}, imported, "merge"), Policy(), ROW) == ["hat"]


# What became of a tag.


def fates(policy: Policy) -> dict[str, str]:
    return {fate.tag: fate.line() for fate in explain(EVERYTHING, policy, limits(policy, ROW))}


def test_every_tag_is_told_of() -> None:
    policy = Policy(blacklist="smile", full_name="hatsune_miku", top_k=4, constants={"red_eyes": 0.96}, replace="solo => alone")
    assert fates(policy) == {
        "1girl": "0.990 1girl kept",
        "alone": "0.000 alone kept",
        "solo": "0.970 solo dropped: replaced by alone",
        "long_hair": "0.980 long_hair dropped: implied by very_long_hair",
        "someone": "0.950 someone kept",
        "vocaloid": "0.900 vocaloid kept",
        "very_long_hair": "0.500 very_long_hair dropped: beyond the 4 strongest",
        ">_<": "0.350 >_< dropped: beyond the 4 strongest",
        "hatsune_miku_(vocaloid)": "0.900 hatsune_miku_(vocaloid) dropped: the character's own name",
        "kagamine_rin": "0.840 kagamine_rin dropped: below 0.85, from which character tags count",
        "smile": "0.900 smile dropped: blacklisted",
        "red_eyes": "0.900 red_eyes dropped: the keyword stands for it, 96% of the pictures show it",
        "highres": "0.900 highres dropped: meta tags are not wanted",
    }


@given(st.dictionaries(st.sampled_from(TAGS), st.floats(0, 1)), st.integers(0, 4), st.booleans(), st.sampled_from(["", "hat", "*hair"]))
def test_what_is_said_to_be_kept_is_the_caption(general: dict[str, float], top_k: int, prune: bool, blacklist: str) -> None:
    policy = Policy(top_k=top_k, prune=prune, blacklist=blacklist)
    told = explain({"general": general}, policy, limits(policy, ROW))
    assert {spelled(fate.tag) for fate in told if fate.kept} == set(compile_tags({"general": general}, policy, ROW))
    assert {fate.tag for fate in told} == {tag for tag, score in general.items() if score >= 0.35}
    assert all(fate.kept or fate.why for fate in told)


def test_the_categories_are_in_the_fields_order() -> None:
    assert CATEGORIES[:5] == ("character", "copyright", "artist", "general", "meta")
