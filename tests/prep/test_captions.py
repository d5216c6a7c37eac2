import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.captions import KAOMOJI, caption_path, join, parse, read_caption, shuffle, to_words
from prep.options import UserError

TAG = st.text(st.characters(exclude_characters=",", exclude_categories=("Cs",)), min_size=1).map(str.strip).filter(bool)


@given(st.lists(TAG))
def test_what_is_joined_is_parsed_back(tags: list[str]) -> None:
    assert parse(join(tags)) == tags


@given(st.text())
def test_parsed_tags_are_stripped_never_blank_and_stable(text: str) -> None:
    tags = parse(text)
    assert all(tag and tag == tag.strip() for tag in tags)
    assert parse(join(tags)) == tags


def test_a_tag_with_a_comma_is_refused() -> None:
    with pytest.raises(ValueError, match="comma"):
        join(["a", "hello, world"])


def test_kaomoji_survive_and_other_underscores_become_spaces() -> None:
    assert len(KAOMOJI) == 19
    assert all(to_words(face) == face and parse(join([face])) == [face] for face in KAOMOJI)
    assert to_words("very_long_hair") == "very long hair"
    assert to_words("hatsune_miku_(vocaloid)") == "hatsune miku (vocaloid)"
    assert [to_words(tag) for tag in (":d", ";)", r"\m/", "!?", "fate/stay_night", "_")] == [":d", ";)", r"\m/", "!?", "fate/stay night", "_"]


def test_the_caption_lies_beside_the_picture() -> None:
    assert caption_path(Path("work/a.b.png")) == Path("work/a.b.txt")


@pytest.mark.parametrize("data", [b"a, b\n", b"\xef\xbb\xbfa, b", b"  a, b\r\n\r\n"])
def test_captions_read_alike_with_mark_and_any_line_ends(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.txt").write_bytes(data)
    assert read_caption(tmp_path / "x.png") == "a, b"


def test_txt_goes_before_caption_and_none_is_none(tmp_path: Path) -> None:
    assert read_caption(tmp_path / "x.png") is None
    (tmp_path / "x.caption").write_bytes(b"one\r\ntwo")
    assert read_caption(tmp_path / "x.png") == "one\ntwo"
    (tmp_path / "x.txt").write_text("three", encoding="utf-8")
    assert read_caption(tmp_path / "x.png") == "three"


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_other_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "x.txt").write_bytes("café".encode(encoding))
    with pytest.raises(UserError, match=r"x\.txt is not UTF-8"):
        read_caption(tmp_path / "x.png")


@given(st.lists(TAG), st.integers(0, 5), st.integers())
def test_shuffle_keeps_the_first_tags_and_loses_none(tags: list[str], keep: int, seed: int) -> None:
    before = list(tags)
    shuffled = shuffle(tags, keep, random.Random(seed))
    assert tags == before
    assert shuffled[:keep] == tags[:keep]
    assert sorted(shuffled) == sorted(tags)
    assert shuffled == shuffle(tags, keep, random.Random(seed))
