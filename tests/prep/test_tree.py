"""The tree: names, reading, atomic publishing, what validation finds."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prep.options import UserError
from prep.publish import PlannedPicture, TreePlan, publish
from prep.swap import exchange
from prep.tree import Folder, folder_name, parse_folder_name, read_tree, regularization_use, same_name, validate

KEY = "tk"


def picture(path: Path, colour: str = "red", size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), colour).save(path)
    return path


def pair(path: Path, caption: str = "tk, 1girl, smile") -> Path:
    picture(path).with_suffix(".txt").write_text(caption, encoding="utf-8", newline="\n")
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree in order: two pictures of the concept, two of the class."""
    for name in ("a", "b"):
        pair(tmp_path / "img" / "2_tk 1girl" / f"{name}.png")
        pair(tmp_path / "reg" / "1_1girl" / f"{name}.png", "1girl, smile")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("10_a b", (10, "a b")), ("10_a_b", (10, "a_b")), ("1_ä", (1, "ä")), ("0_x", None), ("x", None), ("-3_x", None), ("3_", None),
        ("3_ ", None), ("+3_x", None), ("٣_x", None), ("_x", None), ("3x_y", None), ("007_bond", (7, "bond")),
    ],
)  # fmt: skip
def test_folder_names(name: str, parsed: tuple[int, str] | None) -> None:
    assert parse_folder_name(name) == parsed


@given(st.integers(1, 9999), st.text(min_size=1, max_size=300))
def test_a_written_name_reads_back_and_suits_every_file_system(repeats: int, concept: str) -> None:
    try:
        name = folder_name(repeats, concept)
    except UserError:
        return
    assert len(name.encode("utf-8", "replace")) < 255 and not set(name) & set('<>:"/\\|?*\n\0') and name[-1] not in " ."
    number, text = parse_folder_name(name) or (0, "")
    assert number == repeats and folder_name(number, text) == name


@given(st.integers(1, 99), st.text("abc é日_-", min_size=1, max_size=30).filter(str.strip))
def test_plain_concepts_are_kept(repeats: int, concept: str) -> None:
    assert parse_folder_name(folder_name(repeats, concept)) == (repeats, " ".join(unicodedata.normalize("NFC", concept).split()))


def test_names_that_would_be_one_file() -> None:
    assert same_name("É.png") == same_name("e\u0301.PNG")
    assert same_name("a") != same_name("b")


def test_reading_a_tree(tree: Path) -> None:
    (tree / "img" / "notes").mkdir()
    concept, reg = read_tree(tree)
    assert (concept.repeats, concept.concept, concept.is_reg, concept.samples) == (2, "tk 1girl", False, 4)
    assert [path.name for path in reg.pictures] == ["a.png", "b.png"] and reg.is_reg


@pytest.mark.parametrize(("where", "says"), [("img", "is inside a tree"), ("img/2_tk 1girl", "is inside a tree"), ("reg/..", "")])
def test_a_slip_in_the_path_is_explained(tree: Path, where: str, says: str) -> None:
    if says:
        with pytest.raises(UserError, match=says):
            read_tree(tree / where)
    else:
        assert read_tree(tree / where)


def test_folders_one_level_too_high(tmp_path: Path) -> None:
    pair(tmp_path / "3_tk" / "a.png")
    with pytest.raises(UserError, match="move them into"):
        read_tree(tmp_path)
    with pytest.raises(UserError, match="no tree"):
        read_tree(tmp_path / "nowhere")


def test_a_tree_in_order_has_no_findings(tree: Path) -> None:
    assert validate(tree, KEY) == []


def spoil(change: Callable[[Path, Path], Any]) -> Callable[[Path], None]:
    return lambda tree: change(tree / "img" / "2_tk 1girl", tree / "reg" / "1_1girl")


SPOILS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "no caption beside": ("error", spoil(lambda img, reg: (img / "a.txt").unlink())),
    "caption is empty": ("error", spoil(lambda img, reg: (img / "a.txt").write_text(" \n"))),
    "not UTF-8": ("error", spoil(lambda img, reg: (img / "a.txt").write_bytes("tk, café".encode("utf-16")))),
    ".gif is not read": ("error", spoil(lambda img, reg: picture(img / "c.gif").with_suffix(".txt").write_text("tk"))),
    ".JPEG is not read": ("error", spoil(lambda img, reg: picture(img / "c.JPEG").with_suffix(".txt").write_text("tk"))),
    "capital letters in .PNG": ("warning", spoil(lambda img, reg: pair(img / "c.PNG"))),
    "not named N_concept": ("error", spoil(lambda img, reg: pair(img.parent / "tk" / "a.png"))),
    "0 is not a number of repeats": ("error", spoil(lambda img, reg: pair(img.parent / "0_tk" / "a.png"))),
    "directly in it": ("error", spoil(lambda img, reg: pair(img.parent / "a.png"))),
    "keyword is missing": ("error", spoil(lambda img, reg: (img / "a.txt").write_text("tks, 1girl"))),
    "keyword is not the first": ("warning", spoil(lambda img, reg: (img / "a.txt").write_text("1girl, TK"))),
    "regularization caption holds": ("error", spoil(lambda img, reg: (reg / "a.txt").write_text("1girl, tk"))),
    "named after the keyword": ("error", spoil(lambda img, reg: reg.rename(reg.with_name("1_tk 1girl")))),
    "share one caption": ("error", spoil(lambda img, reg: picture(img / "a.jpg"))),
    "cannot be read": ("error", spoil(lambda img, reg: (img / "a.png").write_bytes((img / "a.png").read_bytes()[:40]))),
    "longer than 225": ("error", spoil(lambda img, reg: (img / "a.txt").write_text("tk" + ", smile" * 120))),
    "no picture in the folder": ("error", spoil(lambda img, reg: (img.parent / "1_tk").mkdir())),
    "a folder inside": ("error", spoil(lambda img, reg: pair(img / "more" / "z.png"))),
    "several lines": ("warning", spoil(lambda img, reg: (img / "a.txt").write_text("tk\n1girl"))),
    "no picture for this caption": ("warning", spoil(lambda img, reg: (img / "x.txt").write_text("tk"))),
    "would never use the last 3": ("warning", spoil(lambda img, reg: [pair(reg / f"r{n}.png", "1girl") for n in range(5)])),
    "same folder as": ("warning", spoil(lambda img, reg: pair(img.with_name("2_TK 1girl") / "z.png"))),
}


@pytest.mark.parametrize("says", SPOILS)
def test_each_fault_is_found_once(tree: Path, says: str) -> None:
    level, change = SPOILS[says]
    change(tree)
    assert [finding.level for finding in validate(tree, KEY) if says in finding.message] == [level]


LINES = {
    "each line is judged": ("tk, 1girl\ntk, smile", "", ""),
    "the keyword is missing from the caption or a line": ("tk, 1girl\nsmile", "", "error"),
    "the keyword is not the first tag": ("tk, 1girl\nsmile, tk", "", "warning"),
    "longer than 225": ("tk\ntk" + ", smile" * 120, "", "error"),
    "the lengths of lines are not added up": ("\n".join(["tk" + ", smile" * 70] * 3), "", ""),
    "a regularization caption holds the keyword": ("tk, 1girl", "1girl\n1girl, tk", "error"),
    "a keyword across two lines is none": ("tk 2, 1girl", "smile, tk\n2 hats", ""),
}


@pytest.mark.parametrize("says", LINES)
def test_with_enable_wildcard_each_line_is_judged_and_without_it_the_first(tree: Path, says: str) -> None:
    text, of_class, level = LINES[says]
    (tree / "img/2_tk 1girl/a.txt").write_text(text, encoding="utf-8")
    (tree / "img/2_tk 1girl/b.txt").write_text(text, encoding="utf-8")
    (tree / "reg/1_1girl/a.txt").write_text(of_class or "1girl", encoding="utf-8")
    found = validate(tree, "tk 2" if "across" in says else KEY, wildcard=True)
    assert {(finding.level, says in finding.message) for finding in found} == ({(level, True)} if level else set())
    unread = validate(tree, "tk 2" if "across" in says else KEY)
    assert {finding.level for finding in unread} == {"warning"} if "\n" in text + of_class else not unread
    assert all("enable_wildcard" in finding.message for finding in unread)


def test_stems_that_differ_in_case_share_a_caption(tree: Path) -> None:
    pair(tree / "img" / "2_tk 1girl" / "A.png")
    assert any("share one caption" in finding.message for finding in validate(tree, KEY))


def test_missing_img_is_one_error(tmp_path: Path) -> None:
    assert [finding.level for finding in validate(tmp_path)] == ["error"]


def test_a_tree_of_regularization_alone_is_an_error(tree: Path) -> None:
    for path in (tree / "img" / "2_tk 1girl").iterdir():
        path.unlink()
    assert "nothing to train on" in " ".join(finding.message for finding in validate(tree))


@pytest.mark.parametrize(("reg", "used", "unused"), [(0, 0, 0), (60, 200, 0), (199, 200, 0), (200, 200, 0), (201, 200, 1), (300, 200, 100)])
def test_regularization_counts(reg: int, used: int, unused: int) -> None:
    folders = [Folder(Path("i"), 10, "tk", False, (Path("a"),) * 20), Folder(Path("r"), 1, "girl", True, (Path("b"),) * reg)]
    assert regularization_use(folders) == (200, used, unused)


def plan(*stems: str, caption: str = "tk, 1girl") -> TreePlan:
    make = lambda: Image.new("RGB", (8, 8), "blue")  # noqa: E731
    return TreePlan([PlannedPicture("img/1_tk", stem, make, caption, {"source": stem}) for stem in stems], {"keyword": "tk"})


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_publishing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    publish(tmp_path / "one", plan("a", "b"))
    publish(tmp_path / "two", plan("a", "b"))
    first = contents(tmp_path / "one")
    assert first == contents(tmp_path / "two") and set(first) == {"manifest.json", *(f"img/1_tk/{s}.{e}" for s in "ab" for e in ("png", "txt"))}
    publish(tmp_path / "one", plan("a", "b"))
    assert contents(tmp_path / "one") == first
    assert json.loads(first["manifest.json"])["keyword"] == "tk"
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["one", "two"] and not list(tmp_path.glob(".one.*"))


