"""Framing: where to crop a picture so that its subject stays whole; rectangles in, rectangles out, no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from prep.boxes import Corners, area, common, corners, holds
from prep.item import Box
from prep.options import load_object

BUCKETS = "train.buckets:BucketRule"  # by name: prep does not know train
DETAIL_SIDE = 256  # longer side at which detail is measured
NEARLY_BEST = 0.995  # of the windows with nearly the most detail the middle one is taken, so that the detail is in its middle
EMPTY = 0.005  # share of the whole detail that may be trimmed away on each side
WORTH = 0.03  # a border narrower than this share of the picture is left
SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)  # of the largest window, tried in turn where that cuts a face
PLACES = 96  # starts tried along each axis when the window can move along both

# Which boxes a crop holds, in the order of their importance, and how much of the margin is kept around each: a body's box is wide already.
HELD = {"face": 1.0, "head": 0.5, "half": 0.25, "person": 0.1, "subject": 0.1}
OTHERS = 0.1  # the same for the classes of a user's own detector


@dataclass(frozen=True)
class Scene:
    """A picture to be framed: what is in it, best first, and what part of it may be used."""

    image: Image.Image
    boxes: Sequence[Box] = ()
    margin: float = 0.4  # room kept around a face, in face widths
    within: Corners | None = None  # None = all of it
    resolution: int = 512  # that the trainer will train at

    @cached_property
    def area(self) -> Corners:
        """The part of the picture that may be used."""
        return self.within or (0, 0, *self.image.size)

    @cached_property
    def size(self) -> tuple[int, int]:
        return self.area[2] - self.area[0], self.area[3] - self.area[1]

    @cached_property
    def held(self) -> list[tuple[Corners, int]]:
        """The boxes to hold as far as they lie in the area, the most important first, each with its margin in pixels."""
        order = {label: rank for rank, label in enumerate(HELD)}
        boxes = sorted(self.boxes, key=lambda box: order.get(box.label, len(order)))
        rows = [(common(corners(box), self.area), round(HELD.get(box.label, OTHERS) * self.margin * (box.x1 - box.x0))) for box in boxes]
        return [(place, room) for place, room in rows if area(place)]

    @cached_property
    def faces(self) -> list[Corners]:
        """The faces that must not be cut, best first."""
        return [place for box in self.boxes if box.label == "face" and area(place := common(corners(box), self.area))]

    def with_room(self, place: Corners, room: int) -> Corners:
        """Return a box grown by its margin, inside the area."""
        return common((place[0] - room, place[1] - room, place[2] + room, place[3] + room), self.area)

    @cached_property
    def energy(self) -> np.ndarray:
        return detail(self.image)


def whole(scene: Scene) -> Corners:
    """Keep all that may be used."""
    return scene.area


def square(scene: Scene) -> Corners:
    """Return the largest square that holds the boxes, best first, and the most detail; smaller if a face would be cut, no crop if it still is."""
    side = min(scene.size)
    places = (place(scene, (max(1, round(side * scale)),) * 2) for scale in SHRINK)
    return next((found for found in places if found), scene.area)


def strict_square(image: Image.Image, boxes: Sequence[Box], margin: float) -> Corners:
    """Return what `square` does, and where the face is larger than any square its middle: for trainers that take nothing else."""
    scene = Scene(image, boxes, margin)
    found, side = square(scene), min(image.size)
    if found[2] - found[0] == found[3] - found[1]:
        return found
    (face,) = scene.faces[:1]
    x, y = (min(max((face[end] + face[end + 2] - side) // 2, 0), image.size[end] - side) for end in (0, 1))
    return x, y, x + side, y + side


def trimmed(scene: Scene) -> Corners:
    """Return the smallest rectangle that holds the boxes with their margin and nearly all detail."""
    across, down = scene.energy.sum(axis=0), scene.energy.sum(axis=1)
    x0, x1 = _extent(across, scene.image.width, scene.area[0], scene.area[2])
    y0, y1 = _extent(down, scene.image.height, scene.area[1], scene.area[3])
    for box, room in scene.held:
        left, top, right, bottom = scene.with_room(box, room)
        x0, y0, x1, y1 = min(x0, left), min(y0, top), max(x1, right), max(y1, bottom)
    return x0, y0, x1, y1


def bucketed(scene: Scene) -> Corners:
    """Return the crop to the shape of the trainer's bucket that loses the least, so that the trainer itself cuts nothing more.

    First the buckets that hold every box with its margin, then those that cut no face; no crop if there is none.
    """
    rule = load_object(BUCKETS)((scene.resolution, scene.resolution))
    width, height = scene.size
    sizes = {largest(scene.size, bucket) for bucket in rule.sizes}
    by_loss = sorted(sizes, key=lambda size: (width * height - size[0] * size[1], size))
    for all_held in (True, False):
        for size in by_loss:
            found = place(scene, size)
            if found and (not all_held or all(holds(found, scene.with_room(box, room)) for box, room in scene.held)):
                return found
    return scene.area


MODES: dict[str, Callable[[Scene], Corners]] = {"none": whole, "square": square, "subject": trimmed, "buckets": bucketed, "stages": whole}


def largest(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size inside another that has the proportions of a shape."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    return tuple(max(1, min(limit, round(side * scale))) for side, limit in zip(shape, size, strict=True))  # type: ignore[return-value]


def place(scene: Scene, size: tuple[int, int]) -> Corners | None:
    """Put a window of this size where it holds the boxes, as many as fit and best first, cuts no face and has the most detail.

    The best face is in it; another one is in it or outside. None if there is no such place.
    """
    (left, right), (top, bottom) = _ranges(scene, size)
    x, y = _starts(left, right, top == bottom), _starts(top, bottom, left == right)
    allowed = np.ones((len(y), len(x)), bool)
    for index, face in enumerate(scene.faces):
        across, down = _relation(x, size[0], face[0], face[2]), _relation(y, size[1], face[1], face[3])
        is_in = (down == 1)[:, None] & (across == 1)[None]
        allowed &= is_in if index == 0 else is_in | (down == -1)[:, None] | (across == -1)[None]
    if not allowed.any():
        return None
    inside = np.where(allowed, _sums(scene, x, y, size), -1)
    rows, columns = np.nonzero(inside >= NEARLY_BEST * inside.max())
    off_middle = (y[rows] - y[rows].mean()) ** 2 + (x[columns] - x[columns].mean()) ** 2
    best = int(np.argmin(off_middle))
    x0, y0 = int(x[columns[best]]), int(y[rows[best]])
    return x0, y0, x0 + size[0], y0 + size[1]


def detail(image: Image.Image) -> np.ndarray:
    """Measure how much happens at each place: the gradient of all channels on a small copy, (height, width), float64."""
    small = image.copy()
    small.thumbnail((DETAIL_SIDE, DETAIL_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float64)
    across = np.abs(np.diff(pixels, axis=1, prepend=pixels[:, :1])).sum(axis=2)
    down = np.abs(np.diff(pixels, axis=0, prepend=pixels[:1])).sum(axis=2)
    energy = across + down
    return np.where(energy > 12, energy, 0)  # below are noise and soft gradients of a background


def _starts(low: int, high: int, only: bool) -> np.ndarray:
    """Return the starts to try from low to high: all of them along the only axis that is free, else a choice."""
    return np.arange(low, high + 1) if only else np.unique(np.linspace(low, high, PLACES).round().astype(int))


def _relation(starts: np.ndarray, side: int, low: int, high: int) -> np.ndarray:
    """Return for windows along an axis 1 where the span low..high is inside, -1 where it is outside, 0 where it is cut."""
    return np.where((starts <= low) & (starts + side >= high), 1, np.where((starts + side <= low) | (starts >= high), -1, 0))


def _ranges(scene: Scene, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return from where to where a window may start, across and down, to hold the boxes: as many as fit, each with its margin if that fits."""
    x0, y0, x1, y1 = scene.area
    ranges = (x0, x1 - size[0]), (y0, y1 - size[1])
    for with_margin in (False, True):
        for box, room in scene.held:
            left, top, right, bottom = scene.with_room(box, room if with_margin else 0)
            across = max(ranges[0][0], right - size[0]), min(ranges[0][1], left)
            down = max(ranges[1][0], bottom - size[1]), min(ranges[1][1], top)
            if across[0] <= across[1] and down[0] <= down[1]:
                ranges = across, down
    return ranges


