"""Crop: choose the part of each picture that is trained on, around its subject; the pixels stay as they are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from prep.boxes import OTHER, Corners, area, common, corners, find_boxes, kept_part, people, state_of
from prep.detectors import HELP, names_of
from prep.framing import MODES, Scene
from prep.framing import strict_square as square  # noqa: F401  for prep.exports
from prep.images import load, save
from prep.item import Box, Item
from prep.masks import mask_path
from prep.options import UserError, option
from prep.stages import WHOLE, children, cut, cuts, is_orphan, parse, remove
from prep.step import ParallelStep
from prep.store import Store

FRAMED = "framed"  # the stamp that says which crop we chose; another one in the sidecar is a person's
SMALL = "small_crop"
MINE = 0.5  # share of a box that lies in a person, from which it is that person's


@dataclass(frozen=True)
class Crop(ParallelStep):
    """Choose a crop for each picture; the face of the subject is kept whole, with some room around it.

    none: no crop, as the trainer sorts pictures of any shape into buckets. square: for trainers that take squares only. subject: what is
    empty around the subject is trimmed. buckets: the shape of the trainer's own bucket that loses the least. stages: the picture, and
    half body and head cut out of it as pictures of their own beside it. Crops are noted, not cut: one corrected in the picture's sidecar
    stays, and `prep build` applies it.
    """

    batch: ClassVar[int] = 4  # whole pictures are in memory

    mode: str = option("none", help=f"How pictures are framed: {', '.join(MODES)}.", choices=MODES)
    detector: str = option("face", help=f"What finds the subject where `prep subject` has not: {HELP}.")
    margin: float = option(0.4, help="Room kept around a face, in face widths.", min=0, max=3)
    resolution: int = option(512, help="The resolution of the training, for buckets and for --max-upscale.", min=8, max=8192)
    stages: str = option("whole:1,half:0.5,head:0.5", help="Stages to make, and how often each is shown.")
    max_upscale: float = option(2.0, help="A crop that the trainer must enlarge more is made wider, or noted and proposed.", min=1, max=64)
    redo: bool = option(False, help="Find the subject again and replace crops corrected by hand.", matters=False)
    device: str = option("auto", help="Where detectors run; cuda is an error where they cannot.", choices=("auto", "cpu", "cuda"), matters=False)
    out: str = option("", help="Folder to which the cropped pictures are written as well.")

    @property
    def pictured(self) -> bool:
        return True

    @cached_property
    def _times(self) -> dict[str, float]:
        """How often each stage is shown; nothing in other modes."""
        return parse(self.stages) if self.mode == "stages" else {}

    def inputs(self, item: Item) -> Any:
        stat = item.picture.stat()
        marks = [[box.label, *corners(box)] for box in (*item.boxes, *item.marks, *item.masked)]
        copied = (item.crop, self._copy(item).exists()) if self.out else None
        mask = mask_path(item)
        stages = (item.crop, mask.exists() and mask.stat().st_mtime_ns) if self._times else None
        return [stat.st_size, stat.st_mtime_ns, marks, copied, stages]

    def todo(self, batch: list[Item]) -> list[Item]:
        return [item for item in batch if not item.dropped] if self.redo else super().todo(batch)

    def __call__(self, items: Iterable[Item], store: Store) -> Iterator[Item]:
        """Stream the pictures, each followed by the stages cut out of it, old or new."""
        last: Item | None = None
        fresh: set[str] = set()
        for item in super().__call__(self._parents(items, store), store):
            if item.parent:
                fresh.add(item.key)
            else:
                yield from _earlier(last, fresh, store)
                last, fresh = item, set()
            yield item
        yield from _earlier(last, fresh, store)

    def _parents(self, items: Iterable[Item], store: Store) -> Iterator[Item]:
        """Pass pictures on, but not the stages in the stream: they follow their picture. Those whose picture is gone go too."""
        for item in items:
            if not item.parent:
                yield item
            elif is_orphan(item, store):
                remove(item, store)

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        names = names_of(self.detector)
        for item in batch:
            yield from self._frame(item, store, names)

    def _frame(self, item: Item, store: Store, names: list[str]) -> list[Item]:
        """Set the item's crop and give back the item and the stages cut out of it."""
        known = item.width > 0 and self.mode == "none" and not self.out
        image = Image.new("L", (item.width, item.height)) if known else load(item.picture)  # the size is all that is needed
        if not known:
            item.see(image)
        if self.mode != "none":
            find_boxes(item, image, names, self.device, self.redo)
        chosen = self._choose(item, image)
        self._flag(item, chosen if item.crop else None)
        if self.out:
            save(image.crop(chosen), self._copy(item))
        return [item, *self._stages(item, chosen, image, store)]

    def _choose(self, item: Item, image: Image.Image) -> Corners:
        """Return the crop, a person's or ours, and note it; the whole picture is no crop."""
        part = kept_part(item, image.size)
        hand = None if self.redo else _by_hand(item, part, image.size)
        chosen = hand or MODES[self.mode](self._scene(item, image, part))
        item.crop = None if chosen == (0, 0, *image.size) else chosen
        if not hand:
            item.stamps[FRAMED] = _framed(item, part, item.crop)
        elif FRAMED not in item.stamps:
            item.stamps[FRAMED] = _framed(item, part, "by hand")
        return chosen

    def _scene(self, item: Item, image: Image.Image, part: Corners) -> Scene:
        return Scene(image, subject_boxes(item), self.margin, part, self.resolution)

    def _flag(self, item: Item, place: Corners | None) -> None:
        """Note and propose an item whose crop the trainer will enlarge by more than it may; buckets share the area of the resolution."""
        item.notes = [note for note in item.notes if not note.startswith("upscaled_")]
        if item.proposed == SMALL:
            item.proposed = ""
        factor = self.resolution / math.sqrt(area(place)) if place else 1.0
        if place and factor > self.max_upscale + 0.05:  # what rounds to more
            item.notes.append(f"upscaled_{factor:.1f}x")
            item.proposed = item.proposed or SMALL

    def _stages(self, item: Item, chosen: Corners, image: Image.Image, store: Store) -> list[Item]:
        """Cut the stages out of the chosen crop, and remove those of an earlier run that are no longer wanted."""
        if self._times:
            item.stage, item.emphasis = WHOLE, self._times[WHOLE]
        elif item.stage == WHOLE:
            item.stage, item.emphasis = "", 1.0
        least = (self.resolution / self.max_upscale) ** 2
        found = cuts(self._scene(item, image, chosen), list(self._times), least) if self._times else {}
        made = [cut(item, stage, place, image, store) for stage, place in found.items()]
        for child in made:
            child.emphasis = self._times[child.stage]
            self._flag(child, found[child.stage])
        for child in children(item, store):
            if child.stage not in found:
                remove(child, store)
        return made

    def _copy(self, item: Item) -> Path:
        return Path(self.out) / f"{item.key}.png"


