"""Captions at each use: what stays in front, what is shuffled, dropped, chosen; and weights that brackets give."""

import dataclasses
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.captions import parse
from prep.clip_bpe import chunks, count
from train.config import DataConfig
from train.emphasis import emphasized, split_tags, weigh
from train.wording import Moment, all_wordings, chosen, conflicts_of_data, vary_caption

words = st.lists(st.text("abc xyz", min_size=1, max_size=8).filter(str.strip).map(str.strip), max_size=9)
STILL = DataConfig(shuffle_caption=False)


def wordings(caption: str, data: DataConfig, times: int = 300) -> Counter[str]:
    rng = random.Random(1)
    return Counter(vary_caption(caption, data, rng) for _ in range(times))


@given(words, st.integers(0, 4), st.integers())
def test_shuffle_keeps_the_first_tags(tags: list[str], keep: int, seed: int) -> None:
    data = DataConfig(keep_tokens=keep)
    caption = ", ".join(tags)
    varied = parse(vary_caption(caption, data, random.Random(seed)))
    assert varied[:keep] == parse(caption)[:keep] and Counter(varied) == Counter(parse(caption))
    assert vary_caption(caption, dataclasses.replace(data, shuffle_caption=False), random.Random(seed)) == caption


@given(words, words, words, st.integers())
def test_separators_hold_front_and_end(front: list[str], free: list[str], end: list[str], seed: int) -> None:
    data = DataConfig(keep_tokens_separator="|||", caption_tag_dropout_rate=0.5)
    caption = " ||| ".join(", ".join(tags) for tags in (front, free, end))
    varied = parse(vary_caption(caption, data, random.Random(seed)))
    front, free, end = ([tag for tag in tags if tag] for tags in (front, free, end))
    assert varied[: len(front)] == front and (not end or varied[-len(end) :] == end)
    assert not Counter(varied[len(front) : len(varied) - len(end)]) - Counter(free)


def test_a_separator_is_never_seen_by_the_model() -> None:
    data = DataConfig(shuffle_caption=False, keep_tokens_separator="|||", secondary_separator=";;;")
    assert vary_caption("tok ||| red hair;;;hat, smile", data, random.Random(0)) == "tok, red hair,hat, smile"


def test_tags_after_a_secondary_separator_stay_together() -> None:
    data = DataConfig(keep_tokens=0, secondary_separator=";;;")
    found = wordings("red hat;;; blue hair, a, b, c", data)
    assert len(found) == 24 and all("red hat, blue hair" in caption for caption in found)


def test_dropout_rates_are_kept() -> None:
    data = DataConfig(caption_dropout_rate=0.3)
    assert 540 < wordings("tok, a", data, 2000)[""] < 660
    assert set(wordings("tok", dataclasses.replace(data, caption_dropout_rate=1.0))) == {""}
    tags = DataConfig(caption_tag_dropout_rate=0.25, shuffle_caption=False)
    left = sum(len(parse(caption)) * times for caption, times in wordings("tok, a, b, c, d", tags, 1000).items())
    assert left == pytest.approx(1000 * (1 + 4 * 0.75), rel=0.03)


def test_every_nth_epoch_has_no_captions() -> None:
    data = DataConfig(caption_dropout_every_n_epochs=3)
    told = [bool(vary_caption("tok", data, random.Random(0), Moment(epoch))) for epoch in range(6)]
    assert told == [True, True, False, True, True, False]


@pytest.mark.parametrize(("end", "steps"), [(10.0, 40), (0.25, 40)])
def test_captions_grow_to_their_full_length(end: float, steps: int) -> None:
    data = DataConfig(token_warmup_min=2, token_warmup_step=end)
    caption = "tok, " + ", ".join("abcdefghijkl")
    lengths = [len(parse(vary_caption(caption, data, random.Random(0), Moment(0, step, steps)))) for step in (0, 5, 9, 10, 39)]
    assert lengths == [3, 8, 12, 13, 13]


def test_prefix_and_suffix_stand_around_the_line_that_is_used() -> None:
    data = DataConfig(caption_prefix="tok,", caption_suffix=", best quality", shuffle_caption=False)
    assert vary_caption("a hat", data, random.Random(0)) == "tok, a hat , best quality"
    found = wordings("a\nb", dataclasses.replace(data, enable_wildcard=True))
    assert set(found) == {"tok, a , best quality", "tok, b , best quality"}


