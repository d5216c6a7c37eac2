"""Faces by BlazeFace short range (Bazarevsky et al. 2019, arXiv:1907.05047), the 229 KB model of MediaPipe, through OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from prep.item import Box

if TYPE_CHECKING:
    import cv2

MODEL = Path(__file__).parent / "data" / "blazeface_short_range.tflite"
SIDE = 128  # of the model's input
MIN_SCORE = 0.5  # drawn faces score 0.59-0.89, most pictures without a face stay below 0.3
OVERLAP = 0.3  # share of two boxes from which they are one face
GRIDS = ((16, 2), (8, 6))  # cells a side, anchors a cell: 896 in all


def find_faces(images: Sequence[Image.Image]) -> list[list[Box]]:
    """Find the faces of each RGB picture, best first, in its pixels.

    The model looks at the whole picture at 128 x 128, so a face should be at least a tenth of the picture's longer side.
    """
    return [_faces(image) for image in images]


def _faces(image: Image.Image) -> list[Box]:
    side = max(image.size)
    left, top = (side - image.width) // 2, (side - image.height) // 2
    square = Image.new("RGB", (side, side))
    square.paste(image, (left, top))
    scores, boxes = _run(square.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    found = []
    for index in _best(scores, boxes):
        x0, y0, x1, y1 = np.rint(boxes[index] * side).astype(int) - (left, top, left, top)
        x0, x1 = (int(np.clip(x, 0, image.width)) for x in (x0, x1))
        y0, y1 = (int(np.clip(y, 0, image.height)) for y in (y0, y1))
        if x1 > x0 and y1 > y0:
            found.append(Box("face", round(float(scores[index]), 4), x0, y0, x1, y1))
    return found


def _run(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the score (896,) and the corners (896, 4) as shares of the square that each anchor gives."""
    model = net()
    pixels = (np.asarray(image, dtype=np.float32) - 127.5) / 127.5
    model.setInput(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
    logits, offsets = model.forward(["classificators", "regressors"])
    offsets = offsets.reshape(-1, 16)  # centre and size in input pixels, then six landmarks
    centre = anchors() + offsets[:, :2] / SIDE
    half = offsets[:, 2:4] / SIDE / 2
    return 1 / (1 + np.exp(-np.clip(logits.ravel(), -50, 50))), np.concatenate([centre - half, centre + half], axis=1)


@cache
def net() -> cv2.dnn.Net:
    import cv2

    # Bytes, not a path: OpenCV opens no path with letters beyond Windows' own code page.
    return cv2.dnn.readNetFromTFLite(np.frombuffer(MODEL.read_bytes(), dtype=np.uint8))


@cache
def anchors() -> np.ndarray:
    """Return the centres (896, 2) as shares of the square, in the order of the model's outputs."""
    rows = []
    for cells, anchors in GRIDS:
        y, x = np.divmod(np.arange(cells * cells), cells)
        rows.append(np.repeat((np.stack([x, y], axis=1) + 0.5) / cells, anchors, axis=0))
    return np.concatenate(rows)


def _best(scores: np.ndarray, boxes: np.ndarray) -> list[int]:
    """Return the anchors that see a face, best first, one for each face (non-maximum suppression)."""
    order = [int(index) for index in np.argsort(-scores, kind="stable") if scores[index] >= MIN_SCORE]
    kept: list[int] = []
    for index in order:
        if all(_overlap(boxes[index], boxes[other]) < OVERLAP for other in kept):
            kept.append(index)
    return kept


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Return the intersection of two boxes over their union."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(width, 0) * max(height, 0)
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared + 1e-12))
