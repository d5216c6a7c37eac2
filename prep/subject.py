"""Subject: find who the picture is of, leave out others who reach into it, and take the background away if that is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageColor

from prep.boxes import OTHER, Corners, area, common, corners, find_boxes, holds, kept_part, people, without
from prep.cutouts import CUTOUT, cutter, under
from prep.detectors import HELP, names_of
from prep.images import load
from prep.item import Box, Item
from prep.masks import keep_cutout, update_mask
from prep.options import UserError, option
from prep.step import ParallelStep
from prep.store import Store

TRIM = "subject_trim"  # label in item.marks of the part without others; `prep crop` stays inside it
REMOVED = "background_removed"
UNFOUND = "no_background_found"
TOUCH = 0.01  # of the picture's side: a box that comes so near to the border is cut by it
MOST_LOST = 0.5  # share of the picture that may be cropped away for another person; else that one is masked
# A cut-out that is less or more of the picture than this is no subject. Measured: the smallest real one is the rocket's 0.023, the
# largest the retina's 0.77; 60 pocket drawings have 0.15 to 0.55.
LEAST_CUTOUT, MOST_CUTOUT = 0.01, 0.95
# Mean share of the main face that must be in the cut-out, else it took something else for the subject. Measured: 0.78 to 0.99 on 49
# pocket drawings, 0.94 on the astronaut.
FACE_IN = 0.5


@dataclass(frozen=True)
class Subject(ParallelStep):
    """Find the subject of each picture; mask or crop away other people who reach into it; take the background away if asked to.

    Boxes are kept in the picture's sidecar, where they can be corrected by hand. Pictures are never changed: a background is taken away in
    a copy, and masks lie beside the picture.
    """

    batch: ClassVar[int] = 4  # whole pictures are in memory

    detectors: str = option("face", help=f"What finds people: {HELP}.")
    others: str = option("mask", help="What is done with other people cut by the border.", choices=("mask", "crop", "keep"))
    background: str = option("keep", help="keep, mask (the loss leaves it out), or a colour to put in its place: a name or #rrggbb.")
    cutter: str = option("saliency", help="What tells subject from background: saliency, or a U2-Net .onnx file.")
    redo: bool = option(False, help="Find people again and replace boxes corrected by hand.", matters=False)
    device: str = option("auto", help="Where models run; cuda is an error where they cannot.", choices=("auto", "cpu", "cuda"), matters=False)

    @property
    def pictured(self) -> bool:
        return True

    def inputs(self, item: Item) -> Any:
        stat = item.path.stat()
        return [stat.st_size, stat.st_mtime_ns, [[box.label, *corners(box)] for box in item.boxes], item.retouched_digest]

    def todo(self, batch: list[Item]) -> list[Item]:
        """Leave out the stages that `prep crop` cut out: what they show is decided in the picture they come from."""
        wanted = [item for item in batch if not item.dropped] if self.redo else super().todo(batch)
        return [item for item in wanted if not item.parent]

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        names, colour = names_of(self.detectors), self._colour()
        for item in batch:
            image = load(item.path)
            before = item.retouched, item.retouched_digest
            item.retouched = item.retouched_digest = ""
            item.see(image)
            item.retouched, item.retouched_digest = before
            find_boxes(item, image, names, self.device, self.redo)
            self._leave_out_others(item)
            self._background(item, image, colour, store)
            update_mask(item, store)
            yield item

    def _leave_out_others(self, item: Item) -> None:
        """Mask or crop away the other people whom the border cuts; what an earlier run did is undone first."""
        size = item.width, item.height
        item.masked = [box for box in item.masked if box.label != OTHER]
        item.marks = [box for box in item.marks if box.label != TRIM]
        persons = people(item.boxes, size)
        if self.others == "keep" or len(persons) < 2:
            return
        main = main_part(persons, item.boxes)
        others = [(box, place) for box, place in persons[1:] if touches(place, size)]
        kept = cut_away([place for _, place in others], main, kept_part(item, size)) if self.others == "crop" else None
        if kept:
            item.marks.append(Box(TRIM, 1.0, *kept))
            others = [(box, place) for box, place in others if area(common(place, kept))]
        item.masked += [Box(OTHER, box.score, *rest) for box, place in others for rest in without(place, main)]

    def _background(self, item: Item, image: Image.Image, colour: tuple[int, int, int] | None, store: Store) -> None:
        """Put a colour in the background's place in a copy, or keep the cut-out for the mask, or undo that."""
        base = under(item, store)
        cutout = None if self.background == "keep" else self._cutout(item, image)
        item.notes = [note for note in item.notes if note not in (REMOVED, UNFOUND)]
        keep_cutout(item, store, cutout if self.background == "mask" else None)
        if self.background != "keep":
            item.notes.append(REMOVED if cutout else UNFOUND)
        if cutout and colour:
            store.retouch(item, Image.composite(base or image, Image.new("RGB", image.size, colour), cutout))
            item.stamps[CUTOUT] = item.retouched_digest
        elif item.stamps.pop(CUTOUT, None):
            store.retouch(item, base)

    def _cutout(self, item: Item, image: Image.Image) -> Image.Image | None:
        """Return the subject's share in each pixel, L; None if there is no subject, or the wrong one."""
        mask = cutter(self.cutter, self.device).cutout(image)
        share = np.asarray(mask, dtype=np.float32) / 255
        faces = [box for box in item.boxes if box.label == "face"][:1]
        if not LEAST_CUTOUT <= share.mean() <= MOST_CUTOUT:
            return None
        return None if any(share[box.y0 : box.y1, box.x0 : box.x1].mean() < FACE_IN for box in faces) else mask

    def _colour(self) -> tuple[int, int, int] | None:
        if self.background in ("keep", "mask"):
            return None
        try:
            red, green, blue = ImageColor.getrgb(self.background)[:3]
        except ValueError:
            raise UserError(f"background {self.background!r} is neither keep, mask nor a colour; give a name such as white, or #rrggbb") from None
        return red, green, blue


def touches(place: Corners, size: tuple[int, int]) -> bool:
    """Tell whether a box reaches the border of a picture of this size, so that the one it shows is cut off there."""
    near = TOUCH * size[0], TOUCH * size[1]
    return place[0] <= near[0] or place[1] <= near[1] or place[2] >= size[0] - near[0] or place[3] >= size[1] - near[1]


def main_part(persons: Sequence[tuple[Box, Corners]], boxes: Sequence[Box]) -> Corners:
    """Return all that is known of the first person: its body and every box that lies in it for the most part."""
    x0, y0, x1, y1 = persons[0][1]
    mine = [corners(box) for box in boxes if area(common(corners(box), persons[0][1])) > area(corners(box)) / 2]
    rows = [(x0, y0, x1, y1), *mine]
    return min(r[0] for r in rows), min(r[1] for r in rows), max(r[2] for r in rows), max(r[3] for r in rows)


def cut_away(others: Sequence[Corners], main: Corners, part: Corners) -> Corners | None:
    """Return the largest part of a picture without the others, cut straight, with all of the main person; None if too much is lost."""
    kept = part
    for place in others:
        if not area(common(kept, place)):
            continue
        x0, y0, x1, y1 = kept
        rests = (place[2], y0, x1, y1), (x0, place[3], x1, y1), (x0, y0, place[0], y1), (x0, y0, x1, place[1])
        kept = max((rest for rest in rests if holds(rest, common(main, part))), key=area, default=(0, 0, 0, 0))
    return kept if kept != part and area(kept) >= (1 - MOST_LOST) * area(part) else None
