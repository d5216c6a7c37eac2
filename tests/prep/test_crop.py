"""Crop: a face is never cut, the detail stays in, and the pixels are not touched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prep.boxes import holds
from prep.crop import Crop
from prep.framing import MODES, Scene, square, trimmed
from prep.item import Box, Item
from prep.options import UserError
from prep.project import Place
from prep.store import Store


def speckled(width: int, height: int, region: tuple[int, int, int, int]) -> Image.Image:
    """Draw a flat picture with detail in one region only."""
    image = Image.new("RGB", (width, height), (180, 200, 190))
    x0, y0, x1, y1 = region
    checks = np.indices((y1 - y0, x1 - x0)).sum(axis=0) // 8 % 2 * 255
    image.paste(Image.fromarray(checks.astype(np.uint8)).convert("RGB"), (x0, y0))
    return image


@pytest.mark.parametrize("region", [(20, 30, 120, 130), (480, 60, 580, 160), (250, 10, 350, 110)])
def test_square_goes_where_the_detail_is(region: tuple[int, int, int, int]) -> None:
    crop = square(Scene(speckled(600, 200, region)))
    assert crop[2] - crop[0] == crop[3] - crop[1] == 200
    assert holds(crop, region)
    standing = tuple(region[index] for index in (1, 0, 3, 2))
    assert holds(square(Scene(speckled(200, 600, standing))), standing)  # type: ignore[arg-type]


def test_square_of_an_even_picture_is_in_the_middle() -> None:
    assert square(Scene(Image.new("RGB", (300, 100), "gray"))) == (100, 0, 200, 100)
    assert square(Scene(Image.new("RGB", (100, 100)))) == (0, 0, 100, 100)


def test_margin_is_kept_where_there_is_room() -> None:
    face = Box("face", 0.9, 300, 50, 350, 100)
    crop = square(Scene(speckled(600, 200, (0, 0, 100, 200)), [face], 1.0))
    assert crop == (225, 0, 425, 200)  # the face with its margin, 250 to 400, is in the middle


def test_subject_trims_what_is_empty() -> None:
    region = (200, 100, 300, 260)
    x0, y0, x1, y1 = trimmed(Scene(speckled(600, 400, region)))
    assert holds((x0, y0, x1, y1), region)
    assert x0 >= 190 and y0 >= 90 and x1 <= 310 and y1 <= 270
    assert trimmed(Scene(Image.new("RGB", (60, 40)))) == (0, 0, 60, 40)


def test_extreme_proportions() -> None:
    for size in ((1000, 1), (1, 1000), (1, 1)):
        assert square(Scene(Image.new("RGB", size)))[2:] != (0, 0)
        assert trimmed(Scene(Image.new("RGB", size))) == (0, 0, *size)


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


def sidecar(folder: Path, key: str = "a", **changes: object) -> dict:
    """Read an item's sidecar, after changing it by hand."""
    path = folder / ".atelier" / "items" / f"{key}.json"
    if changes:
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), encoding="utf-8")
    return json.loads(path.read_text("utf-8"))


def test_a_corrected_crop_stays_in_another_mode_but_not_with_redo(tmp_path: Path) -> None:
    speckled(300, 200, (0, 0, 90, 90)).save(tmp_path / "a.png")
    assert run(tmp_path, mode="square").crop == (0, 0, 200, 200)
    sidecar(tmp_path, crop=[7, 0, 150, 150])
    for mode in ("square", "buckets", "subject", "none"):
        assert run(tmp_path, mode=mode).crop == (7, 0, 150, 150)
    assert run(tmp_path, mode="square", redo=True).crop == (0, 0, 200, 200)
    assert run(tmp_path, mode="subject").crop != (0, 0, 200, 200)  # ours again, so it is replaced


def test_a_crop_made_by_hand_before_any_run_stays(tmp_path: Path) -> None:
    speckled(300, 200, (0, 0, 90, 90)).save(tmp_path / "a.png")
    store = Store(tmp_path)
    (item,) = store.items()
    item.crop = (10, 20, 110, 120)
    store.save(item)
    assert run(tmp_path, mode="square").crop == run(tmp_path, mode="buckets").crop == (10, 20, 110, 120)


def test_a_crop_outside_the_picture_is_one_sentence(tmp_path: Path) -> None:
    speckled(300, 200, (0, 0, 90, 90)).save(tmp_path / "a.png")
    run(tmp_path, mode="square")
    sidecar(tmp_path, crop=[7, 0, 150, 950])
    with pytest.raises(UserError, match="not inside the picture of 300 x 200; mend or delete it"):
        run(tmp_path, mode="subject")


def test_boxes_corrected_by_hand_are_framed(tmp_path: Path) -> None:
    speckled(600, 200, (0, 0, 90, 90)).save(tmp_path / "a.png")
    assert run(tmp_path, mode="square").crop == (0, 0, 200, 200)
    sidecar(tmp_path, boxes=[{"label": "face", "score": 1, "x0": 500, "y0": 20, "x1": 560, "y1": 90}])
    crop = run(tmp_path, mode="square").crop
    assert crop and holds(crop, (500, 20, 560, 90))


def test_crops_stay_inside_what_other_steps_trimmed(tmp_path: Path) -> None:
    speckled(300, 200, (0, 0, 90, 200)).save(tmp_path / "a.png")
    store = Store(tmp_path)
    (item,) = store.items()
    item.marks, item.crop = [Box("trim", 1, 0, 0, 300, 170)], (0, 0, 300, 170)
    store.save(item)
    for mode in MODES:
        crop = run(tmp_path, mode=mode).crop
        assert crop and holds((0, 0, 300, 170), crop)
    assert run(tmp_path).crop == (0, 0, 300, 170)
    sidecar(tmp_path, marks=[], crop=None)  # `prep marks` took its trim back
    assert run(tmp_path).crop is None


def test_a_small_crop_is_noted_and_proposed(tmp_path: Path) -> None:
    speckled(300, 200, (0, 0, 90, 90)).save(tmp_path / "a.png")
    item = run(tmp_path, mode="square")
    assert item.notes == ["upscaled_2.6x"] and item.proposed == "small_crop"
    item = run(tmp_path, mode="square", max_upscale=3.0)
    assert item.notes == [] and item.proposed == ""
