"""Build: from the work folder and the reg folder to the tree."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from prep.build import Build
from prep.cli import main
from prep.item import Item
from prep.store import Store
from prep.tree import read_tree, validate


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of three pictures (one set aside, one with a crop) and two of the class."""
    (tmp_path / "dataset.toml").write_text('[project]\nkeyword = "tk"\nclass = "1girl, solo"\n', encoding="utf-8")
    store = Store(tmp_path / "work")
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "lime")):
        path = tmp_path / "work" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        image = Image.new("RGB", (16, 16), colour)
        image.putpixel((3, 3), (1, 2, 3))
        image.save(path)
        path.with_suffix(".txt").write_text(f"tk, 1girl, {colour}", encoding="utf-8")
        item = Item(name, path, source=tmp_path / "raw" / f"{name}.jpeg", source_sha256="5" * 64, notes=["renamed_suffix"])
        item.crop = (2, 2, 10, 8) if name == "b" else None
        item.dropped = "duplicate" if name == "c" else ""
        store.save(item)
    for name in ("00000", "00001"):
        path = tmp_path / "reg" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16)).save(path)
        path.with_suffix(".txt").write_text("1girl, solo\n", encoding="utf-8")
    return tmp_path


def build(root: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["build", str(root), *args])


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_tree_is_what_the_trainer_reads(project: Path) -> None:
    result = build(project)
    assert result.exit_code == 0, result.output
    concept, reg = read_tree(project / "tree")
    assert (concept.path.name, reg.path.name) == ("100_tk 1girl, solo", "1_1girl, solo")
    assert [path.name for path in concept.pictures] == ["a.png", "b.png"] and len(reg.pictures) == 2
    assert (concept.path / "a.txt").read_text(encoding="utf-8") == "tk, 1girl, red\n"
    assert validate(project / "tree", "tk") == []


def test_the_crop_is_applied(project: Path) -> None:
    build(project)
    with Image.open(project / "tree/img/100_tk 1girl, solo/b.png") as image:
        assert image.size == (8, 6) and image.getpixel((1, 1)) == (1, 2, 3)


def test_the_manifest_tells_the_story(project: Path) -> None:
    build(project)
    manifest = json.loads((project / "tree/manifest.json").read_text(encoding="utf-8"))
    assert (manifest["keyword"], manifest["class"], manifest["repeats"]) == ("tk", "1girl, solo", 100) and "pillow" in manifest["tools"]
    record = manifest["files"]["img/100_tk 1girl, solo/b.png"]
    data = (project / "tree/img/100_tk 1girl, solo/b.png").read_bytes()
    assert record["sha256"] == hashlib.sha256(data).hexdigest()
    assert record["from"]["source"] == "b.jpeg" and record["from"]["source_sha256"] == "5" * 64
    assert record["from"]["operations"] == ["renamed_suffix", "cropped"] and record["from"]["crop"] == [2, 2, 10, 8]


def test_the_same_input_gives_the_same_bytes(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    build(project)
    first = contents(project / "tree")
    build(project)
    assert contents(project / "tree") == first
    (project / "tree").rename(tmp_path_factory.mktemp("away") / "tree")
    build(project)
    assert contents(project / "tree") == first


@pytest.mark.parametrize(("kept", "repeats"), [(20, 10), (24, 8), (1, 200), (300, 1), (1000, 1)])
def test_repeats_aim_at_the_target(kept: int, repeats: int) -> None:
    assert Build().repeats_for(kept) == repeats
    assert Build(repeats=7).repeats_for(kept) == 7


def test_a_new_caption_alone_changes(project: Path) -> None:
    build(project, "--repeats", "4")
    (project / "work/a.txt").write_text("tk, new words", encoding="utf-8")
    build(project, "--repeats", "4")
    assert (project / "tree/img/4_tk 1girl, solo/a.txt").read_text(encoding="utf-8") == "tk, new words\n"
    assert not list(project.glob(".tree*"))


def test_a_cropping_changed_is_cropped_anew(project: Path) -> None:
    build(project)
    store = Store(project / "work")
    item = next(item for item in store.items() if item.key == "b")
    item.crop = (0, 0, 4, 4)
    store.save(item)
    build(project)
    with Image.open(project / "tree/img/100_tk 1girl, solo/b.png") as image:
        assert image.size == (4, 4)


def test_nothing_kept_leaves_the_old_tree(project: Path) -> None:
    build(project)
    before = contents(project / "tree")
    for path in (project / "work").glob("*.png"):
        path.unlink()
    result = build(project)
    assert result.exit_code == 1 and "prep clean" in result.output
    assert contents(project / "tree") == before


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda root: (root / "work/a.txt").unlink(), "a.png"),
        (lambda root: (root / "dataset.toml").write_text('[project]\nclass = "1girl"\n'), "no keyword"),
        (lambda root: (root / "dataset.toml").write_text('[project]\nkeyword = "tk"\n'), "class"),
        (lambda root: (root / "work/a.png").write_bytes(b"\x89PNG\r\n"), "a.png"),
    ],
)
def test_what_is_missing_is_said(project: Path, spoil, says: str) -> None:  # type: ignore[no-untyped-def]
    spoil(project)
    result = build(project)
    assert result.exit_code == 1 and says in result.output and "unexpected" not in result.output
    assert not (project / "tree").exists()


