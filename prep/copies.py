"""Copies: compare two pictures closely enough to tell a copy, however it was changed, from another drawing of the same thing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageOps

from prep.overlay import Overlay, overlay, parts_changed
from prep.recolour import Colouring, colourings
from prep.similar import strongest

Corners = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels

SIDE = 256  # longer side at which two pictures are compared
FINE = 512  # and at which marks are looked for
ASPECT = 0.02  # relative difference of aspect ratio that rounding a size makes; twice that inside a border
# Side of a window in pixels at SIDE -> how far the means of two pictures in it may differ anywhere, in levels of 255.
# Recompressing and resizing change single pixels by much but no window's mean. Measured: copies of drawings and photographs
# (0.3 to 2 times the size, JPEG quality 40 to 95) at most 58, 26, 20; another mouth, eyebrow or eye colour at least 105, 65, 31.
WINDOWS = {5: 60.0, 9: 27.0, 17: 22.0}
# Recompressing changes a picture all over, a redrawn eyebrow in one place. So beyond FLOOR levels the largest difference may be at
# most SPREAD times the root mean square: copies reach 13, a subtly different eyebrow 24 and more.
FLOOR, SPREAD = 16.0, 14.0
FAR, FAR_SHARE = 16.0, 0.15  # if more of the picture differs by so many levels, no mark explains it
BORDER = 0.01  # share of the side that a border adds at least
DRIFT = 2.0  # pixels at SIDE by which the place of a border's edge may be wrong


@dataclass(frozen=True)
class Relation:
    """How two pictures that show the same differ; of 1 and 2, the first and the second, the one that was changed; 0 = neither."""

    mirrored: bool = False
    bordered: int = 0
    grey: int = 0
    recoloured: bool = False
    marked: int = 0
    sure: bool = True  # False: the difference may also be that of another drawing

    def turned(self) -> Relation:
        """Say the same of the second picture and the first."""
        other = (0, 2, 1)
        return replace(self, bordered=other[self.bordered], grey=other[self.grey], marked=other[self.marked])


@dataclass(frozen=True)
class View:
    """A picture and the part of it, mirrored perhaps, that is compared."""

    image: Image.Image
    frame: Corners
    mirrored: bool = False

    @property
    def size(self) -> tuple[int, int]:
        return round(self.frame[2] - self.frame[0]), round(self.frame[3] - self.frame[1])

    @property
    def margins(self) -> np.ndarray:
        """What lies outside the frame: left, top, right, bottom, as shares of the frame's sides."""
        x0, y0, x1, y1 = self.frame
        left, right = x0, self.image.width - x1
        if self.mirrored:
            left, right = right, left
        return np.array([left / (x1 - x0), y0 / (y1 - y0), right / (x1 - x0), (self.image.height - y1) / (y1 - y0)])

    def at(self, size: tuple[int, int]) -> np.ndarray:
        """Return the pixels in the frame at a size: (height, width, 3) float32."""
        image = self.image.resize(size, Image.Resampling.LANCZOS, box=self.frame)
        return np.asarray(ImageOps.mirror(image) if self.mirrored else image, np.float32)


def whole(image: Image.Image) -> View:
    """View all of a picture."""
    return View(image, (0, 0, *image.size))


def same_picture(a: Image.Image, b: Image.Image) -> bool:
    """Tell whether two RGB pictures are copies of each other, resized or recompressed perhaps, and not just alike."""
    size = _common_size(a.size, b.size, SIDE)
    return _within(whole(a).at(size) - whole(b).at(size))


def relation(a: View, b: View) -> Relation | None:
    """Say how the two parts of pictures differ if they show the same; None if they do not."""
    framed = a.frame != (0, 0, *a.image.size) or b.frame != (0, 0, *b.image.size)
    bordered = _bordered(a.margins - b.margins) if framed else 0
    if bordered is None or abs(np.log(a.size[0] * b.size[1] / (a.size[1] * b.size[0]))) > ASPECT * (1 + framed):
        return None
    size, fine = (_common_size(a.size, b.size, side) for side in (SIDE, FINE))
    shift = _drift(a.at(size), b.at(size)) if framed else np.eye(2, 3, dtype=np.float32)
    if shift is None:
        return None
    pair = _inner(_moved(a.at(size), shift), b.at(size), framed)
    for colouring in colourings(*pair):
        grey = colouring.name == "grey" and 2 - colouring.source
        base = Relation(b.mirrored != a.mirrored, bordered, int(grey), colouring.name in ("levels", "hue"), 0, colouring.sure)
        difference = _difference(pair, colouring)
        if _within(difference):
            return base
        if (strongest(np.abs(_window_means(difference, 5))) > FAR).mean() <= FAR_SHARE:
            scale = fine[0] / size[0]
            larger = _inner(_moved(a.at(fine), shift * np.array([1, 1, scale], np.float32)), b.at(fine), framed)
            mark = _marked(larger, colouring)
            if mark is not None:
                return Relation(base.mirrored, bordered, base.grey, base.recoloured, mark[0], base.sure and mark[1])
    return None


