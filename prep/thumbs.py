"""Thumbs: whether a drawn picture shows anything, and whether it is one that is there already."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SIDE = 16  # of the thumbnails that are compared
# Levels (of 255) between the darkest and the brightest spot, of the channel where they differ most. Half precision that overflows and
# safety filters give one flat colour. Measured: 64 pictures of one prompt by the pocket base 165 and more.
BLANK = 8
# Mean levels by which two thumbnails differ. Measured: those 64 pictures 17.5 and more. Their JPEGs at quality 60 differ from them by up
# to 4.9, but nothing is drawn twice with such losses: what comes out twice is the same to a level or two.
DOUBLE = 4.0


@dataclass
class Thumbs:
    """The pictures there are, as thumbnails (SIDE, SIDE, 3)."""

    known: list[np.ndarray] = field(default_factory=list)

    def fault(self, image: Image.Image) -> str:
        """Say why a picture (RGB) is no use: "blank", "double", or "" if it is of use."""
        thumb = _thumb(image)
        if int((thumb.max(axis=(0, 1)) - thumb.min(axis=(0, 1))).max()) < BLANK:
            return "blank"
        if self.known and float(np.abs(np.stack(self.known) - thumb).mean(axis=(1, 2, 3)).min()) < DOUBLE:
            return "double"
        return ""

    def add(self, image: Image.Image) -> None:
        """Count a picture among those that are there."""
        self.known.append(_thumb(image))


def _thumb(image: Image.Image) -> np.ndarray:
    from PIL import Image as images

    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), images.Resampling.BOX), np.int16)
