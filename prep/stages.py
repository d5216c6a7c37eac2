"""Stages: the half body and the head of a picture as pictures of their own beside it, so that what is small in it is learned too."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from PIL import Image

from prep.boxes import Corners, area, common, corners, head_of, holds, inside
from prep.captions import caption_path, read_caption
from prep.framing import Scene
from prep.images import READABLE, encode, pixel_hash
from prep.item import Box, Item
from prep.masks import keep_alpha, loss_mask, mask_path, update_mask
from prep.options import UserError, atomic_write
from prep.store import Store

WHOLE = "whole"
TRIES = 9  # names that are tried for a stage's picture before that is called a mistake
SAME = 0.8  # a stage that takes this share of the one around it would show the same once more

# From a face's box to the half body, by the proportions of an upright figure, whose head is an eighth of it: the waist is three heads below
# the crown, the shoulders are two to three heads wide. In faces (0.6 of a head) that is 5 and up to 4.5. Looked at on the astronaut only.
HALF_SIDE = 4.5
HALF_DOWN = 5.0
HALF_OF_BODY = 0.55  # the share of a whole body's box above the hips, by the same proportions
HEAD_ROOM = 1.5  # the side of the crop in sides of a head's box, as waifuc has it


def parse(text: str) -> dict[str, float]:
    """Read "whole:1,half:0.5,head:0.5": how often each stage is shown; raises UserError."""
    wanted: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.partition(":")
        try:
            wanted[name.strip()] = float(number or 1)
        except ValueError:
            raise UserError(f"stages: {part!r} is no stage with a number; write for example whole:1,half:0.5,head:0.5") from None
    known = {WHOLE, *STAGES}
    bad = [name for name, times in wanted.items() if name not in known or not 0 < times < math.inf]
    if bad or WHOLE not in wanted:
        raise UserError(f"stages {text!r} must hold whole, and may hold {' and '.join(STAGES)}, each with a number over 0, as in whole:1,half:0.5")
    return wanted


def cuts(scene: Scene, names: list[str], pixels: float) -> dict[str, Corners]:
    """Return where to cut the named stages out, each of at least `pixels` if the picture has them; those that are not there are left out."""
    found: dict[str, Corners] = {}
    around = scene.area
    for name, propose in STAGES.items():
        proposed = propose(scene) if name in names else None
        spared = proposed and spare_faces(inside(_grown(proposed, pixels), scene.area), scene)
        if spared and area(spared) < SAME * area(around):
            found[name] = around = spared
    return found


def _first(scene: Scene, label: str) -> Box | None:
    return next((box for box in scene.boxes if box.label == label), None)


def _head(scene: Scene) -> Corners | None:
    """Return the square around the subject's head, from its own box or from the face's."""
    head, face = _first(scene, "head"), _first(scene, "face")
    if head is None:
        return head_of(face) if face else None
    half = HEAD_ROOM * max(head.x1 - head.x0, head.y1 - head.y0) / 2
    x, y = (head.x0 + head.x1) / 2, (head.y0 + head.y1) / 2
    return round(x - half), round(y - half), round(x + half), round(y + half)


def _half(scene: Scene) -> Corners | None:
    """Return the subject down to the hips, from its own box, or from the face's, or from the whole body's."""
    half, face, body = (_first(scene, label) for label in ("half", "face", "person"))
    if half is not None:
        return scene.with_room(corners(half), round(0.25 * scene.margin * (half.x1 - half.x0)))
    if face is None:
        return (body.x0, body.y0, body.x1, body.y0 + round(HALF_OF_BODY * (body.y1 - body.y0))) if body else None
    side, top = max(face.x1 - face.x0, face.y1 - face.y0), head_of(face)[1]
    x = (face.x0 + face.x1) / 2
    return round(x - HALF_SIDE * side / 2), top, round(x + HALF_SIDE * side / 2), top + round(HALF_DOWN * side)


# Stage -> where it is in a scene; from the wider to the narrower.
STAGES: dict[str, Callable[[Scene], Corners | None]] = {"half": _half, "head": _head}


def _grown(place: Corners, pixels: float) -> Corners:
    """Grow a rectangle around its centre to an area of `pixels`."""
    scale = max(1.0, math.sqrt(pixels / max(area(place), 1)))
    across, down = ((scale - 1) * (place[end] - place[end - 2]) / 2 for end in (2, 3))
    return math.floor(place[0] - across), math.floor(place[1] - down), math.ceil(place[2] + across), math.ceil(place[3] + down)


def spare_faces(place: Corners, scene: Scene) -> Corners | None:
    """Return the rectangle without, or with all of, each face that it cuts; the best face stays in. None if that cannot be."""
    main = scene.faces[:1]
    for _ in range(2 * len(scene.faces) + 1):
        cut = next((face for face in scene.faces if 0 < area(common(place, face)) < area(face)), None)
        if cut is None:
            return place
        outside = [(cut[2], *place[1:]), (place[0], cut[3], *place[2:]), (*place[:2], cut[0], place[3]), (*place[:3], cut[1])]
        outside = [rest for rest in outside if area(rest) and all(holds(rest, face) for face in main)] if cut not in main else []
        place = max(outside, key=area, default=(min(place[0], cut[0]), min(place[1], cut[1]), max(place[2], cut[2]), max(place[3], cut[3])))
    return None


def children(item: Item, store: Store) -> Iterator[Item]:
    """Yield the pictures that have been cut out of an item's."""
    for stage in STAGES:
        child = _remembered(item, stage, store)
        if child and child.path.exists():
            yield child


