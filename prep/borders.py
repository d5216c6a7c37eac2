"""Borders: find the picture inside uniform borders and letterboxes, to the pixel, and leave flat backgrounds alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

Corners = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, x1 and y1 exclusive
THINNEST = 2  # pixels; a narrower line may be the picture's own
ALONE = 0.03  # share of the picture that a border on one side only must have
LARGEST = 0.5  # and may have: a plain sky may be larger
NOISE, PLAIN = 20, 3  # levels by which the outermost line may differ from its own colour; and that of a border on one side only
DUST = 0.02  # share of the pixels of a noisy border's line that may differ by more
# Share of the line next to a border that must differ from it, on two opposite sides, then on the other two: a subject on a plain
# ground touches in fewer places. Measured: the weaker of two opposite sides reaches 0.55 in 2,000 drawings (upright twin tails); a
# photograph that fades into its black border has 0.58, and is trimmed there only if its other two sides are clear.
FULL, LESS = 0.6, 0.3
STRONG, FULLER = 12, 0.9  # levels by which it must differ where the border is on one side only, and in what share of the line
RINGING = 24  # lines beside an edge over which JPEG (16 where colour has half the resolution) and resizing spread it, and some more
RINGS = 40  # levels by which pixels of those lines differ at most: a subject's outline differs in few pixels, but by more
JUMP = 2.0  # how many times more than the line before it the first line of the picture differs from the border
LAYERS = 4  # borders around borders that are looked for
LUMA = np.array((0.299, 0.587, 0.114), dtype=np.float32)  # ITU-R BT.601, as in JPEG; colour is stored there at half the resolution


@dataclass(frozen=True)
class Border:
    """What lies along one side: its width in pixels (0 = none), what share of the next line differs, and whether it may stand alone."""

    width: int
    across: float = 0.0
    alone: bool = False


def content_box(image: Image.Image) -> Corners:
    """Return the part of an RGB picture inside its uniform borders; all of it if it has none.

    A border is a band of one colour that ends in a straight line across the whole picture, on two opposite sides (or more), or on one
    side if it is wide. Exact where the border is of one colour; within a pixel in a JPEG of quality 80 and more, if it is wider than
    16 pixels and not nearly of the picture's own colour.
    """
    pixels = np.asarray(image)
    box: Corners = (0, 0, image.width, image.height)
    for _ in range(LAYERS):
        inner = _inside(pixels[box[1] : box[3], box[0] : box[2]])
        if inner is None:
            break
        box = (box[0] + inner[0], box[1] + inner[1], box[0] + inner[2], box[1] + inner[3])
    return box


def _inside(pixels: np.ndarray) -> Corners | None:
    """Return the part inside the outermost border, None if there is none; pixels (height, width, 3)."""
    if min(pixels.shape[:2]) < 4 * THINNEST:
        return None
    lines = [_colour(line) for line in (pixels[0], pixels[:, -1], pixels[-1], pixels[:, 0])]
    tried: list[list[int | None]] = []
    for line in lines:
        if line is None:
            continue
        noises = [other[1] if other and np.abs(other[0] - line[0]).max() <= max(line[1], 2) else None for other in lines]
        if noises not in tried:
            tried.append(noises)
            found = _between(pixels, line[0], noises)
            if found:
                return found
    return None


def _colour(line: np.ndarray) -> tuple[np.ndarray, int] | None:
    """Return the colour (3,) int and the noise, in levels, of a uniform line (n, 3); None if it is not uniform."""
    colour = np.median(line, axis=0).astype(np.int16)
    away = np.abs(line - colour).max(axis=1)
    noise = int(np.quantile(away, 1 - DUST / 2, method="higher"))
    return (colour, max(noise, int(away.max() > 0))) if noise <= NOISE else None


def _between(pixels: np.ndarray, colour: np.ndarray, noises: list[int | None]) -> Corners | None:
    """Return what is inside a border of that colour; None if there is none.

    `noises` has the levels of noise of the sides (top, right, bottom, left) whose outermost line has that colour, None for the others.
    """
    import cv2

    noise = max(value for value in noises if value is not None)
    tolerance = noise + 2 if noise else 0
    low, high = (tuple(int(value) for value in np.clip(colour + shift, 0, 255)) for shift in (-tolerance, tolerance))
    equal = cv2.inRange(pixels, low, high)  # type: ignore[call-overload]
    sums = (cv2.reduce(equal, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel() for axis in (1, 0))
    rows, columns = (_extent(1 - line / (255 * length), DUST if noise else 1e-9) for line, length in zip(sums, equal.shape[::-1], strict=True))
    if rows is None or columns is None:
        return None
    height, width = pixels.shape[:2]
    outer = (rows[0], width - columns[1], height - rows[1], columns[0])
    starts = [0 if own is None else start for start, own in zip(outer, noises, strict=True)]
    # Each side turned to the top, its ends, which are other sides' borders, cut off.
    upright = pixels[:, starts[3] : width - starts[1]]
    turned = pixels[starts[0] : height - starts[2]].transpose(1, 0, 2)
    views = (upright, turned[::-1], upright[::-1], turned)
    found = [_border(lines, colour, start, noise) for lines, start in zip(views, starts, strict=True)]
    top, right, bottom, left = _counted(found, noises, (height, width))
    return (left, top, width - right, height - bottom) if top or right or bottom or left else None


def _extent(shares: np.ndarray, most: float) -> tuple[int, int] | None:
    """Return from where to where lines differ from the border, each in more than a share of its pixels; None if none does."""
    found = np.flatnonzero(shares > most)
    return (int(found[0]), int(found[-1]) + 1) if len(found) else None


def _border(lines: np.ndarray, colour: np.ndarray, start: int, noise: int) -> Border:
    """Measure the border along the first of the lines (n, length, 3); `start` is the first that differs at all.

    JPEG and resizing make lines before the edge differ too, but faintly: the edge is where lines begin to differ half as much as they do
    further in, if they begin to at once. Brightness alone tells where, unless border and picture are equally bright.
    """
    if start == 0:
        return Border(0)
    away = lines[start : start + RINGING].astype(np.int16) - colour
    light, any_channel = np.abs(away @ LUMA), np.abs(away).max(axis=2)
    means = light.mean(axis=1)
    means = means if means.max() > STRONG else any_channel.mean(axis=1)
    edge = int(np.argmax(means >= np.quantile(means, 0.75) / 2))
    if edge and (means[edge] < JUMP * means[edge - 1] or (light[:edge] > RINGS).mean(axis=1).max() > DUST):
        edge = 0
    next_to = any_channel[edge : edge + 2]
    if start + edge < THINNEST:
        return Border(0)
    across, strongly = (float((next_to > least).mean(axis=1).max()) for least in (noise, STRONG))
    return Border(start + edge, across, noise <= PLAIN and strongly >= FULLER)


def _counted(borders: list[Border], noises: list[int | None], size: tuple[int, int]) -> list[int]:
    """Return the widths of those that count: beside two opposite ones all that end in a line, else one that may stand alone."""
    sound = [border.width > 0 and border.across >= FULL for border in borders]
    if any(sound[side] and sound[side + 2] for side in (0, 1)):
        plain = (noise is not None and noise <= PLAIN for noise in noises)
        return [border.width if border.across >= (LESS if is_plain else FULL) else 0 for border, is_plain in zip(borders, plain, strict=True)]
    alone = (border.alone and ALONE <= border.width / size[side % 2] <= LARGEST for side, border in enumerate(borders))
    return [border.width if counts else 0 for border, counts in zip(borders, alone, strict=True)]