def _difference(pair: tuple[np.ndarray, np.ndarray], colouring: Colouring) -> np.ndarray:
    """Return by how much the second picture differs from what the colouring makes of the first, in levels of the plainer of the two."""
    start, target = pair[colouring.source], pair[1 - colouring.source]
    return (target - colouring.apply(start)) / np.float32(min(colouring.gain, 1.0))


def _marked(pair: tuple[np.ndarray, np.ndarray], colouring: Colouring) -> tuple[int, bool] | None:
    """Say which of two pictures, at FINE, has something laid over it and whether it is surely a mark; None if they differ otherwise."""
    pair = (pair[0], colouring.apply(pair[1])) if colouring.source else (colouring.apply(pair[0]), pair[1])
    tried = [(which, overlay(*(pair if which == 2 else pair[::-1]), mask)) for mask in parts_changed(*pair) for which in (2, 1)]
    found = [(which, over) for which, over in tried if over and over.thin and _nothing_else(over, min(colouring.gain, 1.0))]
    sure = [row for row in found if row[1].is_mark]
    if sure:
        return max(sure, key=lambda row: row[1].edges)[0], True
    return next(((which, False) for which, over in found if over.perhaps), None)


def _nothing_else(over: Overlay, gain: float) -> bool:
    """Tell whether what an overlay leaves unexplained comes from resizing and compression; around it, these leave more."""
    rest = _small(over.rest) / np.float32(gain)
    outside = _small(np.where(over.around[..., None], 0, over.rest)) / np.float32(gain)
    return _within(outside) and all(np.abs(_window_means(rest, side)).max() <= most for side, most in WINDOWS.items())


def _small(difference: np.ndarray) -> np.ndarray:
    """Return a difference at FINE as it would be at SIDE."""
    import cv2

    height, width = difference.shape[:2]
    factor = min(1.0, SIDE / max(height, width))
    return cv2.resize(difference, (max(round(width * factor), 1), max(round(height * factor), 1)), interpolation=cv2.INTER_AREA)


def _common_size(a: tuple[int, int], b: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the smaller of two sizes, scaled down so that the longer side of both is at most `side`."""
    scale = min(1.0, side / max(a), side / max(b))
    smaller = min(a, b, key=lambda size: size[0] * size[1])
    return max(round(smaller[0] * scale), 1), max(round(smaller[1] * scale), 1)


def _bordered(wider: np.ndarray) -> int | None:
    """Say which of two pictures has wider margins; None if each has on another side, as one that was shifted on plain ground."""
    first, second = wider.max() > BORDER, wider.min() < -BORDER
    return None if first and second else int(first) + 2 * int(second)


def _drift(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """Find how `a` must be moved and scaled to lie on `b`, as a matrix (2, 3) for cv2.warpAffine; None if by more than DRIFT."""
    import cv2

    height, width = b.shape[:2]
    shift = np.eye(2, 3, dtype=np.float32)
    x, y = np.meshgrid(np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32))
    target = cv2.blur(b.mean(axis=2), (5, 5))
    for _ in range(3):
        grey = cv2.blur(_moved(a, shift).mean(axis=2), (5, 5))
        across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=3) / 8, cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=3) / 8
        terms = np.stack([across, across * x, down, down * y, grey, np.ones_like(grey)], axis=-1).reshape(-1, 6)
        move = np.linalg.lstsq(terms.T @ terms + np.eye(6, dtype=np.float32), terms.T @ (target - grey).ravel(), rcond=None)[0]
        move[:4] = np.clip(move[:4], -2 * DRIFT, 2 * DRIFT)
        shift = shift + np.array([[2 * move[1] / width, 0, move[0] - move[1]], [0, 2 * move[3] / height, move[2] - move[3]]], np.float32)
    corners = np.array([[0, 0, 1], [width, height, 1]], np.float32)
    return None if np.abs(corners @ shift.T - corners[:, :2]).max() > DRIFT else shift


def _inner(a: np.ndarray, b: np.ndarray, framed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Leave out what may still be border along the edges."""
    inset = round(DRIFT * max(1, max(b.shape) / SIDE)) if framed else 0
    place = slice(inset, b.shape[0] - inset), slice(inset, b.shape[1] - inset)
    return a[place], b[place]


def _moved(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    import cv2

    if (shift == np.eye(2, 3)).all():
        return image
    size = image.shape[1], image.shape[0]
    return cv2.warpAffine(image, shift, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)


def _within(difference: np.ndarray) -> bool:
    """Tell whether differences (height, width, 3) are small enough, and spread well enough, to come from resizing and compression."""
    return all(_within_window(_window_means(difference, side), most) for side, most in WINDOWS.items())


def _within_window(means: np.ndarray, most: float) -> bool:
    peak, spread = np.abs(means).max(), np.sqrt((means**2).mean()) + 0.3
    return bool(peak <= min(most, max(FLOOR, SPREAD * spread)))


def _window_means(values: np.ndarray, side: int) -> np.ndarray:
    """Return the mean over each window of side x side pixels of an array (height, width, 3), edges repeated."""
    import cv2

    return cv2.blur(values, (side, side), borderType=cv2.BORDER_REPLICATE)
