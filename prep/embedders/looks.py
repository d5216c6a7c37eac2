"""Looks: what an embedder looks at in each picture, done once and kept, and whether there is anybody in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image, ImageStat

from prep.boxes import Corners, area, common, kept_part, people
from prep.detectors import detector
from prep.embedders.kept import VectorStore
from prep.images import load
from prep.item import Item
from prep.scores import picture_key
from prep.step import batched

if TYPE_CHECKING:
    from prep.embedders.traits import Traits

STAMP = "identity"  # says which file was looked at, so that it need not be decoded again
PERSONS = ("person", "half", "head", "face")
BATCH = 16


@dataclass(frozen=True)
class View:
    """What of a picture counts: the file, and the part of it if not all."""

    path: Path
    key: str  # prep.scores.picture_key
    place: Corners | None

    def image(self) -> Image.Image:
        """Decode it; raises PictureError."""
        image = load(self.path)
        return image.crop(self.place) if self.place else image


def view_of(item: Item) -> View:
    """Say what of a picture counts: what earlier steps keep of it, and where there are several people the main one.

    Decodes a picture that is new or has changed; raises PictureError.
    """
    stat = item.picture.stat()
    state = f"{stat.st_size}-{stat.st_mtime_ns}"
    if item.stamps.get(STAMP) != state or not item.picture_digest:
        item.see(load(item.picture))
        item.stamps[STAMP] = state
    size = item.width, item.height
    place = kept_part(item, size)
    found = [inside for _, body in people([box for box in item.boxes if box.label in PERSONS], size) if area(inside := common(body, place))]
    if len(found) > 1:
        place = found[0]
    part = None if place == (0, 0, *size) else place
    return View(item.picture, picture_key(item.picture_digest, part), part)


class Looker(Protocol):
    """What `vectors` needs of an embedder."""

    @property
    def version(self) -> str: ...

    def embed(self, images: Sequence[Image.Image]) -> list[np.ndarray]: ...


def vectors(views: Sequence[View], looker: Looker, hidden: Path) -> list[np.ndarray]:
    """Return each view's vector, those that are kept in the hidden folder without looking; the others are kept as they come."""
    if not views:
        return []  # the looker need not even be found
    with VectorStore.open(hidden) as store:
        known = store.get(looker.version, {view.key for view in views})
        new = {view.key: view for view in views if view.key not in known}
        for batch in batched(new.values(), BATCH):
            found = looker.embed([view.image() for view in batch])
            made = {view.key: vector for view, vector in zip(batch, found, strict=True)}
            store.put(looker.version, made)
            known |= made
    return [known[view.key] for view in views]


class FaceLook:
    """Whether there is a face, as a vector of one number; BlazeFace looks three times, as it wants a face of a certain size."""

    version = "face look 1"
    # Measured: of 200 drawings of the pocket world one look finds a face in 164, three in 192; what is missed wears sunglasses or an
    # eyepatch. Of 24 pictures of scikit-image without a face three looks find one in 5: a cat (twice there), a colour wheel, a
    # phantom, a motorcycle.
    zooms = (1.0, 0.75, 1.4)

    def embed(self, images: Sequence[Image.Image]) -> list[np.ndarray]:
        return [np.array([any(detector("face")([_zoomed(image, zoom)])[0] for zoom in self.zooms)], np.float32) for image in images]


def _zoomed(image: Image.Image, zoom: float) -> Image.Image:
    """Return the middle of a picture, `zoom` times as wide and high as all of it; around it lies its mean colour, which has no edges."""
    size = max(round(image.width * zoom), 1), max(round(image.height * zoom), 1)
    colour = tuple(round(level) for level in ImageStat.Stat(image).mean)
    canvas = Image.new("RGB", size, colour)
    canvas.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return canvas


def presence(items: Sequence[Item], views: Sequence[View], tagger: Traits, hidden: Path) -> list[bool | None]:
    """Say of each picture whether somebody is in it: by its boxes, else by a face, else by the tagger; None if that one cannot tell."""
    found: list[bool | None] = [True if any(box.label in PERSONS for box in item.boxes) else None for item in items]
    asked = [index for index, there in enumerate(found) if there is None]
    for index, look in zip(asked, vectors([views[index] for index in asked], FaceLook(), hidden), strict=True):
        found[index] = True if look[0] else None
    asked = [index for index, there in enumerate(found) if there is None]
    for index, scores in zip(asked, vectors([views[index] for index in asked], tagger, hidden), strict=True):
        found[index] = tagger.somebody(scores)
    return found