def _sums(scene: Scene, x: np.ndarray, y: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the detail in each window that starts at x (columns) and y (rows)."""
    energy = scene.energy
    table = np.zeros((energy.shape[0] + 1, energy.shape[1] + 1))
    table[1:, 1:] = energy.cumsum(axis=0).cumsum(axis=1)
    down, across = energy.shape[0] / scene.image.height, energy.shape[1] / scene.image.width
    strips = _at(table.T, (x + size[0]) * across) - _at(table.T, x * across)
    return _at(strips.T, (y + size[1]) * down) - _at(strips.T, y * down)


def _at(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the rows of a table at places between them, by straight interpolation."""
    places = np.clip(places, 0, len(rows) - 1)
    low = np.minimum(places.astype(int), len(rows) - 2)
    share = (places - low)[:, None]
    return rows[low] * (1 - share) + rows[low + 1] * share


def _extent(profile: np.ndarray, length: int, low: int, high: int) -> tuple[int, int]:
    """Return from where to where, in pixels between low and high, nearly all detail lies; all of it if there is none."""
    scale = length / len(profile)
    first_row, last_row = int(low / scale), max(int(np.ceil(high / scale)), int(low / scale) + 1)
    part = profile[first_row:last_row]
    total = part.sum()
    if total == 0:
        return low, high
    share = part.cumsum() / total
    first, last = first_row + int(np.searchsorted(share, EMPTY)), first_row + int(np.searchsorted(share, 1 - EMPTY))
    start, end = max(int((first - 1) * scale), low), min(int(np.ceil((last + 2) * scale)), high)
    least = WORTH * (high - low)
    return (start if start - low > least else low), (end if high - end > least else high)
