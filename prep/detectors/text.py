"""Text by PaddleOCR's two models in ONNX: where lines of letters are (DBNet, Liao et al. 2020, arXiv:1911.08947) and what they say (CTC).

Contract of the first: float32 (1, 3, height, width), sides multiples of 32, ImageNet mean and deviation, blue first; output (1, 1, height,
width), each pixel's probability of text. Of the second: float32 (1, 3, 48, width) in -1..1, blue first; output (1, steps, characters),
with the characters in the metadata, a blank before and a space after them.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prep.detectors.faint import faint_layer
from prep.item import Box
from prep.options import UserError, load_object

OPEN = "prep.taggers.sessions:open_session"
DATA = Path(__file__).parent / "data"
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
SIDE = 960  # longer side at which the picture is looked at
# Longer side of the faint layers, and from how many levels a step is strong. Measured on two sets of 60 watermarks of 20-40 % opacity, share
# of which half the ink is found: (640, 40) alone 0.70 and 0.58, these two 0.72 and 0.63; the best other pair, (640, 40) and (960, 40), takes
# longer and gives 0.73 and 0.63.
FAINT = ((640, 40.0), (480, 60.0))
TEXT = 0.2  # probability from which a pixel is text
FOUND = 0.3  # least mean probability of a line
GROW = 1.5  # DBNet finds shrunken lines; they are grown by this times area over perimeter
THIN = 3  # pixels of the shrunken line's height below which there is nothing to read
HEIGHT, WIDTHS = 48, (320, 1600)  # of the second model's input
LEGIBLE = 0.5  # probability of the characters from which a line is letters at all
SAME = 0.5  # share of the smaller of two boxes from which they are one line

# Name -> what it is. Measured on 10 pictures with three marks each, side by side: embedded finds 0.95 of the opaque and 0.70 of the
# translucent marks, rapidocr's small models 1.00 and 0.80, in 2.0 times the time and 31 MB instead of 3.
ENGINES = {"embedded": "ships with the project, 3 MB", "rapidocr": "the larger models of the package rapidocr, extra ocr"}


@dataclass(frozen=True)
class Line:
    """A line of text: its corners in pixels, clockwise from the start; scores 0..1 of being text and of being read rightly."""

    corners: tuple[tuple[float, float], ...]
    found: float
    text: str = ""
    read: float = 0.0
    faint: bool = False  # seen when the strong edges are taken out, as only a translucent or pale line is

    @property
    def letters(self) -> int:
        """How many letters were read, digits not counted."""
        return sum(sign.isalpha() for sign in self.text)

    @property
    def height(self) -> float:
        """The shorter side of the line in pixels."""
        (x0, y0), (x1, y1), _, (x3, y3) = self.corners
        return min(math.hypot(x1 - x0, y1 - y0), math.hypot(x3 - x0, y3 - y0))

    def moved(self, x: float, y: float) -> Line:
        """Return the line that many pixels further to the right and down."""
        return replace(self, corners=tuple((left + x, top + y) for left, top in self.corners))

    def box(self, label: str, size: tuple[int, int]) -> Box:
        """Return the upright box around the line, inside a picture of that size."""
        xs, ys = zip(*self.corners, strict=True)
        x0, y0 = max(int(min(xs)), 0), max(int(min(ys)), 0)
        x1, y1 = min(int(np.ceil(max(xs))), size[0]), min(int(np.ceil(max(ys))), size[1])
        return Box(label, round(self.read, 4), x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))


@lru_cache
def reader(engine: str = "embedded", device: str = "auto") -> Reader:
    """Return the reader of that name or folder; its models are loaded on first use. Raises UserError if there are none."""
    return Reader(*_models(engine), device)


def find_text(images: Sequence[Image.Image]) -> list[list[Box]]:
    """Find the lines of text in each picture as boxes labelled "text"; see `prep.detectors.Detector`."""
    return [[line.box("text", image.size) for line in reader().lines(image)] for image in images]


class Reader:
    """The two models; `lines` reads a picture."""

    def __init__(self, finder: Path, recognizer: Path, device: str = "auto") -> None:
        self.paths, self.device = (finder, recognizer), device

    @cached_property
    def _finder(self) -> Any:
        return load_object(OPEN)(self.paths[0], self.device)

    @cached_property
    def _recognizer(self) -> Any:
        return load_object(OPEN)(self.paths[1], self.device)

    @cached_property
    def _signs(self) -> list[str]:
        """The characters by the index of the output; raises UserError if the model does not name them."""
        signs = self._recognizer.get_modelmeta().custom_metadata_map.get("character", "")
        if not signs:
            raise UserError(f"{self.paths[1]} does not name its characters; it is no text recognizer as rapidocr exports them")
        return ["", *signs.splitlines(), " "]

    def lines(self, image: Image.Image) -> list[Line]:
        """Read a picture, RGB, and its faint layers; a line that is seen in several counts once, as it is read best."""
        pixels = np.asarray(image.convert("RGB"))
        found = self._lines(_fitted(pixels, SIDE), image.size)
        for side, strong in FAINT:
            layer = faint_layer(_fitted(pixels, side), strong)
            found += [replace(line, faint=True) for line in self._lines(layer, image.size)]
        return _distinct(sorted(found, key=lambda line: (-line.read, -line.found)), image.size)

    def _lines(self, pixels: np.ndarray, size: tuple[int, int]) -> list[Line]:
        """Find and read the lines of pixels (height, width, 3) and place them in a picture of that size."""
        scale = size[0] / pixels.shape[1], size[1] / pixels.shape[0]
        lines = []
        for score, quad in _quads(self._probability(pixels)):
            text, read = self._read(_straight(pixels, quad))
            lines.append(Line(tuple((float(x * scale[0]), float(y * scale[1])) for x, y in quad), round(score, 4), text, round(read, 4)))
        return lines

    def _probability(self, pixels: np.ndarray) -> np.ndarray:
        values = (pixels[..., ::-1].astype(np.float32) / 255 - MEAN) / DEVIATION
        return self._run(self._finder, values)[0]

    def _read(self, strip: np.ndarray) -> tuple[str, float]:
        """Return what a straight strip says and the mean probability of its characters (greedy CTC: repeats and blanks fall away)."""
        import cv2

        width = int(np.clip(np.ceil(HEIGHT * strip.shape[1] / strip.shape[0]), 16, WIDTHS[1]))
        values = cv2.resize(np.ascontiguousarray(strip), (width, HEIGHT))[..., ::-1].astype(np.float32) / 127.5 - 1
        steps = self._run(self._recognizer, np.pad(values, ((0, 0), (0, max(WIDTHS[0] - width, 0)), (0, 0))))
        best = steps.argmax(axis=1)
        kept = (best != 0) & (best != np.concatenate([[-1], best[:-1]]))
        score = float(steps.max(axis=1)[kept].mean()) if kept.any() else 0.0
        return "".join(self._signs[index] for index in best[kept]), score

    @staticmethod
    def _run(session: Any, values: np.ndarray) -> np.ndarray:
        batch = np.ascontiguousarray(values.transpose(2, 0, 1)[None], dtype=np.float32)
        return session.run(None, {session.get_inputs()[0].name: batch})[0][0]


def _models(engine: str) -> tuple[Path, Path]:
    """Find the finder and the recognizer of an engine: a row of ENGINES, or a folder that holds one of each."""
    if engine == "embedded":
        return DATA / "ppocr_v6_tiny_det.onnx", DATA / "ppocr_v6_tiny_rec.onnx"
    folder = Path(engine)
    if engine == "rapidocr":
        package = importlib.util.find_spec("rapidocr")
        if package is None or package.origin is None:
            raise UserError("rapidocr is not installed; pip install 'lora-atelier[ocr]', or leave --ocr away for the embedded models")
        folder = Path(package.origin).parent / "models"
    finders, recognizers = (sorted(folder.glob(f"*{part}*.onnx")) for part in ("det", "rec"))
    if not finders or not recognizers:
        raise UserError(f"{folder} is no folder with a *det*.onnx and a *rec*.onnx of PaddleOCR; the engines are {', '.join(ENGINES)}")
    return finders[0], recognizers[0]


def _fitted(pixels: np.ndarray, side: int) -> np.ndarray:
    """Resize so that the longer side is `side` and both are multiples of 32."""
    import cv2

    scale = side / max(pixels.shape[:2])
    height, width = (max(32, round(length * scale / 32) * 32) for length in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _quads(probability: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Return the lines of a probability map: mean probability, and corners (4, 2) of the smallest tilted rectangle, grown."""
    import cv2

    contours, _ = cv2.findContours((probability > TEXT).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in contours:
        centre, (width, height), angle = cv2.minAreaRect(contour)
        if min(width, height) < THIN:
            continue
        x, y, wide, high = cv2.boundingRect(contour)
        inside = np.zeros((high, wide), np.uint8)
        cv2.drawContours(inside, [contour - (x, y)], -1, 1, -1)
        score = float(probability[y : y + high, x : x + wide][inside > 0].mean())
        grow = GROW * width * height / (width + height)  # twice the distance: it is added on both sides
        if score >= FOUND:
            found.append((score, _ordered(cv2.boxPoints((centre, (width + grow, height + grow), angle)))))
    return found


def _ordered(points: np.ndarray) -> np.ndarray:
    """Order corners clockwise from the upper one of the two leftmost."""
    points = points[np.argsort(points[:, 0], kind="stable")]
    left, right = (half[np.argsort(half[:, 1], kind="stable")] for half in (points[:2], points[2:]))
    return np.array([left[0], right[0], right[1], left[1]], np.float32)


def _straight(pixels: np.ndarray, quad: np.ndarray) -> np.ndarray:
    """Cut a tilted line out as an upright strip; a line that runs from top to bottom is laid on its side."""
    import cv2

    width = max(2, round(float(np.linalg.norm(quad[0] - quad[1]))))
    height = max(2, round(float(np.linalg.norm(quad[0] - quad[3]))))
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    turn = cv2.getPerspectiveTransform(quad, target)
    strip = cv2.warpPerspective(pixels, turn, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.rot90(strip) if height >= 1.5 * width else strip


def _distinct(lines: Iterable[Line], size: tuple[int, int]) -> list[Line]:
    """Keep the first of the lines that lie on the same place; it is faint if one of the others that can be read is."""
    kept: list[tuple[Line, Box]] = []
    for line in lines:
        box = line.box("", size)
        same = [index for index, (_, other) in enumerate(kept) if _shared(box, other) >= SAME]
        if not same:
            kept.append((line, box))
        elif line.faint and line.read >= LEGIBLE:
            kept[same[0]] = replace(kept[same[0]][0], faint=True), kept[same[0]][1]
    return [line for line, _ in kept]


def _shared(a: Box, b: Box) -> float:
    """Return the area common to two boxes as a share of the smaller one."""
    width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    smaller = min((box.x1 - box.x0) * (box.y1 - box.y0) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller
