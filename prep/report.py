"""Report: report.html, one file that shows what was set aside, changed, proposed and kept, with reasons, numbers and thumbnails."""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from html import escape
from io import BytesIO, StringIO
from pathlib import Path
from typing import IO

from PIL import Image, ImageDraw

from prep.images import PictureError, load
from prep.item import Item
from prep.options import atomic_write
from prep.report_page import FOOT, head, legend

MOST = 200  # thumbnails in a section; of the others there is only the number
SIDE, WIDE_SIDE, TILE_SIDE = 220, 320, 140  # longer side of a thumbnail in pixels: alone, before and after, in the contact sheet
QUALITY = 80  # of the thumbnails, JPEG
THREADS = 4  # that make them; each holds a whole picture
OUTSIDE = 0.35  # brightness of what the crop leaves out
# What is drawn -> its colour (Okabe & Ito 2008, told apart by the colour-blind too); in the order in which it is drawn.
COLOURS = {"boxes": "#009e73", "marks": "#d55e00", "masked": "#cc79a7", "crop": "#f0e442"}

# Note on an item -> what it says to the user; others are said as they are, without the underscores.
WORDS = {
    "first_frame": "first frame of the animation",
    "exif_rotated": "turned upright",
    "icc_converted": "colours converted to sRGB",
    "cmyk_converted": "CMYK converted to RGB",
    "16bit_scaled": "16 bits scaled to 8",
    "alpha_composited": "transparent parts filled",
    "renamed_suffix": "wrong suffix corrected",
    "border_trimmed": "border trimmed",
}

# Section -> its heading and the sentence under it.
SECTIONS = {
    "aside": ("Set aside", "Not used for training. Nothing is deleted; the raw pictures are as they were."),
    "changed": ("Changed", "Before on the left, after on the right; what is darkened is cropped away."),
    "proposed": ("Proposed for setting aside", "Still used. Look at them and decide; distance is how far a picture is from the concept."),
    "kept": ("Kept", "What is trained on."),
}


@dataclass
class _Part:
    """What a section, or one reason in it, holds: how many items, and the cards of those that are shown."""

    cards: list[Future[str]] = field(default_factory=list)
    count: int = 0


@dataclass
class _Sections:
    """The parts of the page while items stream by; their cards, of which there are few, are made in the background."""

    pool: ThreadPoolExecutor
    parts: dict[tuple[str, str], _Part] = field(default_factory=dict)  # (section, reason or "")
    shown: Counter[str] = field(default_factory=Counter)

    def add(self, section: str, reason: str, card: Callable[[], str]) -> None:
        """Count an item and have its card made, if there is room for it in the section."""
        part = self.parts.setdefault((section, reason), _Part())
        part.count += 1
        if self.shown[section] < MOST:
            self.shown[section] += 1
            part.cards.append(self.pool.submit(card))

    def count(self, section: str) -> int:
        return sum(part.count for (name, _), part in self.parts.items() if name == section)


def write_report(items: Iterable[Item], path: Path, title: str) -> None:
    """Write the page about these items, whole or not at all; reads each item's source (before) and picture (after)."""
    # Decoding leaves the interpreter to others. Measured: of 10.8 s in which two processes clean 40 pictures, 2.1 were spent on the page.
    pool = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1))
    try:
        sections = _Sections(pool)
        for item in items:
            _file(item, sections)
        page = StringIO()
        _write(page, sections, title)
        atomic_write(path, page.getvalue().encode("utf-8", errors="backslashreplace"))
    finally:
        pool.shutdown(cancel_futures=True)


def _file(item: Item, sections: _Sections) -> None:
    """Put an item into the sections where it belongs: set aside, or kept and perhaps changed or proposed."""
    if item.dropped:
        sections.add("aside", item.dropped, lambda: _aside(item))
        return
    if item.notes or item.crop or item.retouched or item.masked:
        sections.add("changed", "", lambda: _changed(item))
    if item.proposed:
        sections.add("proposed", item.proposed, lambda: _proposed(item))
    sections.add("kept", "", lambda: _card(item, _picture(item, TILE_SIDE, marked=False), f"{item.width} × {item.height}"))


def _write(page: IO[str], sections: _Sections, title: str) -> None:
    page.write(head(escape(title)))
    page.write(_summary(sections))
    for section, (heading, sentence) in SECTIONS.items():
        count = sections.count(section)
        if not count:
            continue
        legend_there = legend(COLOURS) if section == "changed" else ""
        page.write(
            f'<section id="{section}" class="{section}"><h2>{heading} <b>{count:,}</b></h2><p>{sentence}</p>{legend_there}<div class="groups">'
        )
        for (name, reason), part in sorted(sections.parts.items(), key=lambda row: row[0]):
            if name == section:
                page.write(f'<div id="{section}-{escape(reason)}">' + (f"<h3>{_words(reason)} <b>{part.count:,}</b></h3>" if reason else ""))
                page.write('<div class="cards">')
                page.writelines(card.result() for card in part.cards)
                page.write("</div></div>")
        page.write("</div>")
        more = count - sections.shown[section]
        page.write(f'<p class="more">… and {more:,} more</p></section>' if more else "</section>")
    page.write(FOOT)


