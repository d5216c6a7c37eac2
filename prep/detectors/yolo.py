"""YOLO detectors in ONNX (Ultralytics v8, 11 and 10, and RT-DETR) through onnxruntime, as deepghs exports them.

Contract: input float32 (1, 3, height, width), RGB, 0..1; the picture is resized without padding to the model's size, or, if that is
dynamic, shrunk to fit `imgsz` of the model's metadata with both sides rounded up to 32. Output, without its first axis, one of LAYOUTS.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from prep.item import Box
from prep.options import UserError, load_object

if TYPE_CHECKING:
    from prep.detectors import DetectorRow

LONGEST = 640  # of a dynamic model that does not say its size
STRIDE = 32
OPEN = "prep.taggers.sessions:open_session"

# Boxes as corners in shares or pixels of the input, the score and the class of each.
Found = tuple[np.ndarray, np.ndarray, np.ndarray]


class Yolo:
    """One model file; see `prep.detectors.Detector`."""

    def __init__(self, model: Path, row: DetectorRow, device: str = "auto") -> None:
        self.model, self.row, self.device = model, row, device

    @cached_property
    def session(self) -> Any:
        """The loaded model; raises UserError if it is no detector."""
        session = load_object(OPEN)(self.model, self.device)
        shape = session.get_inputs()[0].shape
        if len(shape) != 4 or shape[1] != 3:
            raise UserError(f"{self.model} takes input of shape {shape}, not (1, 3, height, width); it is not a YOLO detector")
        return session

    @cached_property
    def names(self) -> list[str]:
        """The classes in the model's order, from its metadata; raises UserError if it names none."""
        try:
            names = ast.literal_eval(self.session.get_modelmeta().custom_metadata_map["names"])
            return [str(names[index]) for index in range(len(names))]
        except (KeyError, IndexError, TypeError, ValueError, SyntaxError):
            raise UserError(f"{self.model} does not name its classes; export it anew with Ultralytics, which writes them into it") from None

    def __call__(self, images: Sequence[Image.Image]) -> list[list[Box]]:
        return [self._find(image) for image in images]

    def _find(self, image: Image.Image) -> list[Box]:
        width, height = self._size(image)
        pixels = np.asarray(image.convert("RGB").resize((width, height)), dtype=np.float32) / 255
        node = self.session.get_inputs()[0].name
        output = self.session.run([self.session.get_outputs()[0].name], {node: np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])})[0][0]
        corners, scores, classes = self._read(output, (width, height))
        likely = scores > self.row.threshold
        corners, scores, classes = corners[likely], scores[likely], classes[likely]
        kept = nms(corners, scores, self.row.iou)
        scale = np.array([image.width / width, image.height / height] * 2)
        placed = np.rint(np.clip(corners[kept] * scale, 0, [image.width, image.height] * 2)).astype(int)
        rows = zip(placed.tolist(), scores[kept].tolist(), classes[kept].tolist(), strict=True)
        boxes = [Box(self.row.label or self.names[kind], round(min(max(score, 0.0), 1.0), 4), *place) for place, score, kind in rows]
        return [box for box in boxes if box.x1 > box.x0 and box.y1 > box.y0]

    def _size(self, image: Image.Image) -> tuple[int, int]:
        """Return the width and height at which the model sees a picture."""
        height, width = self.session.get_inputs()[0].shape[2:]
        if isinstance(height, int) and isinstance(width, int):
            return width, height
        size = self.session.get_modelmeta().custom_metadata_map.get("imgsz")
        high, wide = json.loads(size) if size else (LONGEST, LONGEST)
        scale = min(wide / image.width, high / image.height, 1)
        across, down = (math.ceil(round(side * scale, 6) / STRIDE) * STRIDE for side in image.size)
        return max(across, STRIDE), max(down, STRIDE)

    def _read(self, output: np.ndarray, size: tuple[int, int]) -> Found:
        for fits, read in LAYOUTS:
            if output.ndim == 2 and fits(output, len(self.names)):
                return read(output, size)
        raise UserError(f"{self.model} gives {output.shape} numbers for {len(self.names)} classes, which is no known layout of a detector")


def corners_of(boxes: np.ndarray) -> np.ndarray:
    """Turn boxes (n, 4) of centre and size into corners x0, y0, x1, y1."""
    half = boxes[:, 2:4] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def nms(corners: np.ndarray, scores: np.ndarray, iou: float) -> list[int]:
    """Return which boxes (n, 4) to keep, best first: none overlaps a better one by more than `iou` (sides count their last pixel)."""
    low, high = corners[:, :2], corners[:, 2:4] + 1
    areas = (high - low).prod(axis=1)
    order, kept = np.argsort(-scores, kind="stable"), []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        shared = np.clip(np.minimum(high[best], high[rest]) - np.maximum(low[best], low[rest]), 0, None).prod(axis=1)
        order = rest[shared / (areas[best] + areas[rest] - shared) <= iou]
    return kept


def _end_to_end(output: np.ndarray, size: tuple[int, int]) -> Found:
    """Read (n, 6): corners in pixels, score, class."""
    return output[:, :4], output[:, 4], output[:, 5].astype(int)


def _columns(output: np.ndarray, size: tuple[int, int]) -> Found:
    """Read (4 + classes, n): centre and size in pixels, a score for each class."""
    return corners_of(output[:4].T), output[4:].max(axis=0), output[4:].argmax(axis=0)


def _shares(output: np.ndarray, size: tuple[int, int]) -> Found:
    """Read (n, 4 + classes): centre and size in shares of the picture, a score for each class."""
    return corners_of(output[:, :4]) * np.array(size * 2), output[:, 4:].max(axis=1), output[:, 4:].argmax(axis=1)


def _in_shares(output: np.ndarray) -> bool:
    return bool(output.size == 0 or np.abs(output[:, :4]).max() <= 2)  # a box in pixels is larger


# (does an output fit, given how many classes there are; how it is read). The first that fits wins.
LAYOUTS: tuple[tuple[Callable[[np.ndarray, int], bool], Callable[[np.ndarray, tuple[int, int]], Found]], ...] = (
    (lambda output, classes: output.shape[1] == 6 and not (classes == 2 and _in_shares(output)), _end_to_end),
    (lambda output, classes: output.shape[0] == 4 + classes, _columns),
    (lambda output, classes: output.shape[1] == 4 + classes, _shares),
)
