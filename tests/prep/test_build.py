"""Build: from the work folder and the reg folder to the tree."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from prep.build import Build
from prep.cli import main
from prep.item import Item, Store
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
