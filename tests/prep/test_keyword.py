from pathlib import Path

import pytest
from PIL import Image

from prep.item import Item
from prep.keyword import Keyword
from prep.options import UserError
from prep.store import Store
from tests.prep.test_caption import folder, item, prep, text

__all__ = ["folder"]  # the fixture with two scored pictures


def test_the_keyword_comes_first_and_later_captions_keep_it(folder: Path) -> None:
    assert prep("caption", folder).exit_code == 0
    assert prep("keyword", folder, "--keyword", "sks").exit_code == 0
    assert text(folder / "a.txt") == "sks, 1girl, red eyes, hat\n"
    before = (folder / "a.txt").stat().st_mtime_ns
    assert prep("caption", folder).exit_code == 0
    assert prep("keyword", folder, "-k", "sks").exit_code == 0
    assert (folder / "a.txt").stat().st_mtime_ns == before
    assert prep("caption", folder, "-t", 0.9).exit_code == 0
    assert text(folder / "a.txt") == "sks, 1girl\n"
    assert item(folder, "a").tags == ["1girl"] and item(folder, "a").keyword == "sks" and not item(folder, "a").hand


def test_another_keyword_takes_the_place_of_the_old_one_in_hand_captions_too(folder: Path) -> None:
    assert prep("caption", folder).exit_code == 0
    (folder / "b.txt").write_text("Hatsune Miku (vocaloid), a photo of Hatsune Miku, SKS", encoding="utf-8")
    assert prep("keyword", folder, "-k", "sks", "--full-name", "hatsune_miku").exit_code == 0
    assert text(folder / "b.txt") == "sks, a photo of\n" and item(folder, "b").hand
    assert prep("keyword", folder, "-k", "ohwx").exit_code == 0
    assert text(folder / "a.txt") == "ohwx, 1girl, red eyes, hat\n"
    assert text(folder / "b.txt") == "ohwx, a photo of\n"


def test_a_project_gives_keyword_and_name(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("project")
    (root / "dataset.toml").write_text(f"[project]\nkeyword = 'sks'\nfull_name = 'red_eyes'\nwork = '{folder.as_posix()}'\n", encoding="utf-8")
    for command in ("caption", "keyword", "caption"):
        assert prep(command, root).exit_code == 0
    assert text(folder / "a.txt") == "sks, 1girl, hat\n"


def test_captions_compiled_later_leave_out_the_name_that_keyword_was_told(folder: Path) -> None:
    assert prep("caption", folder).exit_code == 0
    assert prep("keyword", folder, "-k", "sks", "--full-name", "red_eyes").exit_code == 0
    assert item(folder, "a").full_name == "red_eyes"
    assert prep("caption", folder).exit_code == 0
    assert text(folder / "a.txt") == "sks, 1girl, hat\n" and item(folder, "a").tags == ["1girl", "hat"]
    assert prep("caption", folder, "--full-name", "hat").exit_code == 0
    assert text(folder / "a.txt") == "sks, 1girl, red eyes\n"
    assert prep("keyword", folder, "-k", "sks").exit_code == 0  # the last word counts: there is no name any more
    assert prep("caption", folder).exit_code == 0
    assert text(folder / "a.txt") == "sks, 1girl, red eyes, hat\n"


def test_before_tagging_the_caption_is_the_keyword_alone(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    assert prep("keyword", tmp_path, "-k", "sks").exit_code == 0
    assert text(tmp_path / "x.txt") == "sks\n" and not item(tmp_path, "x").hand


@pytest.mark.parametrize(
    ("keyword", "words"),
    [("", "prep rare"), (" ", "prep rare"), ("a, b", "more than one tag"), ("a\nb", "more than one tag"), ("Miku", "full name")],
)
def test_a_keyword_that_will_not_do_is_refused_before_anything_is_read(tmp_path: Path, keyword: str, words: str) -> None:
    def unread() -> Item:
        raise AssertionError("a picture was read")
        yield

    with pytest.raises(UserError, match=words):
        next(Keyword(keyword=keyword, full_name="miku")(unread(), Store(tmp_path)))