def cut(item: Item, stage: str, place: Corners, image: Image.Image, store: Store) -> Item:
    """Cut a stage out of an item's picture into a picture beside it; its caption, and what steps know of it, stay if its pixels do."""
    child = _remembered(item, stage, store) or _new(item, stage, store)
    piece = image.crop(place)
    digest = pixel_hash(piece)
    if digest != child.digest:
        child.dropped = child.detail = child.proposed = ""
        child.crop, child.marks, child.masked = None, [], []
        store.retouch(child, None)
    child.digest, (child.width, child.height) = digest, piece.size
    child.parent, child.stage, child.source_sha256 = item.key, stage, item.source_sha256
    child.notes = [*(note for note in item.notes if not note.startswith("upscaled_")), f"stage_{stage}"]
    child.distance, child.measures = item.distance, {}
    child.boxes = [_moved(box, place) for box in item.boxes if holds(place, corners(box))]
    store.save(child)  # before its picture, which would else be taken for one of the user's after a kill
    data = encode(piece, child.path.suffix)
    if not child.path.exists() or child.path.read_bytes() != data:
        atomic_write(child.path, data)
    keep_alpha(child, store, loss_mask(replace(item, crop=place)))
    update_mask(child, store)
    return child


def remove(child: Item, store: Store) -> None:
    """Take a stage's picture away with all that was made for it; a caption written by hand stays."""
    child.path.unlink(missing_ok=True)
    if store.wrote(child.path, read_caption(child.path) or ""):
        caption_path(child.path).unlink(missing_ok=True)
    mask_path(child).unlink(missing_ok=True)
    keep_alpha(child, store, None)
    store.retouch(child, None)
    store.forget(child.key)


def is_orphan(child: Item, store: Store) -> bool:
    """Tell whether the picture that a stage was cut out of is gone."""
    parent = store.get(child.parent)
    return parent is None or not parent.path.exists()


def _moved(box: Box, place: Corners) -> Box:
    return replace(box, x0=box.x0 - place[0], y0=box.y0 - place[1], x1=box.x1 - place[0], y1=box.y1 - place[1])


def _keys(item: Item, stage: str) -> Iterator[str]:
    yield f"{item.key}-{stage}"
    yield from (f"{item.key}-{stage}-{n}" for n in range(2, TRIES + 1))


def _remembered(item: Item, stage: str, store: Store) -> Item | None:
    found = (store.get(key) for key in _keys(item, stage))
    return next((child for child in found if child and child.parent == item.key and child.stage == stage), None)


def _new(item: Item, stage: str, store: Store) -> Item:
    for key in _keys(item, stage):
        names = (store.folder / f"{key}{suffix}" for ending in READABLE for suffix in (ending, ending.upper()))
        if store.get(key) is None and not any(path.exists() for path in names):
            return Item(key, store.folder / f"{key}.png")
    raise UserError(f"{store.folder} holds {TRIES} pictures named {item.key}-{stage}; rename those that are not cut out of {item.path.name}")