def test_a_bare_folder(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "é.png")
    (tmp_path / "é.txt").write_text("tk, man", encoding="utf-8")
    result = build(tmp_path, "--keyword", "tk", "--class", "man", "--repeats", "3")
    assert result.exit_code == 0, result.output
    assert [folder.path.name for folder in read_tree(tmp_path / "tree")] == ["3_tk man"]


def test_a_loss_mask_becomes_transparency_over_the_same_colours(project: Path) -> None:
    mask = Image.new("L", (16, 16), 255)
    mask.paste(0, (0, 0, 4, 4))
    for name in ("a", "b"):
        item = next(item for item in Store(project / "work").load() if item.key == name)
        item.width = item.height = 16
        Store(project / "work").save(item)
        mask.save(project / "work" / f"{name}.mask.png")
    plain = build(project, "--no-masks")
    assert plain.exit_code == 0, plain.output
    assert all(Image.open(path).mode == "RGB" for path in (project / "tree" / "img").rglob("*.png"))
    before = contents(project / "tree")
    assert build(project).exit_code == 0
    concept, _ = read_tree(project / "tree")
    whole, cropped = map(Image.open, concept.pictures)
    assert whole.mode == "RGBA" and whole.getpixel((3, 3)) == (1, 2, 3, 0) and whole.getpixel((4, 4)) == (255, 0, 0, 255)
    assert cropped.size == (8, 6) and cropped.getpixel((0, 0))[3] == 0 and cropped.getpixel((2, 2))[3] == 255
    assert build(project, "--no-masks").exit_code == 0 and contents(project / "tree") == before


def test_emphasis_gives_folders_of_other_repeats(project: Path) -> None:
    store = Store(project / "work")
    item = next(item for item in store.load() if item.key == "b")
    item.emphasis = 0.5
    store.save(item)
    result = build(project, "--repeats", "10")
    assert result.exit_code == 0 and "15 samples an epoch" in result.output
    assert [folder.path.name for folder in read_tree(project / "tree") if not folder.is_reg] == ["10_tk 1girl, solo", "5_tk 1girl, solo"]


def settings(root: Path, text: str) -> None:
    (root / "dataset.toml").write_text(text, encoding="utf-8")


def test_pictures_that_are_plain_go_in_byte_for_byte(project: Path) -> None:
    Image.open(project / "work/a.png").save(project / "work/d.jpg")
    (project / "work/d.txt").write_text("tk, photo", encoding="utf-8")
    assert build(project, "--repeats", "2").exit_code == 0
    folder = project / "tree/img/2_tk 1girl, solo"
    for name in ("a.png", "d.jpg"):
        assert (folder / name).read_bytes() == (project / "work" / name).read_bytes()
        assert (folder / name).stat().st_ino != (project / "work" / name).stat().st_ino
    assert (folder / "b.png").read_bytes() != (project / "work/b.png").read_bytes(), "it has a crop"


def test_linked_pictures_share_the_disk_and_captions_do_not(project: Path) -> None:
    assert build(project, "--link").exit_code == 0
    tree = project / "tree/img/100_tk 1girl, solo"
    assert os.path.samefile(tree / "a.png", project / "work/a.png") and not os.path.samefile(tree / "a.txt", project / "work/a.txt")
    assert os.path.samefile(project / "tree/reg/1_1girl, solo/00000.png", project / "reg/00000.png")
    assert validate(project / "tree", "tk") == []
    assert build(project).exit_code == 0
    assert not os.path.samefile(tree / "a.png", project / "work/a.png"), "without --link a tree is on its own again"


def test_where_there_are_no_links_pictures_are_copied(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refused)
    for _ in range(2):
        assert build(project, "--link").exit_code == 0
        assert validate(project / "tree", "tk") == []


