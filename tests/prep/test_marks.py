"""Marks: what lies over a picture is found and removed by the mildest means, no face is cut, and the picture itself stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from benchmarks.marks import figures, measure
from prep.boxes import area, common, corners, holds
from prep.detectors.text import Line
from prep.images import load
from prep.item import Box, Item
from prep.lettering import marks_of, scene_text
from prep.mark_actions import CUT, Case, letters, mask, trim
from prep.marks import Marks
from prep.masks import loss_mask
from prep.project import Place
from prep.recheck import Recheck, suspected
from prep.scores import Labels, ScoreStore, picture_key
from prep.store import Store
from tests.overlays import marked, photograph, pictures

FACE = (177, 80, 272, 175)  # the astronaut's, by hand


def stamped(at: tuple[int, int], text: str = "www.mira-art.com", size: int = 20, opacity: float = 1.0, name: str = "astronaut") -> Image.Image:
    """Write over a photograph, white."""
    image = photograph(name)
    sheet = Image.new("L", image.size)
    ImageDraw.Draw(sheet).text(at, text, fill=round(255 * opacity), font=ImageFont.load_default(size))
    image.paste((255, 255, 255), (0, 0), sheet)
    return image


def run(folder: Path, image: Image.Image | None = None, **options: object) -> Item:
    if image is not None:
        image.save(folder / "a.png")
    Marks(workers=1, **options).main(Place(folder))  # type: ignore[arg-type]
    return Store(folder).load()[0]


def line(text: str, box: tuple[int, int, int, int], read: float = 0.95, faint: bool = False) -> Line:
    x0, y0, x1, y1 = box
    return Line(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), 0.9, text, read, faint)


def kinds(lines: list[Line], *faces: Box) -> list[str]:
    return [name for name, _ in marks_of(lines, (500, 500), faces)]


def test_an_address_at_the_edge_is_trimmed_off_and_the_picture_stays(tmp_path: Path) -> None:
    image = stamped((300, 484))
    image.save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    item = run(tmp_path)
    assert [box.label for box in item.marks] == ["address", "trim"] and "mark_trimmed" in item.notes
    assert item.crop == corners(item.marks[-1]) and item.crop[3] <= 489 and holds(item.crop, FACE)
    assert (tmp_path / "a.png").read_bytes() == before and not item.retouched and not item.dropped


def test_a_small_mark_inside_is_filled_in(tmp_path: Path) -> None:
    image = stamped((140, 330), name="coffee")
    item = run(tmp_path, image)
    assert "mark_inpainted" in item.notes and "mark_remains" not in item.notes and item.crop is None
    mended, clean = (np.asarray(picture).astype(int) for picture in (load(item.picture), photograph("coffee")))
    (box,) = item.marks
    place = np.s_[box.y0 : box.y1, box.x0 : box.x1]
    assert np.abs(mended - clean)[place].mean() < 0.5 * np.abs(np.asarray(image).astype(int) - clean)[place].mean()
    outside = np.ones(clean.shape[:2], bool)
    outside[max(box.y0 - 12, 0) : box.y1 + 12, max(box.x0 - 12, 0) : box.x1 + 12] = False
    assert (mended == clean)[outside].all()
    assert load(item.path).tobytes() == image.tobytes()


def test_a_larger_mark_is_left_out_of_the_loss(tmp_path: Path) -> None:
    item = run(tmp_path, stamped((60, 150), "mira-art.com", 70, 0.4, "coffee"))
    assert "mark_masked" in item.notes and {box.label for box in item.masked} == {"mark"}
    loss = loss_mask(item)
    assert loss is not None and loss.getpixel((200, 190)) == 0 and loss.getpixel((300, 20)) == 255


def test_a_mark_over_the_face_sets_the_picture_aside_and_other_options_get_it_back(tmp_path: Path) -> None:
    item = run(tmp_path, stamped((120, 110), "(c) SAMPLE", 60, 0.5))
    assert item.dropped == "marked" and "address" in item.detail
    again = run(tmp_path, action="none")
    assert not again.dropped and again.notes == ["mark_remains"] and again.masked == []


def test_what_cannot_be_trimmed_is_said_to_remain(tmp_path: Path) -> None:
    item = run(tmp_path, stamped((140, 330)), action="trim")
    assert item.notes == ["mark_remains"] and item.crop is None


def test_running_twice_changes_nothing_and_only_its_own_traces_go(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run(tmp_path, stamped((140, 330)))
    first = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    run(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == first
    item = store.load()[0]
    item.notes.append("exif_rotated")
    item.marks.append(Box("subject_trim", 1, 0, 0, 400, 400))
    item.masked.append(Box("other_person", 1, 0, 0, 20, 20))
    store.save(item)
    item = run(tmp_path, action="mask")
    assert sorted(item.notes) == ["exif_rotated", "mark_masked"] and not item.retouched
    assert sorted(box.label for box in item.marks) == ["address", "subject_trim"]
    assert sorted(box.label for box in item.masked) == ["mark", "other_person"]


def test_text_of_the_scene_is_content_unless_it_is_asked_for(tmp_path: Path) -> None:
    item = run(tmp_path, stamped((210, 330), "BAKERY", 22))
    assert item.marks == [] and item.measures["scene_text"] >= 1
    item = run(tmp_path, scene=True)
    assert [box.label for box in item.marks] == ["scene_text"] * len(item.marks) and item.notes


@pytest.mark.parametrize("text", ["www.a-b.com", "https://x.net", "@mira_art", "(c) Mira 2024", "© Mira", "patreon.com/x", "DO NOT COPY", "PixiV"])
def test_addresses_and_phrases_are_marks_wherever_they_are(text: str) -> None:
    assert kinds([line(text, (200, 240, 300, 260))]) == ["address"]


@pytest.mark.parametrize("text", ["BAKERY", "NASA", "coming home", "Comet", "12:30", "no. 5", "a.b"])
def test_other_text_inside_belongs_to_the_scene(text: str) -> None:
    assert kinds([line(text, (200, 240, 300, 260))]) == []


def test_how_marks_are_told() -> None:
    assert kinds([line("Mirano", (380, 470, 480, 490))]) == ["signature"]
    assert kinds([line("Mirano", (200, 240, 300, 260), faint=True)]) == ["watermark"]
    assert kinds([line("000060", (200, 240, 300, 260), faint=True)]) == []
    assert kinds([line("Lumen", (150, y, 250, y + 20)) for y in (100, 200, 300)]) == ["repeated"] * 3
    assert kinds([line("Lumen", (150, y, 250, y + 20)) for y in (200, 300)]) == []
    neighbour = line("?", (305, 240, 380, 260), read=0.1)
    assert kinds([line("www.mira", (200, 240, 300, 260)), neighbour]) == ["address", "address"]
    assert len(scene_text([line("BAKERY", (200, 240, 300, 260)), line("x", (0, 0, 9, 9))], (500, 500))) == 1


def test_a_face_that_was_read_as_letters_is_no_mark() -> None:
    face = Box("face", 0.9, 150, 150, 350, 350)
    assert kinds([line("OO_", (200, 240, 300, 260), faint=True), line("OLO", (200, 200, 300, 220), faint=True)], face) == []
    assert kinds([line("www.mira.com", (200, 240, 300, 260))], face) == ["address"]


@settings(max_examples=150)
@given(data=st.data(), width=st.integers(60, 900), height=st.integers(60, 900))
def test_a_trim_holds_every_box_and_no_mark(data: st.DataObject, width: int, height: int) -> None:
    def box() -> tuple[int, int, int, int]:
        x0, y0 = data.draw(st.integers(0, width - 20)), data.draw(st.integers(0, height - 20))
        return x0, y0, data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))

    keep = [box() for _ in range(data.draw(st.integers(0, 2)))]
    texts = [line("www.mira.com", box()) for _ in range(data.draw(st.integers(1, 3)))]
    treated = trim(Case(Image.new("RGB", (width, height)), [("address", text) for text in texts], keep, keep))
    if treated is None:
        return
    part = treated.part
    assert treated.image.size == (part[2] - part[0], part[3] - part[1])
    assert all(holds(part, kept) for kept in keep)
    assert all(area(common(part, corners(text.box("", (width, height))))) == 0 for text in texts)
    assert part[2] - part[0] >= (1 - 2 * CUT) * width - 2 and part[3] - part[1] >= (1 - 2 * CUT) * height - 2


def test_a_mask_over_a_face_or_half_the_picture_does_not_fit() -> None:
    image = Image.new("RGB", (200, 200))
    over = Case(image, [("watermark", line("Mirano", (40, 80, 160, 110)))], faces=[(60, 60, 120, 120)])
    assert mask(over) is None
    assert mask(Case(image, [("watermark", line("Mirano", (0, 0, 200, 100)))])) is None
    assert mask(Case(image, [("watermark", line("Mirano", (40, 80, 160, 110)))])) is not None


def test_the_letters_are_less_than_the_line_and_cover_the_ink() -> None:
    image, clean = stamped((60, 300), "Mirano art", 60), photograph("astronaut")
    ink = np.abs(np.asarray(image).astype(int) - np.asarray(clean)).max(axis=2) > 60
    place = (55, 300, 380, 375)
    hole = letters(Case(image, [("address", line("Mirano art", place))])) > 0
    assert hole[ink].mean() > 0.98
    assert hole[place[1] : place[3], place[0] : place[2]].mean() < 0.75


def test_the_tagger_is_believed_where_reading_saw_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    labels = Labels(("signature", "english_text", "smile"), ("general",) * 3)
    rows = {"seen": [0.9, 0.1, 0.9], "sign": [0.1, 0.8, 0.1], "none": [0.2, 0.2, 0.9], "masked": [0.9, 0.1, 0.1]}
    items = [Item(key, tmp_path / f"{key}.png", digest=key) for key in rows]
    items[1].measures["scene_text"] = 2.0
    items[2].proposed = "mark_suspected"
    items[3].masked = [Box("mark", 1, 0, 0, 9, 9)]
    with ScoreStore.open(store.hidden) as scores:
        model = scores.register("pocket", "x", 1, labels)
        scores.put(model, {picture_key(key, None): np.array(row, dtype=np.float32) for key, row in rows.items()})
    list(Recheck()(items, store))
    assert [(item.proposed, item.detail) for item in items] == [("mark_suspected", "signature 0.90"), ("", ""), ("", ""), ("", "")]
    assert suspected({"general": {"text": 0.6, "watermark": 0.7, "smile": 1.0}}) == ["watermark", "text"]


def test_six_pictures_are_read_rightly(tmp_path: Path) -> None:
    step, store = Marks(action="none"), Store(tmp_path)
    wrong = []
    for index, (name, clean) in enumerate(list(pictures(3, 3))):
        mark = marked(clean, ("url", "signature")[index % 2], index)
        for key, image in (("clean", clean), ("marked", mark.image)):
            image.save(tmp_path / f"{key}.png")
            (item,) = step([Item(key, tmp_path / f"{key}.png")], store)
            wrong += [(name, key)] * (bool(item.marks) != (key == "marked"))
    assert len(wrong) <= 1


@pytest.mark.slow
def test_the_figures_that_were_asked_for() -> None:
    found = figures(measure())
    assert found["recall_opaque"] >= 0.9 and found["recall_translucent"] >= 0.6  # type: ignore[operator]
    assert found["false_alarms"] <= 0.05 and found["found_again"] <= 0.1 and found["faces_cut"] == 0  # type: ignore[operator]