def _summary(sections: _Sections) -> str:
    """Return the table on top: how many were kept, changed and proposed, and set aside for which reason."""
    rows = [(SECTIONS[name][0], sections.count(name), name, False) for name in ("kept", "changed", "proposed", "aside")]
    reasons = sorted((reason, part.count) for (name, reason), part in sections.parts.items() if name == "aside")
    rows += [(_words(reason), count, f"aside-{reason}", True) for reason, count in reasons]
    lines = (
        f'<tr{" class=sub" if sub else ""}><th><a href="#{escape(anchor)}">{words}</a></th><td>{count:,}</td></tr>' if count else
        f"<tr><th>{words}</th><td>0</td></tr>"
        for words, count, anchor, sub in rows
    )  # fmt: skip
    return f"<table>{''.join(lines)}</table>"


def _aside(item: Item) -> str:
    image = _picture(item, SIDE) or _image(item.source, SIDE)
    return _card(item, image, item.detail, _numbers(item))


def _changed(item: Item) -> str:
    done = [WORDS.get(note, note.replace("_", " ")) for note in item.notes]
    done += [words for words, there in (("retouched", item.retouched), ("cropped", item.crop), ("partly masked", item.masked)) if there]
    chips = "".join(f"<li>{escape(words)}</li>" for words in done)
    pair = f'<div class="pair">{_image(item.source, WIDE_SIDE) or "<i>no picture</i>"}{_picture(item, WIDE_SIDE) or "<i>no picture</i>"}</div>'
    return f"<figure>{pair}<figcaption><strong>{escape(_name(item))}</strong><ul>{chips}</ul>{_small(_numbers(item))}</figcaption></figure>"


def _proposed(item: Item) -> str:
    distance = "" if item.distance is None else f"distance {item.distance:.3g}"
    return _card(item, _picture(item, SIDE), item.detail, distance)


def _card(item: Item, image: str, *lines: str) -> str:
    text = "".join(_small(line) for line in lines)
    return f"<figure>{image}<figcaption><strong>{escape(_name(item))}</strong>{text}</figcaption></figure>"


def _small(line: str) -> str:
    return f"<small>{escape(line)}</small>" if line else ""


def _name(item: Item) -> str:
    return item.source.name if item.source else item.path.name


def _words(reason: str) -> str:
    return escape(reason.replace("_", " "))


def _numbers(item: Item) -> str:
    return " · ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in item.measures.items() if name not in ("side", "megapixels"))


def _image(path: Path | None, side: int) -> str:
    """Return a picture file as an <img> of at most `side` pixels; nothing if it cannot be decoded."""
    if path is None:
        return ""
    try:
        image = load(path)
    except PictureError:
        return ""
    image.thumbnail((side, side), reducing_gap=2.0)
    return _img(image)


def _picture(item: Item, side: int, marked: bool = True) -> str:
    """Return the item's picture as it now stands, with crop and boxes drawn (or with the crop applied); nothing if it cannot be decoded."""
    try:
        image = load(item.picture) if marked else item.image()
    except PictureError:
        return ""
    width = image.width
    image.thumbnail((side, side), reducing_gap=2.0)
    return _img(_drawn(image, item, image.width / width) if marked else image)


def _drawn(image: Image.Image, item: Item, scale: float) -> Image.Image:
    """Darken what the crop leaves out, and outline the boxes."""
    frames = [(kind, (box.x0, box.y0, box.x1, box.y1)) for kind in ("boxes", "marks", "masked") for box in getattr(item, kind)]
    if item.crop:
        inside = tuple(round(side * scale) for side in item.crop)
        dark = image.point(lambda level: level * OUTSIDE)
        dark.paste(image.crop(inside), inside[:2])  # type: ignore[arg-type]
        image, frames = dark, [*frames, ("crop", item.crop)]
    draw = ImageDraw.Draw(image)
    for kind, corners in frames:
        x0, y0, x1, y1 = (round(side * scale) for side in corners)
        draw.rectangle((x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)), outline=COLOURS[kind], width=2)
    return image


def _img(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img width="{image.width}" height="{image.height}" alt="" src="data:image/jpeg;base64,{data}">'
