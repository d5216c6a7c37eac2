"""Edits: what can be done to pictures on the page, each a pure function from a snapshot to the next."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import BytesIO
from typing import Any

from prep.captions import join, parse
from prep.decisions import ASIDE, FACTS
from prep.item import Item
from prep.names import fold
from prep.options import UserError
from prep.review.snapshot import Snapshot

Given = Mapping[str, Any]  # what the page sends beside the kind of edit
Change = Callable[[Snapshot, Item, Given], Snapshot]
REPEATS = (0.05, 100.0)  # times that a picture may be shown, relative to the others
LONGEST = 20_000  # letters of a caption


def _captioned(state: Snapshot, text: str) -> Snapshot:
    """Return the snapshot with a person's caption; no text gives it back to `prep caption`."""
    text = "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())
    if len(text) > LONGEST:
        raise UserError(f"a caption of {len(text)} letters is longer than {LONGEST}; shorten it")
    if text == (state.text or ""):
        return state
    return replace(state, text=text or None, hand=bool(text), written=state.written if text else state.written or "")


def caption(state: Snapshot, item: Item, given: Given) -> Snapshot:
    """Write the caption as it was typed."""
    return _captioned(state, _text(given, "text"))


def _lines(state: Snapshot, change: Callable[[list[str]], list[str]]) -> Snapshot:
    """Change the tags in each line of a caption; a line without a change stays to the letter."""
    lines = []
    for line in (state.text or "").split("\n"):
        tags = parse(line)
        after = change(tags)
        lines.append(line if after == tags else join(after))
    return _captioned(state, "\n".join(lines))


def add(state: Snapshot, item: Item, given: Given) -> Snapshot:
    """Add tags that are not there yet, at the end or behind the keyword."""
    new, first = parse(_text(given, "tags")), bool(given.get("first"))

    def added(tags: list[str]) -> list[str]:
        there = set(map(fold, tags))
        fresh = [tag for tag in new if fold(tag) not in there]
        place = int(bool(item.keyword) and fold(item.keyword) in map(fold, tags[:1])) if first else len(tags)
        return [*tags[:place], *fresh, *tags[place:]]

    return _lines(state, added)


def remove(state: Snapshot, item: Item, given: Given) -> Snapshot:
    """Take tags out, in whatever spelling."""
    gone = set(map(fold, parse(_text(given, "tags"))))
    return _lines(state, lambda tags: [tag for tag in tags if fold(tag) not in gone])


def exchange(state: Snapshot, item: Item, given: Given) -> Snapshot:
    """Put tags in place of a tag; none take it out."""
    old, new = fold(_text(given, "old")), parse(_text(given, "new"))

    def exchanged(tags: list[str]) -> list[str]:
        if old not in map(fold, tags):
            return tags
        return list(dict.fromkeys(word for tag in tags for word in (new if fold(tag) == old else [tag])))

    return _lines(state, exchanged)


def regex(state: Snapshot, item: Item, given: Given) -> Snapshot:
    """Change what a pattern finds in the whole text of a caption."""
    try:
        text = re.sub(_text(given, "pattern"), _text(given, "new"), state.text or "")
    except (re.error, IndexError) as error:
        raise UserError(f"{given.get('pattern')!r} is no pattern with words ({error}); mend it") from None
    return _captioned(state, text)


def set_aside(state: Snapshot, item: Item, given: Given) -> Snapshot:
    """Set a picture aside; what was set aside before stays so for its own reason."""
    if state.dropped:
        return state
    return replace(state, dropped=ASIDE, detail=_text(given, "why", ""), kept="")


def bring_back(state: Snapshot, item: Item, given: Given) -> Snapshot:
    """Bring a picture back for good: no step sets it aside again for the same reason."""
    if state.dropped in FACTS:
        raise UserError(f"{item.key} cannot be brought back ({state.dropped.replace('_', ' ')}); mend or replace its raw file")
    if not state.dropped:
        return state
    kept = " ".join(sorted({*state.kept.split(), state.dropped} - {ASIDE}))
    raw = item.source is not None and item.path == item.source  # `prep clean` has made nothing of it yet, and will
    return replace(state, kept=kept, cleaned="") if raw else replace(state, dropped="", detail="", kept=kept)


def swap(state: Snapshot, item: Item, given: Given) -> Snapshot:
    """Keep one of several copies, whose key is given, and set the others aside."""
    kept = _text(given, "keep")
    return bring_back(state, item, given) if item.key == kept else set_aside(state, item, {"why": f"of {kept}"})


def crop(state: Snapshot, item: Item, given: Given) -> Snapshot:
    """Crop to x0, y0, x1, y1 in pixels; null is the whole picture."""
    place = given.get("crop")
    if place is None:
        return replace(state, crop=None)
    if not (isinstance(place, list) and len(place) == 4 and all(isinstance(number, int) and not isinstance(number, bool) for number in place)):
        raise UserError("a crop is four whole numbers x0, y0, x1, y1; draw it again")
    x0, y0, x1, y1 = place
    if not (0 <= x0 < x1 <= item.width and 0 <= y0 < y1 <= item.height):
        raise UserError(f"the crop {place} is not inside the picture of {item.width} x {item.height}; draw it again")
    return replace(state, crop=None if (x0, y0, x1, y1) == (0, 0, item.width, item.height) else (x0, y0, x1, y1))


def repeats(state: Snapshot, item: Item, given: Given) -> Snapshot:
    """Set how often a picture is shown in training, relative to the others."""
    times = given.get("times")
    if isinstance(times, bool) or not isinstance(times, int | float) or not REPEATS[0] <= times <= REPEATS[1]:
        raise UserError(f"repeats is a number from {REPEATS[0]} to {REPEATS[1]:g}; type another")
    return replace(state, emphasis=float(times))


def mask(state: Snapshot, item: Item, given: Given) -> Snapshot:
    """Take a person's strokes on the mask, a PNG in base64 as large as the picture; "" takes them away."""
    from PIL import Image

    try:
        data = base64.b64decode(_text(given, "png"), validate=True)
        if not data:
            return replace(state, painted="")
        with Image.open(BytesIO(data), formats=["PNG"]) as image:
            if image.size != (item.width, item.height):
                raise UserError(f"the mask is {image.width} x {image.height} and the picture {item.width} x {item.height}; load the page again")
            layer = image.convert("L")
    except (binascii.Error, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise UserError("the mask is no PNG; load the page again") from None
    buffer = BytesIO()
    layer.save(buffer, format="PNG")
    return replace(state, painted=base64.b64encode(buffer.getvalue()).decode())


EDITS: dict[str, Change] = {
    "caption": caption,
    "add": add,
    "remove": remove,
    "replace": exchange,
    "regex": regex,
    "aside": set_aside,
    "back": bring_back,
    "swap": swap,
    "crop": crop,
    "repeats": repeats,
    "mask": mask,
}


def _text(given: Given, name: str, default: str | None = None) -> str:
    value = given.get(name, default)
    if not isinstance(value, str):
        raise UserError(f"the edit lacks the text {name!r}; load the page again")
    return value
