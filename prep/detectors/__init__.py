"""Detectors: the table of models that find the subject of a picture, so that a crop never cuts it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from prep.options import load_object

if TYPE_CHECKING:
    from PIL import Image

    from prep.item import Box

# Name -> "module:function"; the function takes RGB pictures and gives the boxes of each, best first, in its pixels.
DETECTORS = {
    "face": "prep.detectors.face:find_faces",
    "none": "prep.detectors:find_nothing",
}


class Detector(Protocol):
    """What a row points at."""

    def __call__(self, images: Sequence[Image.Image]) -> list[list[Box]]: ...


@lru_cache
def detector(name: str) -> Detector:
    """Return the detector of that name; its model is loaded on first use."""
    return load_object(DETECTORS[name])


def find_nothing(images: Sequence[Image.Image]) -> list[list[Box]]:
    """Find nothing: for styles and objects, where a crop has to go by the picture's detail alone."""
    return [[] for _ in images]
