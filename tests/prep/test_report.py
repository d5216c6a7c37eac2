"""The report page: every picture is in the right section, names are harmless, and one file holds it all."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prep import report
from prep.item import Box, Item
from prep.report import write_report
from prep.store import Store


def picture(folder: Path, name: str, colour: str = "teal", size: tuple[int, int] = (300, 200)) -> Item:
    path = folder / name
    Image.new("RGB", size, colour).save(path)
    return Item(path.stem, path, source=path, width=size[0], height=size[1])


class Page(HTMLParser):
    """What a browser would see: pictures and text by section, and whether all tags close."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.section = "top"
        self.images: dict[str, list[Image.Image]] = {}
        self.text: dict[str, str] = {}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "section":
            self.section = values["id"] or ""
        if tag == "img":
            kind, _, data = (values["src"] or "").partition(",")
            assert kind == "data:image/jpeg;base64"
            self.images.setdefault(self.section, []).append(Image.open(BytesIO(base64.b64decode(data))))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text[self.section] = self.text.get(self.section, "") + " " + data


def write(folder: Path, items: list[Item], title: str = "pictures") -> Page:
    write_report(iter(items), folder / "report.html", title)
    page = Page(folder / "report.html")
    assert page.open == []
    return page


def test_each_picture_is_in_its_section(tmp_path: Path) -> None:
    kept, changed, doubtful, blurred = (picture(tmp_path, f"{name}.png") for name in ("kept", "changed", "doubtful", "blurred"))
    changed.notes = ["exif_rotated", "something_new"]
    doubtful.proposed, doubtful.distance = "stranger", 0.4321
    blurred.measures = {"side": 200.0, "blur": 1.23}
    blurred.drop("blurred", "its edges are 1.23 % wide")
    page = write(tmp_path, [kept, changed, doubtful, blurred])
    assert {section: len(images) for section, images in page.images.items()} == {"aside": 1, "changed": 2, "proposed": 1, "kept": 3}
    assert "its edges are 1.23 % wide" in page.text["aside"] and "blur 1.23" in page.text["aside"] and "blurred.png" in page.text["aside"]
    assert "turned upright" in page.text["changed"] and "something new" in page.text["changed"]
    assert "stranger" in page.text["proposed"] and "distance 0.432" in page.text["proposed"]
    assert re.sub(r"\s+", " ", page.text["top"]).endswith("Kept 3 Changed 1 Proposed for setting aside 1 Set aside 1 blurred 1")


def test_what_cannot_be_decoded_shows_its_sentence_alone(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    broken = Item("broken", tmp_path / "broken.jpg", source=tmp_path / "broken.jpg", dropped="truncated", detail="broken.jpg is cut off")
    gone = Item("gone", tmp_path / "gone.png", source=tmp_path / "gone.png", dropped="source_gone", detail="gone.png is no longer there")
    lost = Item("lost", tmp_path / "lost.png", notes=["exif_rotated"])
    page = write(tmp_path, [broken, gone, lost])
    assert page.images == {}
    assert "broken.jpg is cut off" in page.text["aside"] and "gone.png is no longer there" in page.text["aside"]
    assert "lost.png" in page.text["changed"]


def test_names_and_titles_are_text(tmp_path: Path) -> None:
    item = picture(tmp_path, "<script>alert('a & b')<!--.png")
    other = Item("x", tmp_path / "\udcff <img>.png", source=tmp_path / "\udcff <img>.png", dropped='"><b>', detail="<i>&</i>")
    page = write(tmp_path, [item, other], "<script>&")
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in source and "<i>&" not in source and '<b>"' not in source
    assert item.path.name in page.text["kept"] and "<i>&</i>" in page.text["aside"] and "<script>&" in page.text["top"]


def test_the_file_stands_alone(tmp_path: Path) -> None:
    write(tmp_path, [picture(tmp_path, "a.png")])
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|<link|@import|url\(", source)
    assert "prefers-color-scheme:dark" in source
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "report.html"]


def test_crop_and_boxes_are_drawn_on_the_picture_after(tmp_path: Path) -> None:
    item = picture(tmp_path, "a.png", "white", (200, 200))
    item.crop, item.boxes, item.marks = (100, 0, 200, 200), [Box("face", 0.9, 120, 20, 160, 60)], [Box("text", 0.9, 110, 150, 190, 180)]
    before, after = (np.asarray(image.convert("RGB")).astype(int) for image in write(tmp_path, [item]).images["changed"])
    assert before.min() > 250
    assert after[100, 50].max() < 110 and after[100, 140].min() > 240  # cropped away is dark
    assert after[40, 120, 1] > after[40, 120, 0] + 60  # the face's box is green
    assert after[150, 150, 0] > after[150, 150, 2] + 60  # the text's is orange


def test_the_retouched_copy_is_what_is_shown_after(tmp_path: Path) -> None:
    item = picture(tmp_path, "a.png", "white")
    Store(tmp_path).retouch(item, Image.new("RGB", (300, 200), "navy"))
    before, after = write(tmp_path, [item]).images["changed"]
    assert before.getpixel((5, 5)) == (255, 255, 255)
    assert max(after.convert("RGB").getpixel((5, 5))[:2]) < 20  # type: ignore[index, arg-type]


def test_thumbnails_end_where_the_section_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST", 5)
    one = picture(tmp_path, "a.png", size=(30, 20))
    items = [Item(f"k{index}", one.path) for index in range(8)]
    items += [Item(f"d{index}", one.path, dropped="blurred" if index < 4 else "empty") for index in range(12)]
    page = write(tmp_path, items)
    assert {section: len(images) for section, images in page.images.items()} == {"aside": 5, "kept": 5}
    assert "… and 3 more" in page.text["kept"] and "… and 7 more" in page.text["aside"]
    assert re.search(r"blurred\s+4\s+empty\s+8", page.text["top"])


def test_writing_twice_gives_the_same_bytes_and_a_failure_leaves_the_old_page(tmp_path: Path) -> None:
    items = [picture(tmp_path, "a.png"), picture(tmp_path, "b.png", "red")]
    write(tmp_path, items)
    first = (tmp_path / "report.html").read_bytes()
    write(tmp_path, items)
    assert (tmp_path / "report.html").read_bytes() == first

    def failing():  # type: ignore[no-untyped-def]
        yield items[0]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_report(failing(), tmp_path / "report.html", "x")
    assert (tmp_path / "report.html").read_bytes() == first
    assert not list(tmp_path.glob(".tmp-*"))


def test_no_pictures(tmp_path: Path) -> None:
    page = write(tmp_path, [])
    assert page.images == {} and "Kept" in page.text["top"]