def test_a_picture_replaced_by_one_of_the_same_size_and_time_is_noticed(project: Path) -> None:
    build(project)
    old = project / "work/a.png"
    image = Image.open(old)
    image.load()
    image.putpixel((5, 5), (9, 9, 9))
    image.save(project / "work/new.png")
    os.utime(project / "work/new.png", ns=(0, old.stat().st_mtime_ns))
    (project / "work/new.png").replace(old)
    build(project)
    with Image.open(project / "tree/img/100_tk 1girl, solo/a.png") as found:
        assert found.getpixel((5, 5)) == (9, 9, 9)


@pytest.mark.parametrize("text", ["{}", "[]", "{"])
def test_a_damaged_sidecar_is_named(project: Path, text: str) -> None:
    (project / "work/.atelier/items/a.json").write_text(text, encoding="utf-8")
    result = build(project)
    assert result.exit_code == 1 and "a.json is not a readable sidecar" in result.output


def test_a_damaged_memory_costs_nothing_but_time(project: Path) -> None:
    build(project)
    before = contents(project / "tree")
    for text in ("", "{", "[]", '{"files": {"1": 3}, "notes": {}}'):
        (project / ".atelier/digests.json").write_text(text, encoding="utf-8")
        assert build(project).exit_code == 0
        assert contents(project / "tree") == before and not list(project.glob("tree-edited*"))


def other(root: Path, name: str, count: int, keyword: str, cls: str = "1boy") -> Path:
    """Write a second project with its own keyword."""
    folder = root / name
    (folder / "work").mkdir(parents=True)
    settings(folder, f'[project]\nkeyword = "{keyword}"\nclass = "{cls}"\n')
    for number in range(count):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / "work" / f"a{number}.png")
        (folder / "work" / f"a{number}.txt").write_text(f"{keyword}, {cls}", encoding="utf-8")
    return folder


def samples(tree: Path) -> dict[str, int]:
    return {folder.concept: folder.samples for folder in read_tree(tree) if not folder.is_reg}


def test_two_projects_share_a_tree_evenly(project: Path) -> None:
    other(project, "ren", 10, "ren")
    result = build(project, "--also", "ren", "--target", "100")
    assert result.exit_code == 0, result.output
    assert samples(project / "tree") == {"tk 1girl, solo": 50, "ren 1boy": 50}
    assert "tk 1girl, solo 50%" in result.output.replace("\n", " ")
    assert CliRunner().invoke(main, ["check", str(project)]).exit_code == 0


def test_stated_shares_are_met(project: Path) -> None:
    other(project, "ren", 10, "ren")
    assert build(project, "--also", "ren", "--shares", "20, 80", "--target", "100").exit_code == 0
    found = samples(project / "tree")
    assert found["ren 1boy"] / sum(found.values()) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--also", "nowhere"), "holds no dataset.toml"),
        (("--shares", "60,40"), "give 1 positive number"),
        (("--tiers", "60,x"), "give 2 positive numbers"),
        (("--tiers", "60,0"), "give 2 positive numbers"),
    ],
)
def test_what_is_wrong_with_shares_is_said_before_any_work(project: Path, arguments: tuple[str, str], says: str) -> None:
    result = build(project, *arguments)
    assert result.exit_code == 1 and says in result.output and not (project / "tree").exists()


def test_better_pictures_are_shown_more_often(project: Path) -> None:
    store = Store(project / "work")
    for item in store.load():
        item.measures = {"blur": {"a": 0.1, "b": 0.6}.get(item.key, 0.3)}
        store.save(item)
    result = build(project, "--tiers", "75,25", "--target", "40")
    assert result.exit_code == 0, result.output
    folders = {folder.path.name: [path.stem for path in folder.pictures] for folder in read_tree(project / "tree") if not folder.is_reg}
    assert folders == {"30_tk 1girl, solo": ["a"], "10_tk 1girl, solo": ["b"]}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_at_any_moment_there_is_the_old_tree_or_the_new_one(project: Path) -> None:
    for number in range(60):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(project / f"work/n{number}.png")
        (project / f"work/n{number}.txt").write_text("tk, 1girl", encoding="utf-8")
    build(project, "--repeats", "1")
    for delay in (0.3, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8):
        old = contents(project / "tree")
        (project / "work/n7.txt").write_text(f"tk, {delay}", encoding="utf-8")
        process = subprocess.Popen([sys.executable, "-m", "prep", "build", str(project), "--repeats", "1"], stdout=subprocess.DEVNULL)
        time.sleep(delay)
        process.kill()
        process.wait()
        found = contents(project / "tree")  # as another trainer sees it, without our help
        build(project, "--repeats", "1")
        assert found in (old, contents(project / "tree"))
    assert not list(project.glob(".tree.*")) and not list(project.glob("tree-edited*"))