def subject_boxes(item: Item) -> list[Box]:
    """Return the boxes of the item's people without those that are masked as others, the main person's first."""
    others = [corners(box) for box in item.masked if box.label == OTHER]
    boxes = [box for box in item.boxes if sum(area(common(corners(box), other)) for other in others) <= MINE * area(corners(box))]
    persons = [place for _, place in people(boxes, (item.width, item.height))]

    def rank(box: Box) -> int:
        mine = (index for index, place in enumerate(persons) if area(common(corners(box), place)) > MINE * area(corners(box)))
        return next(mine, len(persons))

    return sorted(boxes, key=rank)


def _earlier(parent: Item | None, fresh: set[str], store: Store) -> Iterator[Item]:
    """Yield the stages that an earlier run cut out of a picture; a picture that is set aside takes them with it."""
    for child in children(parent, store) if parent else ():
        if parent and parent.dropped:
            remove(child, store)
        elif child.key not in fresh:
            yield child


def _framed(item: Item, part: Corners, crop: Corners | str | None) -> str:
    return json.dumps([state_of(item), part, crop])


def _by_hand(item: Item, part: Corners, size: tuple[int, int]) -> Corners | None:
    """Return the crop that a person gave the picture, inside the part that may be used; None if it is ours or of another picture.

    Raises UserError for one that is not inside the picture.
    """
    crop = list(item.crop) if item.crop else None
    if FRAMED in item.stamps:
        state, part_before, ours = json.loads(item.stamps[FRAMED])
        theirs = state == state_of(item) and crop != ours and (crop is not None or part_before == list(part))
    else:
        theirs = crop is not None and "crop" not in item.stamps  # that of an older version, which remembered none, was ours
    if not theirs or crop == list(part):  # `prep marks` sets the crop to its trim
        return None
    x0, y0, x1, y1 = crop or part
    if not (0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]):
        raise UserError(f"the crop {crop} in the sidecar of {item.path} is not inside the picture of {size[0]} x {size[1]}; mend or delete it")
    inside = common((x0, y0, x1, y1), part)
    return inside if area(inside) else None
