"""Boxes: what detectors found on a picture is kept on its item, so that it is found once and can be corrected by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from prep.detectors import detector
from prep.item import Box, Item

if TYPE_CHECKING:
    from PIL import Image

Corners = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels of the picture, x1 and y1 exclusive

FOUND = "boxes"  # the stamp that says in which picture which detectors have looked
SAME = 0.5  # intersection over union from which two boxes of one label are one thing
TRIMS = ("trim", "subject_trim")  # labels in item.marks of what `prep marks` and `prep subject` keep of a picture
OTHER = "other_person"  # label in item.masked


def find_boxes(item: Item, image: Image.Image, names: Sequence[str], device: str = "auto", redo: bool = False) -> list[Box]:
    """Fill item.boxes from the named detectors and return them, best first; `image` is the item's whole picture.

    A detector that has looked at the same picture before does not look again, so boxes corrected by hand stay.
    """
    state, _, done = item.stamps.get(FOUND, "").partition(" ")
    if redo or (state and state != state_of(item)):
        item.boxes, done = [], ""
    for name in names:
        if name not in done.split(" "):
            item.boxes = merged(item.boxes, detector(name, device)([image])[0])
    item.stamps[FOUND] = " ".join([state_of(item), *sorted({*done.split(), *names} - {"none"})])
    return item.boxes


def state_of(item: Item) -> str:
    """Return what changes when the item's clean picture does; boxes and crops stay true of a retouched copy."""
    return item.digest[:16] or f"{item.width}x{item.height}"


def merged(known: Sequence[Box], new: Iterable[Box]) -> list[Box]:
    """Add boxes to those known, without those of the same thing and label, best first."""
    boxes = list(known)
    boxes += [box for box in new if not any(box.label == old.label and overlap(corners(box), corners(old)) > SAME for old in known)]
    return sorted(boxes, key=lambda box: -box.score)


def corners(box: Box) -> Corners:
    return box.x0, box.y0, box.x1, box.y1


def area(place: Corners) -> int:
    return max(0, place[2] - place[0]) * max(0, place[3] - place[1])


def common(a: Corners, b: Corners) -> Corners:
    """Return the part that two rectangles share; its area is 0 if there is none."""
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def holds(outer: Corners, inner: Corners) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and outer[2] >= inner[2] and outer[3] >= inner[3]


def overlap(a: Corners, b: Corners) -> float:
    """Return the intersection of two rectangles over their union."""
    shared = area(common(a, b))
    return shared / max(area(a) + area(b) - shared, 1)


def without(place: Corners, hole: Corners) -> list[Corners]:
    """Return the up to four rectangles that are left of `place` without `hole`: above, below, left and right of it."""
    x0, y0, x1, y1 = common(place, hole)
    if x1 <= x0 or y1 <= y0:
        return [place]
    rows = [(place[0], place[1], place[2], y0), (place[0], y1, place[2], place[3]), (place[0], y0, x0, y1), (x1, y0, place[2], y1)]
    return [row for row in rows if area(row) > 0]


def kept_part(item: Item, size: tuple[int, int]) -> Corners:
    """Return what earlier steps keep of a picture of this size: all of it, or the part inside their trims."""
    whole = 0, 0, *size
    for box in item.marks:
        if box.label in TRIMS and area(common(whole, corners(box))):
            whole = common(whole, corners(box))
    return whole


def prominence(box: Box, size: tuple[int, int]) -> float:
    """Return how likely a box is the picture's subject: its area, less the farther its centre is from the picture's."""
    across = abs((box.x0 + box.x1) / size[0] - 1)
    down = abs((box.y0 + box.y1) / size[1] - 1)
    return area(corners(box)) * (1 - max(across, down) / 2)


def people(boxes: Sequence[Box], size: tuple[int, int]) -> list[tuple[Box, Corners]]:
    """Return the people, the most prominent first, each as the box by which it was found and as much of its body as is known."""
    bodies = [box for box in boxes if box.label == "person"]
    found = [(box, corners(box)) for box in bodies]
    for label in ("half", "head", "face"):  # what lies in a body that is already known is that body's
        for box in (box for box in boxes if box.label == label):
            place = common(head_of(box), (0, 0, *size)) if label == "face" else corners(box)
            if not any(area(common(corners(box), known)) > SAME * area(corners(box)) for _, known in found):
                found.append((box, place))
    return sorted(found, key=lambda row: -prominence(Box("", 0, *row[1]), size))


# From a face's box (BlazeFace: brows to chin) to the square of the head with its hair. Measured on 98 pocket drawings without a hat: heads
# are 1.4-2.1 of the box's longer side wide and 1.4-2.0 high (5th to 95th percentile), their centre lies 0.3 higher; this square holds 91
# of the 98 whole, one of 2.0 holds 83. On the astronaut, by eye: 1.3 wide, 1.75 high.
HEAD_SIDE = 2.2
HEAD_RISE = 0.3


def head_of(face: Box) -> Corners:
    """Return the square around a face that holds its head; it may reach out of the picture."""
    side = max(face.x1 - face.x0, face.y1 - face.y0)
    x, y = (face.x0 + face.x1) / 2, (face.y0 + face.y1) / 2 - HEAD_RISE * side
    half = HEAD_SIDE * side / 2
    return round(x - half), round(y - half), round(x + half), round(y + half)


def inside(place: Corners, whole: Corners) -> Corners:
    """Move a rectangle into another; where it is longer, cut it."""
    x0, x1 = _moved(place[0], place[2], whole[0], whole[2])
    y0, y1 = _moved(place[1], place[3], whole[1], whole[3])
    return x0, y0, x1, y1


def _moved(start: int, end: int, low: int, high: int) -> tuple[int, int]:
    length = min(end - start, high - low)
    start = min(max(start, low), high - length)
    return start, start + length