def test_unchanged_pictures_are_not_made_again(tmp_path: Path) -> None:
    publish(tmp_path / "tree", plan("a"))
    never = PlannedPicture("img/1_tk", "a", lambda: pytest.fail("made again"), "tk, smile", {"source": "a"})
    publish(tmp_path / "tree", TreePlan([never]))
    assert (tmp_path / "tree/img/1_tk/a.txt").read_text() == "tk, smile\n"


def test_a_publish_that_dies_leaves_the_old_tree(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    publish(root, plan("a"))
    before = contents(root)

    def dying() -> Iterator[PlannedPicture]:
        yield from plan("b").pictures
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(root, TreePlan(dying()))
    assert contents(root) == before
    publish(root, plan("c"))
    assert [path.name for path in read_tree(root)[0].pictures] == ["c.png"]


@pytest.mark.parametrize(("swaps", "renames", "found"), [(True, 1, "b.png"), (False, 1, "a.png"), (False, 2, "b.png")])
def test_killed_between_the_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool, renames: int, found: str) -> None:
    root = tmp_path / "tree"
    publish(root, plan("a"))
    if swaps and not can_exchange(tmp_path):
        pytest.skip("this file system cannot exchange two folders")
    done, rename = [], Path.rename

    def stop_at(self: Path, target: Path) -> Path:
        done.append(target)
        if len(done) == renames:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", stop_at)
        if not swaps:
            patch.setattr("prep.publish.exchange", lambda one, two: False)
        publish(root, plan("b"))
    if swaps:
        assert (root / "img/1_tk" / found).exists(), "after an exchange the tree is there without any help"
    assert [path.name for path in read_tree(root)[0].pictures] == [found]
    publish(root, plan("c"))
    assert [path.name for path in read_tree(root)[0].pictures] == ["c.png"] and not list(tmp_path.glob(".tree.*"))


def can_exchange(folder: Path) -> bool:
    one, two = folder / "one", folder / "two"
    (one / "first").mkdir(parents=True)
    two.mkdir()
    return exchange(one, two) and (two / "first").is_dir() and not list(one.iterdir())


def test_a_hand_edit_survives_a_kill_right_after_the_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not can_exchange(tmp_path):
        pytest.skip("this file system cannot exchange two folders")
    root = tmp_path / "tree"
    publish(root, plan("a"))
    (root / "img/1_tk/a.txt").write_text("tk, my own words")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", lambda self, target: (_ for _ in ()).throw(KeyboardInterrupt))
        publish(root, plan("b"))
    kept = publish(root, plan("c"))
    assert kept and (kept / "img/1_tk/a.txt").read_text() == "tk, my own words"


def new_file(path: Path) -> None:
    path.with_name("later.txt").write_text("tk, my own words")


def in_place(path: Path) -> None:
    path.write_text("tk, my own words")


def same_size(path: Path) -> None:
    text = path.read_text()
    path.write_text(text.replace("1girl", "1boyy"))


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_text(path.read_text().replace("1girl", "2girl"))
    os.utime(other, ns=(0, path.stat().st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("edit", [in_place, same_size, replaced, new_file])
def test_every_kind_of_edit_by_hand_is_seen(tmp_path: Path, edit: Callable[[Path], None]) -> None:
    root = tmp_path / "tree"
    for stem in ("a", "b"):
        publish(root, plan("a", stem * 2))
        edit(root / "img/1_tk/a.txt")
        before = contents(root)
        kept = publish(root, plan("a"))
        assert kept and contents(kept) == before
    assert len(list(tmp_path.glob("tree-edited-*"))) == 2


def test_a_copied_project_knows_its_edits(tmp_path: Path) -> None:
    publish(tmp_path / "one" / "tree", plan("a"))
    (tmp_path / "one/tree/img/1_tk/a.txt").write_text("tk, my own words")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert publish(tmp_path / "two" / "tree", plan("a"))


def test_edits_by_hand_are_kept(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    publish(root, plan("a"))
    (root / "img/1_tk/a.txt").write_text("tk, my own words")
    kept = publish(root, plan("a"))
    assert kept == tmp_path / "tree-edited-1" and (kept / "img/1_tk/a.txt").read_text() == "tk, my own words"
    assert (root / "img/1_tk/a.txt").read_text() == "tk, 1girl\n"


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    pair(tmp_path / "tree" / "a.png")
    with pytest.raises(UserError, match="was not made by"):
        publish(tmp_path / "tree", plan("a"))
    assert (tmp_path / "tree" / "a.png").exists()


@pytest.mark.parametrize("pair_of_stems", [("a", "A"), ("é", "e\u0301")])
def test_pictures_that_would_be_one_file_are_refused(tmp_path: Path, pair_of_stems: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="rename one"):
        publish(tmp_path / "tree", plan(*pair_of_stems))
    assert not (tmp_path / "tree").exists()
