"""Store: sidecars remember all of an item, keys are unique everywhere, folders can be moved."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prep.item import Box, Item
from prep.options import UserError
from prep.store import Store, free_key


def picture(path: Path, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)
    return path


def full_item(root: Path) -> Item:
    """Make an item with a value of its own in every field."""
    box = Box("face", 0.25, 1, 2, 3, 4)
    return Item(
        key="a", path=picture(root / "work/a.png"), source=picture(root / "raw/A b.png"), source_sha256="5" * 64, frame=2, digest="7" * 64,
        width=8, height=6, notes=["exif_rotated"], measures={"blur": 0.5}, boxes=[box], marks=[box, box], masked=[box],
        retouched=".atelier/retouched/a.png", retouched_digest="8" * 64, proposed="stranger", distance=0.5, parent="b", stage="head",
        emphasis=0.5, crop=(0, 1, 5, 6), sentences=["a girl"], tags=["1girl", "^_^"], keyword="mira", full_name="mira doe", caption="mira, 1girl",
        written="mira, 1girl", hand=True, imported_caption="é, ö", tokens=7, dropped="too_small", detail="8 x 6", stamps={"clean": "0123"},
    )  # fmt: skip


def test_a_sidecar_holds_every_field(tmp_path: Path) -> None:
    item, store = full_item(tmp_path), Store(tmp_path / "work")
    blank = Item("", Path())
    assert all(getattr(item, f.name) != getattr(blank, f.name) for f in fields(Item))
    store.save(item)
    assert store.load() == [item]


def test_paths_in_a_sidecar_are_relative_with_slashes_so_that_a_project_can_be_moved(tmp_path: Path) -> None:
    Store(tmp_path / "p/work").save(full_item(tmp_path / "p"))
    stored = json.loads((tmp_path / "p/work/.atelier/items/a.json").read_text(encoding="utf-8"))
    assert (stored["path"], stored["source"], stored["imported_caption"]) == ("a.png", "../raw/A b.png", "é, ö")
    shutil.move(tmp_path / "p", tmp_path / "q")
    (item,) = Store(tmp_path / "q/work").load()
    assert item.path == tmp_path / "q/work/a.png" and item.source == tmp_path / "q/raw/A b.png" and item.source.exists()


def test_a_source_on_another_drive_keeps_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_drive(*_: object) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    item, store = full_item(tmp_path), Store(tmp_path / "work")
    monkeypatch.setattr(os.path, "relpath", other_drive)
    store.save(item)
    assert store.load() == [item]


def test_a_sidecar_is_only_written_when_it_changes(tmp_path: Path) -> None:
    item, store = full_item(tmp_path), Store(tmp_path / "work")
    store.save(item)
    sidecar = tmp_path / "work/.atelier/items/a.json"
    os.utime(sidecar, (1, 1))
    store.save(item)
    assert sidecar.stat().st_mtime == 1
    item.tokens = 8
    store.save(item)
    assert sidecar.stat().st_mtime > 1


@pytest.mark.parametrize("data", [b"{", b'{"key": "a"}', b'{"key": "a", "path": "a.png", "width": "wide"}', b"\xff"])
def test_a_sidecar_broken_by_hand_is_named_in_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / ".atelier/items/a.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.json is not a readable sidecar") as caught:
        Store(tmp_path).load()
    assert "\n" not in str(caught.value)


def test_a_sidecar_of_an_older_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / ".atelier/items/a.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"key": "a", "path": "a.png", "a_field_that_is_gone": 1}', encoding="utf-8")
    assert Store(tmp_path).load() == [Item("a", tmp_path / "a.png")]


def test_a_half_written_sidecar_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / ".atelier/items/.tmp-x.json"
    path.parent.mkdir(parents=True)
    path.write_text("{", encoding="utf-8")
    assert Store(tmp_path).load() == []


def test_items_are_the_pictures_there_and_those_set_aside(tmp_path: Path) -> None:
    store = Store(tmp_path / "work")
    for name in ("a.png", "a.jpg", "new.png"):
        picture(tmp_path / "work" / name)
    raw = picture(tmp_path / "raw/small.png")
    for item in (
        Item("a", tmp_path / "work/a.png", keyword="mira"),
        Item("deleted", tmp_path / "work/deleted.png"),
        Item("small", raw, source=raw, dropped="too_small"),
        Item("gone", tmp_path / "raw/gone.png", dropped="too_small"),
    ):
        store.save(item)
    found = {item.key: item for item in store.items()}
    assert set(found) == {"a", "a-2", "new", "small"}
    assert found["a"].keyword == "mira" and found["a-2"].path.name == "a.jpg" and found["small"].dropped == "too_small"


def test_a_source_keeps_its_key_when_others_come_before_it(tmp_path: Path) -> None:
    store, raw = Store(tmp_path / "work"), tmp_path / "raw"
    picture(raw / "x.png")
    (first,) = store.sources(raw)
    assert (first.key, first.source) == ("x", raw / "x.png")
    store.save(first)
    picture(raw / "X.jpg")
    picture(raw / "x.bmp")
    keys = {item.path.name: item.key for item in store.sources(raw)}
    assert keys["x.png"] == "x" and len({key.casefold() for key in keys.values()}) == 3


def test_a_relative_folder_is_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(tmp_path / "p/a.png")
    monkeypatch.chdir(tmp_path)
    (item,) = Store(Path("p")).items()
    item.keyword = "mira"
    Store(Path("p")).save(item)
    monkeypatch.chdir(tmp_path / "p")
    assert [(i.path, i.keyword) for i in Store(Path(".")).items()] == [(path, "mira")]


def test_wrote_tells_our_caption_from_a_persons(tmp_path: Path) -> None:
    store, path = Store(tmp_path), picture(tmp_path / "a.png")
    assert not store.wrote(path, "1girl")
    store.save(Item("a", path, written="1girl\n"))
    assert store.wrote(path, "1girl") and not store.wrote(path, "1girl, edited")
    store.save(Item("a", path, written="1girl", hand=True))
    assert not store.wrote(path, "1girl")


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("aAß-2 .é好😀")) | st.text(st.characters(exclude_categories=["Cs"]), max_size=300), max_size=30))
def test_keys_are_unique_also_where_case_is_ignored_and_short_enough_for_a_file_name(stems: list[str]) -> None:
    taken: set[str] = set()
    keys = [free_key(stem, taken) for stem in stems]
    assert len({key.casefold() for key in keys}) == len(keys)
    assert all(key and len(key.encode("utf-8")) <= 210 for key in keys)
    assert all(key.startswith(stem[:30]) for key, stem in zip(keys, stems, strict=True))
    assert not stems or keys[0] == stems[0] or len(stems[0].encode("utf-8")) > 180 or not stems[0]


def test_a_file_name_that_is_no_text_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r"'\\udcff' is no readable text"):
        free_key(os.fsdecode(b"\xff"), set())


def test_a_retouched_copy_takes_the_pictures_place_and_goes_again(tmp_path: Path) -> None:
    item, store = Item("a", picture(tmp_path / "a.png")), Store(tmp_path)
    item.see(item.image())
    before = item.picture_digest
    store.retouch(item, Image.new("RGB", (8, 6), "blue"))
    assert item.image().getpixel((0, 0)) == (0, 0, 255) and item.picture_digest != before
    item.crop = (0, 0, 4, 4)
    assert item.image().size == (4, 4)
    store.save(item)
    (again,) = Store(tmp_path).load()
    assert again.picture == item.picture and again.picture.exists()
    assert Image.open(tmp_path / "a.png").getpixel((0, 0)) == (255, 0, 0), "the clean picture stays"
    store.retouch(item, None)
    assert item.picture == item.path and item.picture_digest == before and not again.picture.exists()


def test_sidecars_that_name_each_others_pictures_are_told_by_what_is_in_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    a, b, c = (picture(tmp_path / f"{name}.png") for name in "abc")
    store.save(Item("a", b, source_sha256="of b"))
    store.save(Item("b", a, source_sha256="of a"))
    store.save(Item("c", c, source_sha256="of c"))
    assert [(item.key, item.path.name, item.source_sha256) for item in store.items()] == [
        ("b", "a.png", "of a"),
        ("a", "b.png", "of b"),
        ("c", "c.png", "of c"),
    ]


def test_a_measure_that_is_no_number_is_read_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(Item("a", tmp_path / "a.png", measures={"sharpness": float("inf")}))
    assert store.load()[0].measures == {"sharpness": float("inf")}
