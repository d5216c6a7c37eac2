"""Crop: a face is never cut, the detail stays in, and the pixels are not touched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from prep.crop import Crop, square, trimmed
from prep.item import Box, Item, Store
from prep.project import Place


def speckled(width: int, height: int, region: tuple[int, int, int, int]) -> Image.Image:
    """Draw a flat picture with detail in one region only."""
    image = Image.new("RGB", (width, height), (180, 200, 190))
    x0, y0, x1, y1 = region
    checks = np.indices((y1 - y0, x1 - x0)).sum(axis=0) // 8 % 2 * 255
    image.paste(Image.fromarray(checks.astype(np.uint8)).convert("RGB"), (x0, y0))
    return image


def holds(crop: tuple[int, int, int, int], box: tuple[int, int, int, int]) -> bool:
    return crop[0] <= box[0] and crop[1] <= box[1] and crop[2] >= box[2] and crop[3] >= box[3]


@pytest.mark.parametrize("region", [(20, 30, 120, 130), (480, 60, 580, 160), (250, 10, 350, 110)])
def test_square_goes_where_the_detail_is(region: tuple[int, int, int, int]) -> None:
    crop = square(speckled(600, 200, region), [], 0)
    assert crop[2] - crop[0] == crop[3] - crop[1] == 200
    assert holds(crop, region)
    standing = tuple(region[index] for index in (1, 0, 3, 2))
    assert holds(square(speckled(200, 600, standing), [], 0), standing)  # type: ignore[arg-type]


def test_square_of_an_even_picture_is_in_the_middle() -> None:
    assert square(Image.new("RGB", (300, 100), "gray"), [], 0) == (100, 0, 200, 100)
    assert square(Image.new("RGB", (100, 100)), [], 0) == (0, 0, 100, 100)


@given(data=st.data(), width=st.integers(8, 300), height=st.integers(8, 300), margin=st.floats(0, 3))
def test_a_face_is_never_cut(data: st.DataObject, width: int, height: int, margin: float) -> None:
    image = speckled(width, height, (0, 0, min(width, 40), min(height, 40)))
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    other = Box("face", 0.6, 0, 0, 5, 5)
    assert holds(trimmed(image, [Box("face", 0.9, x0, y0, x1, y1)], margin), (x0, y0, x1, y1))
    assume(max(x1 - x0, y1 - y0) <= min(width, height))
    crop = square(image, [Box("face", 0.9, x0, y0, x1, y1), other], margin)
    assert holds(crop, (x0, y0, x1, y1))
    assert holds((0, 0, width, height), crop)
    assert crop[2] - crop[0] == crop[3] - crop[1] == min(width, height)


def test_margin_is_kept_where_there_is_room() -> None:
    face = Box("face", 0.9, 300, 50, 350, 100)
    crop = square(speckled(600, 200, (0, 0, 100, 200)), [face], 1.0)
    assert crop == (225, 0, 425, 200)  # the face with its margin, 250 to 400, is in the middle


def test_subject_trims_what_is_empty() -> None:
    region = (200, 100, 300, 260)
    x0, y0, x1, y1 = trimmed(speckled(600, 400, region), [], 0)
    assert holds((x0, y0, x1, y1), region)
    assert x0 >= 190 and y0 >= 90 and x1 <= 310 and y1 <= 270
    assert trimmed(Image.new("RGB", (60, 40)), [], 0) == (0, 0, 60, 40)


def test_extreme_proportions() -> None:
    for size in ((1000, 1), (1, 1000), (1, 1)):
        assert square(Image.new("RGB", size), [], 0)[2:] != (0, 0)
        assert trimmed(Image.new("RGB", size), [], 0) == (0, 0, *size)


def run(folder: Path, **options: object) -> Item:
    Crop(**options).main(Place(folder))  # type: ignore[arg-type]
    return Store(folder).load()[0]


def test_the_face_of_a_photograph_is_in_the_square(tmp_path: Path) -> None:
    data = pytest.importorskip("skimage.data")
    Image.fromarray(data.astronaut()).crop((60, 0, 512, 250)).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    item = run(tmp_path, mode="square", out=str(tmp_path / "out"))
    assert [box.label for box in item.boxes] == ["face"]
    assert item.crop and holds(item.crop, (120, 85, 212, 170))  # the astronaut's face in this picture
    assert (tmp_path / "a.png").read_bytes() == before
    assert Image.open(tmp_path / "out" / "a.png").size == item.image().size == (250, 250)


def test_a_corrected_crop_stays_until_the_picture_changes(tmp_path: Path) -> None:
    speckled(300, 200, (0, 0, 90, 90)).save(tmp_path / "a.png")
    assert run(tmp_path, mode="square").crop == (0, 0, 200, 200)
    sidecar = tmp_path / ".atelier" / "items" / "a.json"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text("utf-8")) | {"crop": [7, 0, 150, 150]}), encoding="utf-8")
    assert run(tmp_path, mode="square").crop == (7, 0, 150, 150)
    speckled(301, 200, (200, 0, 290, 90)).save(tmp_path / "a.png")
    assert run(tmp_path, mode="square").crop == (96, 0, 296, 200)


def test_mode_none_takes_the_crop_back(tmp_path: Path) -> None:
    speckled(300, 200, (0, 0, 90, 90)).save(tmp_path / "a.png")
    run(tmp_path, mode="square")
    assert run(tmp_path).crop is None


def test_a_missing_copy_is_written_again(tmp_path: Path) -> None:
    speckled(300, 200, (0, 0, 90, 90)).save(tmp_path / "a.png")
    run(tmp_path, mode="square", out=str(tmp_path / "out"))
    (tmp_path / "out" / "a.png").unlink()
    run(tmp_path, mode="square", out=str(tmp_path / "out"))
    assert Image.open(tmp_path / "out" / "a.png").size == (200, 200)
