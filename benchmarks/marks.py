"""Measure `prep marks` on photographs and drawings with known marks: `python -m benchmarks.marks [--every N] [--seed N] [--ocr ENGINE]`.

Asked: recall >= 0.9 of opaque marks and >= 0.6 of translucent ones (half of a mark's ink lies in what was found), <= 5 % false alarms on the
clean originals; after the action the mark is found again in <= 10 %; no crop loses a face. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from prep.boxes import corners, holds
from prep.detectors import detector
from prep.detectors.text import reader
from prep.images import save
from prep.item import Box, Item
from prep.lettering import RULES, marks_of
from prep.mark_actions import covered
from prep.marks import Marks
from prep.store import Store
from tests.overlays import KINDS, Marked, marked, pictures

HALF = 0.5  # share of the ink that counts as found


@dataclass
class Tally:
    """Counts over all pictures."""

    pictures: int = 0
    false_alarms: list[str] = field(default_factory=list)
    marked: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    acted: Counter[str] = field(default_factory=Counter)
    again: list[str] = field(default_factory=list)
    ink_left: list[float] = field(default_factory=list)
    faces: int = 0
    faces_cut: list[str] = field(default_factory=list)


def measure(every: int = 1, seed: int = 0, step: Marks | None = None) -> Tally:
    """Run the step over every n-th of 60 pictures, clean and with each kind of mark."""
    step, tally = step or Marks(), Tally()
    with tempfile.TemporaryDirectory() as folder:
        for index, (name, clean) in enumerate(pictures(seed=seed)):
            if index % every == 0:
                _picture(tally, step, Store(Path(folder)), f"{index} {name}", clean, 1000 * seed + index)
    return tally


def _picture(tally: Tally, step: Marks, store: Store, name: str, clean: Image.Image, seed: int) -> None:
    tally.pictures += 1
    faces = detector("face")([clean])[0]
    if _treated(step, store, "clean", clean).marks:
        tally.false_alarms.append(name)
    for kind in KINDS:
        mark = marked(clean, kind, seed)
        item = _treated(step, store, kind, mark.image)
        tally.marked[kind] += 1
        if _share(mark, item) >= HALF:
            tally.found[kind] += 1
        else:
            tally.missed.append(f"{name} {kind} {mark.text!r} {mark.opacity:.2f}")
        if item.marks:
            tally.ink_left += [] if item.dropped else [_left(mark, item)]
            _after(tally, step, item, f"{name} {kind} {mark.text!r}")
        if item.crop and not item.dropped:
            tally.faces += len(faces)
            tally.faces_cut += [name for face in faces if not holds(item.crop, corners(face))]


def _after(tally: Tally, step: Marks, item: Item, name: str) -> None:
    """Note what was done and look for marks in what the training will see, with nothing known of what was there."""
    action = next((note for note in item.notes if note.startswith("mark_") and note != "mark_remains"), item.dropped or "none")
    tally.acted[action] += 1
    if item.dropped:
        return
    with Image.open(item.picture) as picture:
        image = covered(picture.convert("RGB"), item.masked).crop(item.crop)
    lines = marks_of(reader(step.ocr).lines(image), image.size)
    if lines:
        tally.again.append(f"{name}: {action} {[line.text for _, line in lines]}")


def _treated(step: Marks, store: Store, key: str, image: Image.Image) -> Item:
    item = Item(key, store.folder / f"{key}.png")
    save(image, item.path)
    return next(iter(step([item], store)))


def _share(mark: Marked, item: Item) -> float:
    """Return the share of the mark's ink that lies in the boxes found."""
    sheet = Image.new("1", mark.image.size)
    for box in _own(item):
        ImageDraw.Draw(sheet).rectangle((box.x0, box.y0, box.x1 - 1, box.y1 - 1), fill=1)
    return float((np.asarray(sheet) & mark.ink).sum() / max(mark.ink.sum(), 1))


def _left(mark: Marked, item: Item) -> float:
    """Return the share of the mark's ink that the training would still see: in the crop, not masked, its pixels as they were."""
    with Image.open(item.picture) as picture:
        seen = (np.asarray(picture) == np.asarray(mark.image)).all(axis=2) & mark.ink
    for box in item.masked:
        seen[box.y0 : box.y1, box.x0 : box.x1] = False
    x0, y0, x1, y1 = item.crop or (0, 0, *mark.image.size)
    return float(seen[y0:y1, x0:x1].sum() / max(mark.ink.sum(), 1))


def _own(item: Item) -> Iterator[Box]:
    yield from (box for box in item.marks if box.label in RULES)


def figures(tally: Tally) -> dict[str, object]:
    """Return the tally as the shares that are asked for."""
    opaque = [kind for kind in KINDS if kind != "watermark"]
    acted = sum(tally.acted.values())
    return {
        "pictures": tally.pictures,
        "recall_opaque": round(sum(tally.found[kind] for kind in opaque) / sum(tally.marked[kind] for kind in opaque), 3),
        "recall_translucent": round(tally.found["watermark"] / tally.marked["watermark"], 3),
        "recall": {kind: round(tally.found[kind] / tally.marked[kind], 3) for kind in KINDS},
        "false_alarms": round(len(tally.false_alarms) / tally.pictures, 3),
        "found_again": round(len(tally.again) / max(acted, 1), 3),
        "found_again_of_kept": round(len(tally.again) / max(acted - tally.acted["marked"], 1), 3),
        "ink_left_in_kept": round(float(np.mean(tally.ink_left)), 3),
        "actions": dict(tally.acted.most_common()),
        "faces_in_crops": tally.faces,
        "faces_cut": len(tally.faces_cut),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="take every n-th of the 60 pictures")
    parser.add_argument("--seed", type=int, default=0, help="other words, places and drawings")
    parser.add_argument("--ocr", default="embedded")
    parser.add_argument("--detail", action="store_true", help="name the pictures as well")
    args = parser.parse_args()
    start = time.perf_counter()
    tally = measure(args.every, args.seed, Marks(ocr=args.ocr))
    shown = figures(tally) | {"seconds": round(time.perf_counter() - start, 1)}
    if args.detail:
        shown |= {"missed": tally.missed, "wrong": tally.false_alarms, "again": tally.again, "cut": tally.faces_cut}
    print(json.dumps(shown, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