def test_wildcards_take_each_choice_about_as_often() -> None:
    data = DataConfig(enable_wildcard=True, shuffle_caption=False)
    found = wordings("a {red|{dark|light} blue|} hat {{x}}", data, 1200)
    assert set(found) == {"a red hat {x}", "a dark blue hat {x}", "a light blue hat {x}", "a  hat {x}"}
    assert found["a red hat {x}"] == pytest.approx(400, abs=80)
    assert vary_caption("a {red|blue} hat", STILL, random.Random(0)) == "a {red|blue} hat", "off, and braces are braces"


@given(st.text("a{}|", max_size=12), st.integers())
def test_any_braces_end(text: str, seed: int) -> None:
    found = chosen(text, random.Random(seed))
    assert len(found) <= len(text) and not Counter(found) - Counter(text)


@given(words, st.integers(1, 5), st.integers())
def test_variants_are_all_that_is_ever_said(tags: list[str], variants: int, seed: int) -> None:
    data = DataConfig(caption_variants=variants, caption_dropout_rate=0.2, caption_tag_dropout_rate=0.1)
    caption, rng = ", ".join(tags), random.Random(seed)
    known = all_wordings(caption, data)
    assert known is not None and len(known) <= variants + 1
    assert {vary_caption(caption, data, rng) for _ in range(20)} <= known


def test_without_variants_a_shuffle_has_no_end() -> None:
    assert all_wordings("tok, a", DataConfig()) is None
    assert all_wordings("tok, a", STILL) == {"tok, a"}
    assert all_wordings("tok, a", dataclasses.replace(STILL, caption_dropout_rate=0.1)) == {"tok, a", ""}


@pytest.mark.parametrize(
    ("caption", "pieces"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("(a) [b] (c:1.5)", [("a", 1.1), ("b", 1 / 1.1), ("c", 1.5)]),
        ("((a))", [("a", 1.21)]),
        ("(a (b:2) c:0.5), d", [("a", 0.5), ("b", 1.0), ("c", 0.5), (", d", 1.0)]),
        (r"saber \(fate\)", [("saber (fate)", 1.0)]),
        ("(a, b", [("a, b", 1.1)]),
        ("a) b]", [("a) b]", 1.0)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("", []),
    ],
)
def test_brackets_weigh(caption: str, pieces: list[tuple[str, float]]) -> None:
    found = emphasized(caption)
    assert [text for text, _ in found] == [text for text, _ in pieces]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in pieces])


def test_weights_stand_at_their_tokens() -> None:
    text, (row,) = weigh("a red (hat:1.5), tree")
    assert chunks(text) == chunks("a red hat, tree")
    assert row == [1.0, 1.0, 1.0, 1.5, *[1.0] * 73]


@given(st.text("ab ,()[]:1.\\", max_size=300), st.sampled_from([75, 150, 225]))
def test_there_is_a_weight_for_each_token(caption: str, length: int) -> None:
    text, rows = weigh(caption, length)
    assert [len(row) for row in rows] == [77] * (length // 75)
    assert all(row[0] == 1 for row in rows)
    pieces = emphasized(caption)
    assert count(text) == sum(count(piece) for piece, _ in pieces)


def test_long_weighted_captions_go_on_in_the_next_row() -> None:
    _, rows = weigh("cat " * 74 + "(dog:1.5) (fox:2)", 150)
    assert rows[0][75] == 1.5 and rows[0][76] == 1.0 and rows[1][1] == 2.0 and rows[1][2] == 1.0
    assert len(weigh("(cat:2) " * 200)[1]) == 1


def test_a_group_moves_as_one() -> None:
    assert split_tags(r"tok, (red hair, smile:1.2), a \(b, c") == ["tok", "(red hair, smile:1.2)", r"a \(b", "c"]
    assert split_tags("a), b") == ["a)", "b"]
    found = wordings("(a, b:1.2), c, d", DataConfig(keep_tokens=0, weighted_captions=True))
    assert len(found) == 6 and all("(a, b:1.2)" in caption for caption in found)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"caption_variants": 2, "token_warmup_step": 5.0}, "set one of them"),
        ({"keep_tokens_separator": ", "}, "keep_tokens_separator holds a comma"),
        ({"secondary_separator": ","}, "secondary_separator holds a comma"),
        ({"secondary_separator": "|", "keep_tokens_separator": "|"}, "make them differ"),
        ({}, ""),
    ],
)
def test_conflicts_are_sentences(settings: dict[str, object], sentence: str) -> None:
    found = [words for wrong, words in conflicts_of_data(dataclasses.replace(DataConfig(), **settings)) if wrong]
    assert sentence in "; ".join(found) and bool(found) == bool(sentence)
