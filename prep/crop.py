"""Crop: choose the part of each picture that is trained on, around its subject; the pixels stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from prep.detectors import DETECTORS, detector
from prep.images import load, save
from prep.item import Box, Item, Store
from prep.options import option
from prep.step import Step

Corners = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, x1 and y1 exclusive
DETAIL_SIDE = 256  # longer side at which detail is measured
NEARLY_BEST = 0.995  # of the windows with nearly the most detail the middle one is taken, so that the detail is in its middle
EMPTY = 0.005  # share of the whole detail that may be trimmed away on each side
WORTH = 0.03  # a border narrower than this share of the picture is left


@dataclass(frozen=True)
class Crop(Step):
    """Choose a crop for each picture: none, the square with the subject, or the picture without empty borders.

    The trainer sorts pictures of any shape into buckets, so none is right unless it takes squares only. A face that is found is never
    cut. The crop is noted, not cut: it can be corrected in the picture's sidecar, and `prep build` applies it.
    """

    batch: ClassVar[int] = 4  # whole pictures are in memory

    mode: str = option("none", help="none, square, or subject (trims what is empty around it).", choices=("none", "square", "subject"))
    detector: str = option("face", help="What finds the subject.", choices=DETECTORS)
    margin: float = option(0.4, help="Room kept around a face, in face widths.", min=0, max=3)
    out: str = option("", help="Folder to which the cropped pictures are written as well.")

    def inputs(self, item: Item) -> Any:
        stat = item.path.stat()
        return [stat.st_size, stat.st_mtime_ns, not self.out or self._copy(item).exists()]

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        if self.mode == "none" and not self.out:
            for item in batch:
                item.crop = None
            return batch
        images = [load(item.path) for item in batch]
        found = detector(self.detector)(images) if self.mode != "none" else [item.boxes for item in batch]
        for item, image, boxes in zip(batch, images, found, strict=True):
            item.width, item.height = image.size
            item.boxes = boxes
            crop = MODES[self.mode](image, boxes, self.margin)
            item.crop = None if crop == (0, 0, *image.size) else crop
            if self.out:
                save(image.crop(crop), self._copy(item))
        return batch

    def _copy(self, item: Item) -> Path:
        return Path(self.out) / f"{item.key}.png"


def whole(image: Image.Image, boxes: Sequence[Box], margin: float) -> Corners:
    """Keep the whole picture."""
    return 0, 0, image.width, image.height


def square(image: Image.Image, boxes: Sequence[Box], margin: float) -> Corners:
    """Return the largest square that holds the boxes, best first, and the most detail."""
    side = min(image.size)
    along = 0 if image.width > image.height else 1  # the axis on which the square can be moved
    spans = [((box.x0, box.x1) if along == 0 else (box.y0, box.y1), margin * (box.x1 - box.x0)) for box in boxes]
    profile = detail(image).sum(axis=along)
    start = _best_start(profile, image.size[along], side, _range(spans, image.size[along], side))
    return (start, 0, start + side, side) if along == 0 else (0, start, side, start + side)


def trimmed(image: Image.Image, boxes: Sequence[Box], margin: float) -> Corners:
    """Return the smallest rectangle that holds the boxes with their margin and nearly all detail."""
    energy = detail(image)
    x0, x1 = _extent(energy.sum(axis=0), image.width)
    y0, y1 = _extent(energy.sum(axis=1), image.height)
    for box in boxes:
        room = round(margin * (box.x1 - box.x0))
        x0, y0 = min(x0, max(box.x0 - room, 0)), min(y0, max(box.y0 - room, 0))
        x1, y1 = max(x1, min(box.x1 + room, image.width)), max(y1, min(box.y1 + room, image.height))
    return x0, y0, x1, y1


MODES: dict[str, Callable[[Image.Image, Sequence[Box], float], Corners]] = {"none": whole, "square": square, "subject": trimmed}


def detail(image: Image.Image) -> np.ndarray:
    """Measure how much happens at each place: the gradient of all channels on a small copy, (height, width), float64."""
    small = image.copy()
    small.thumbnail((DETAIL_SIDE, DETAIL_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float64)
    across = np.abs(np.diff(pixels, axis=1, prepend=pixels[:, :1])).sum(axis=2)
    down = np.abs(np.diff(pixels, axis=0, prepend=pixels[:1])).sum(axis=2)
    energy = across + down
    return np.where(energy > 12, energy, 0)  # below are noise and soft gradients of a background


def _range(spans: Sequence[tuple[tuple[int, int], float]], length: int, side: int) -> tuple[int, int]:
    """Return from where to where a window may start to hold the spans, as many as fit, each with its margin if that fits."""
    low, high = 0, length - side
    for with_margin in (False, True):
        for (start, end), margin in spans:
            room = round(margin) if with_margin else 0
            lowest, highest = max(low, min(end + room, length) - side), min(high, max(start - room, 0))
            if lowest <= highest:
                low, high = lowest, highest
    return low, high


def _best_start(profile: np.ndarray, length: int, side: int, allowed: tuple[int, int]) -> int:
    """Return the start in pixels, within `allowed`, of the window of `side` pixels with the most detail."""
    starts = np.arange(allowed[0], allowed[1] + 1)
    sums = np.concatenate([[0], profile.cumsum()])
    scale = len(profile) / length
    places = np.arange(len(sums))
    inside = np.interp((starts + side) * scale, places, sums) - np.interp(starts * scale, places, sums)
    nearly = starts[inside >= NEARLY_BEST * inside.max()]
    return int(nearly[(len(nearly) - 1) // 2])


def _extent(profile: np.ndarray, length: int) -> tuple[int, int]:
    """Return from where to where, in pixels, nearly all detail lies; the whole length if there is none."""
    total = profile.sum()
    if total == 0:
        return 0, length
    share = profile.cumsum() / total
    first, last = int(np.searchsorted(share, EMPTY)), int(np.searchsorted(share, 1 - EMPTY))
    scale = length / len(profile)
    start, end = max(int((first - 1) * scale), 0), min(int(np.ceil((last + 2) * scale)), length)
    return (start if start > WORTH * length else 0), (end if length - end > WORTH * length else length)
