"""Subject: others at the border are left out and the main person never is; backgrounds go and come back; pictures stay as they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.pocket.world import Character, draw
from prep.boxes import OTHER, area, common, corners, find_boxes, holds, overlap, people, without
from prep.crop import Crop
from prep.images import load, pixel_hash
from prep.item import Box, Item
from prep.masks import loss_mask, update_mask
from prep.options import UserError
from prep.project import Place
from prep.store import Store
from prep.subject import Subject, cut_away, main_part, touches

SIZE = (400, 300)
MAIN, EDGE, FREE = Box("person", 0.9, 120, 20, 260, 300), Box("person", 0.8, 300, 60, 400, 300), Box("person", 0.7, 20, 40, 90, 200)
FACE = Box("face", 0.95, 160, 40, 220, 110)


def run(folder: Path, **options: object) -> Item:
    Subject(**({"device": "cpu"} | options)).main(Place(folder))  # type: ignore[arg-type]
    return Store(folder).load()[0]


def sidecar(folder: Path, **changes: object) -> None:
    path = folder / ".atelier" / "items" / "a.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), encoding="utf-8")


@pytest.fixture
def group(tmp_path: Path) -> Path:
    """Make a folder with one picture on which a person has marked three people, one of them cut by the border."""
    Image.effect_noise(SIZE, 60).convert("RGB").save(tmp_path / "a.png")
    run(tmp_path, detectors="none")
    sidecar(tmp_path, boxes=[vars(box) for box in (FACE, MAIN, EDGE, FREE)])
    return tmp_path


def test_another_person_at_the_border_is_masked(group: Path) -> None:
    before = (group / "a.png").read_bytes()
    item = run(group, detectors="none")
    assert [(box.label, corners(box)) for box in item.masked] == [(OTHER, corners(EDGE))]
    mask = loss_mask(item)
    assert mask is not None and mask.getbbox() == (0, 0, 400, 300)
    assert mask.getpixel((350, 200)) == 0 and mask.getpixel((200, 200)) == mask.getpixel((50, 100)) == 255
    assert (group / "a.png").read_bytes() == before


def test_keep_takes_the_mask_back_and_leaves_those_of_other_steps(group: Path) -> None:
    item = run(group, detectors="none")
    store, mark = Store(group), Box("text", 0.9, 0, 290, 50, 300)
    item.masked.append(mark)
    store.save(item)
    item = run(group, detectors="none", others="keep")
    assert item.masked == [mark]
    assert loss_mask(item).getpixel((350, 200)) == 255  # type: ignore[union-attr]


def test_another_person_is_cropped_away(group: Path) -> None:
    item = run(group, detectors="none", others="crop")
    assert [(box.label, corners(box)) for box in item.marks] == [("subject_trim", (0, 0, 300, 300))] and not item.masked
    Crop(mode="square", detector="none").main(Place(group))
    (item,) = Store(group).items()
    assert item.crop and holds((0, 0, 300, 300), item.crop) and holds(item.crop, corners(FACE))


def test_one_who_cannot_be_cropped_away_is_masked(group: Path) -> None:
    wide = Box("person", 0.95, 60, 20, 340, 300)
    sidecar(group, boxes=[vars(wide), vars(EDGE)])
    item = run(group, detectors="none", others="crop")
    assert not item.marks and [corners(box) for box in item.masked] == [(340, 60, 400, 300)]


def test_twice_is_once(group: Path) -> None:
    run(group, detectors="none", background="white", others="crop")
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in group.rglob("*") if path.is_file() and path.stem != "report"}
    run(group, detectors="none", background="white", others="crop")
    assert files == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


rectangles = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 40), st.integers(1, 40)).map(
    lambda r: (r[0], r[1], r[0] + r[2], r[1] + r[3])
)


@given(rectangles, rectangles)
def test_what_is_left_of_a_rectangle_is_all_but_the_hole(place: tuple[int, int, int, int], hole: tuple[int, int, int, int]) -> None:
    rows = without(place, hole)
    assert sum(map(area, rows)) == area(place) - area(common(place, hole))
    assert all(holds(place, row) and not area(common(row, hole)) for row in rows)
    assert all(not area(common(a, b)) for a in rows for b in rows if a is not b)
    assert 0 <= overlap(place, hole) == overlap(hole, place) <= 1


@given(st.lists(rectangles, max_size=5), st.lists(rectangles, max_size=3))
def test_the_main_person_is_never_masked_or_cut(bodies: list, faces: list) -> None:
    item = Item("a", Path("a.png"), width=100, height=100)
    item.boxes = [Box("person", 0.9, *place) for place in bodies] + [Box("face", 0.8, *place) for place in faces]
    persons = people(item.boxes, (100, 100))
    for others in ("mask", "crop"):
        item.marks, item.masked = [], []
        Subject(others=others)._leave_out_others(item)
        if not persons:
            assert not item.masked and not item.marks
            continue
        main = main_part(persons, item.boxes)
        assert holds(main, persons[0][1]) and not any(area(common(corners(box), main)) for box in item.masked)
        assert all(holds(corners(box), common(main, (0, 0, 100, 100))) for box in item.marks)
        assert all(box.label == OTHER and any(touches(place, (100, 100)) for _, place in persons[1:]) for box in item.masked)


def test_cutting_away_takes_the_straight_cut_that_loses_least() -> None:
    assert cut_away([(90, 0, 100, 100)], (30, 20, 60, 100), (0, 0, 100, 100)) == (0, 0, 90, 100)
    assert cut_away([(0, 0, 10, 40)], (30, 20, 60, 100), (0, 0, 100, 100)) == (10, 0, 100, 100)
    assert cut_away([(60, 0, 100, 100)], (0, 0, 60, 100), (0, 0, 100, 100)) == (0, 0, 60, 100)
    assert cut_away([(40, 0, 100, 100)], (0, 0, 40, 100), (0, 0, 100, 100)) is None  # too much is lost
    assert cut_away([], (0, 0, 40, 100), (0, 0, 100, 100)) is None


def test_people_are_found_once_and_a_correction_stays_until_redo(tmp_path: Path) -> None:
    data = pytest.importorskip("skimage.data")
    Image.fromarray(data.astronaut()).save(tmp_path / "a.png")
    (face,) = run(tmp_path).boxes
    assert face.label == "face" and overlap(corners(face), (177, 70, 272, 175)) > 0.6
    sidecar(tmp_path, boxes=[])
    assert run(tmp_path, others="keep").boxes == []
    assert run(tmp_path, redo=True).boxes == [face]
    assert [box.label for box in run(tmp_path, detectors="face,saliency").boxes] == ["subject", "face"]


def test_boxes_of_another_picture_are_forgotten() -> None:
    item = Item("a", Path("a.png"), digest="1" * 64, width=64, height=64)
    item.boxes = [Box("face", 1, 0, 0, 9, 9)]  # by a person, before any detector
    assert find_boxes(item, Image.new("RGB", (64, 64)), ["face"]) == [Box("face", 1, 0, 0, 9, 9)]
    item.digest = "2" * 64
    assert find_boxes(item, Image.new("RGB", (64, 64)), ["face"]) == []


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    draw(Character(hair="red", background="blue"), 256, 3).save(tmp_path / "a.png")
    return tmp_path


def test_a_background_is_replaced_in_a_copy_and_comes_back(drawing: Path) -> None:
    before = (drawing / "a.png").read_bytes()
    item = run(drawing, background="#00ff00")
    pixels = np.asarray(load(item.picture)).astype(int)
    assert np.abs(pixels[:15, :15] - (0, 255, 0)).max() < 20  # the corner
    face = next(box for box in item.boxes if box.label == "face")
    assert np.abs(pixels - np.asarray(load(drawing / "a.png")))[face.y0 : face.y1, face.x0 : face.x1].mean() < 3
    assert "background_removed" in item.notes and item.retouched_digest == pixel_hash(load(item.picture))
    assert run(drawing, background="white").picture.exists() and load(Store(drawing).load()[0].picture).getpixel((3, 3)) > (240, 240, 240)
    item = run(drawing)
    assert item.picture == drawing / "a.png" and item.notes == [] and not list((drawing / ".atelier" / "retouched").glob("*"))
    assert (drawing / "a.png").read_bytes() == before


def test_a_background_goes_into_the_loss_mask(drawing: Path) -> None:
    item = run(drawing, background="mask")
    mask = np.asarray(loss_mask(item))
    assert mask[:15, :15].max() < 20 and mask[120:140, 120:140].min() > 235 and not item.retouched
    item.masked.append(Box("text", 1, 120, 120, 140, 140))
    update_mask(item, Store(drawing))
    assert np.asarray(loss_mask(item))[120:140, 120:140].max() == 0  # another step's box and the cut-out go together
    item.masked.clear()
    Store(drawing).save(item)
    assert loss_mask(run(drawing)) is None


def test_what_marks_inpainted_stays_under_the_new_background(drawing: Path) -> None:
    run(drawing)
    store = Store(drawing)
    (item,) = store.items()
    inpainted = load(item.path)
    inpainted.paste((200, 0, 200), (124, 130, 134, 140))
    store.retouch(item, inpainted)
    store.save(item)
    for colour in ("white", "black"):
        item = run(drawing, background=colour)
        assert load(item.picture).getpixel((129, 135)) == (200, 0, 200)
        assert sum(load(item.picture).getpixel((3, 3))) == pytest.approx(765 if colour == "white" else 0, abs=40)  # type: ignore[arg-type]
    item = run(drawing)
    assert load(item.picture).tobytes() == inpainted.tobytes()


def test_a_kill_between_copy_and_sidecar_changes_nothing(drawing: Path) -> None:
    run(drawing)
    store = Store(drawing)
    (item,) = store.items()
    inpainted = load(item.path)
    inpainted.paste((200, 0, 200), (124, 130, 134, 140))
    store.retouch(item, inpainted)
    store.save(item)
    killed = (drawing / ".atelier" / "items" / "a.json").read_bytes()
    whole = load(run(drawing, background="white").picture).tobytes()
    (drawing / ".atelier" / "items" / "a.json").write_bytes(killed)
    assert load(run(drawing, background="white").picture).tobytes() == whole
    assert load(run(drawing).picture).tobytes() == inpainted.tobytes()


def test_where_nothing_stands_out_the_background_stays(tmp_path: Path) -> None:
    Image.new("RGB", (250, 250), "gray").save(tmp_path / "a.png")
    item = run(tmp_path, background="white")
    assert item.notes == ["no_background_found"] and not item.retouched


def test_stages_are_passed_by(tmp_path: Path) -> None:
    draw(Character(), 256, 3).save(tmp_path / "a.png")
    store = Store(tmp_path)
    (item,) = store.items()
    item.parent = "b"
    store.save(item)
    assert run(tmp_path).boxes == []


def test_mistakes_are_one_sentence(drawing: Path) -> None:
    for options, words in (
        ({"background": "bluish"}, "neither keep, mask nor a colour"),
        ({"detectors": "fase"}, "neither a detector nor a model file"),
        ({"background": "mask", "cutter": "face"}, "cannot cut out"),
    ):
        with pytest.raises(UserError, match=words):
            run(drawing, **options)
