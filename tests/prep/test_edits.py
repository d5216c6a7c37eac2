import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import prep
from prep.captions import KAOMOJI, join, parse
from prep.edits import EDITS, Policy, drop_implied, drop_unwanted, fold, implications, keep_strongest, order, wanted, with_keyword, without_name

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


def test_the_list_of_implications_is_sound() -> None:
    with (Path(prep.__file__).parent / "data/implications.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["antecedent"], row["consequent"]) for row in csv.DictReader(file)]
    assert rows == sorted(set(rows))
    assert all(a and b and a != b and not set(", ") & set(a + b) for a, b in rows)
    for tag, _ in rows:
        assert not any(tag in implications(other) for other in implications(tag)), f"{tag} implies itself"


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


@given(TAGS, st.sampled_from(list(EDITS)))
def test_edits_only_leave_out_or_move(tags: list[str], name: str) -> None:
    tags = list(dict.fromkeys(tags))
    edited = EDITS[name](list(tags), Policy(blacklist="smile", top_k=4))
    assert len(edited) == len(set(edited)) and set(edited) <= set(tags)
    assert EDITS[name](list(edited), Policy(blacklist="smile", top_k=4)) == edited


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
    assert with_keyword("sks,  a man\nin the rain ,smile", "sks") == "sks,  a man\nin the rain ,smile"
    assert with_keyword("a photo of a man", "sks") == "sks, a photo of a man"
    assert with_keyword("old, a man, sks", "sks", old_keyword="old") == "sks, a man"
    assert with_keyword("", "sks") == "sks"
    assert all(with_keyword(f"1girl, {face}", "sks") == f"sks, 1girl, {face}" for face in KAOMOJI)
