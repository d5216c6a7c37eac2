from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.imports import Asked
from prep.imports.grabber import is_log, read, tags_of
from prep.options import UserError

HERE = Path("x.txt")


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("1girl long_hair smile", {"general": ["1girl", "long_hair", "smile"]}),
        ("1girl, long hair, smile", {"general": ["1girl", "long_hair", "smile"]}),
        ("1girl\nlong hair\nsmile\n", {"general": ["1girl", "long_hair", "smile"]}),
        ("1girl solo smile", {"general": ["1girl", "solo", "smile"]}),  # no two neighbours make a tag
        ("artist:someone character:hatsune_miku general:1girl", {"artist": ["someone"], "character": ["hatsune_miku"], "general": ["1girl"]}),
        ("artist:some one\ncharacter:hatsune miku\n1girl", {"artist": ["some_one"], "character": ["hatsune_miku"], "general": ["1girl"]}),
        ("rating:safe, copyright:re:zero, species:cat", {"rating": ["general"], "copyright": ["re:zero"], "general": ["cat"]}),
        ("re:zero_kara_hajimeru :d :p >_< rating:explicit", {"general": ["re:zero_kara_hajimeru", ":d", ":p", ">_<"], "rating": ["explicit"]}),
        ("model:jane_doe photo_set:beach studio:x", {"character": ["jane_doe"], "meta": ["beach"], "artist": ["x"]}),
        ("Artist:Someone 1girl_x", {"artist": ["Someone"], "general": ["1girl_x"]}),
        ("smile", {"general": ["smile"]}),
        ("rating:unknown, smile", {"general": ["smile"]}),
    ],
)
def test_logs_of_all_separators_and_namespaces(text: str, tags: dict[str, list[str]]) -> None:
    assert tags_of(text, "", HERE) == tags


@pytest.mark.parametrize("text", ["1girl long hair smile", "blue eyes", "artist:some one general:1girl", "1girl red coat", "cat ears smile"])
def test_blanks_in_and_between_tags_are_asked_about(text: str) -> None:
    with pytest.raises(UserError, match=r"x\.txt has blanks.*--separator space, comma, newline"):
        tags_of(text, "", HERE)
    assert len(tags_of(text, "space", HERE)["general"]) >= 1


@pytest.mark.parametrize(
    ("text", "separator"), [("long hair|smile", "|"), ("long hair ; smile", ";"), ("long hair,smile", "comma"), ("long_hair smile", "space")]
)
def test_a_separator_that_is_told_is_used(text: str, separator: str) -> None:
    assert tags_of(text, separator, HERE) == {"general": ["long_hair", "smile"]}


@pytest.mark.parametrize(
    "text", ["a girl in a red coat stands in the rain", "1girl, long hair, smile", "A hat.", "a\nlong line of words that is a sentence"]
)
def test_what_a_person_wrote_is_no_log(text: str) -> None:
    assert not is_log(text)


TAG = st.text("abcdefghij_", min_size=2, max_size=8).filter(lambda tag: tag.strip("_"))


@given(st.lists(TAG, min_size=1, unique=True), st.sampled_from(["\n", ", "]))
def test_any_list_comes_back(tags: list[str], between: str) -> None:
    if len(tags) > 1:
        assert tags_of(between.join(tags), "", HERE)["general"] == tags
    assert tags_of(" ".join(tags), "space", HERE)["general"] == tags


def test_a_log_lies_under_either_name(tmp_path: Path) -> None:
    (tmp_path / "x.jpg.txt").write_bytes("\ufeff1girl long_hair\r\n".encode())
    found = read(tmp_path / "x.jpg", Asked())
    assert found and found.tags == {"general": ["1girl", "long_hair"]} and found.file.name == "x.jpg.txt"
    assert read(tmp_path / "y.jpg", Asked()) is None
    (tmp_path / "z.txt").write_bytes(b"\xff\xfe1\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        read(tmp_path / "z.png", Asked())
