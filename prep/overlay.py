"""Overlay: tell text, a signature or a watermark laid over a picture from a part of it that was drawn anew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prep.similar import strongest

# A mark is one ink over the unchanged picture; where something is redrawn the old is gone as well, which no ink explains.
# Measured on 26 pictures, JPEG quality 40 to 95: see tests/prep/test_copies.py and benchmarks/dedup.py.
EXPLAINED = 0.85  # share of the difference that one ink explains, at least; small text in a JPEG of quality 40 has 0.85 to 0.93
SURELY = 0.93  # and of anything else: half a bow tie below a scarf has 0.91
LONG, STRETCHED = 4.0, 4.0  # strokes that are so long for their width, in a box so long for its height, are text
STRIP = 0.125  # marks at the edge reach 0.09 of the side into the picture, with their blur 0.11
WIDEST = 0.08  # of a stroke, as a share of the longer side: marks up to 0.073, glasses 0.05, hats and flowers 0.1 and more
LEAST_INSET = 0.004  # a mark does not run out of the picture; a necktie does
LEAST_SPAN = 0.09  # of the box around a mark at the edge: half a bow tie below a scarf has 0.07, as have the smallest signatures
OPACITY, EVENNESS, THROUGH, SPAN = 0.6, 0.45, 10.0, 0.35  # of a watermark; a repainted eye is as even, but has one colour under it (4)
TRANSLUCENT = 0.88  # share that one ink explains of a watermark
LARGEST = 0.12  # share of the picture
ADDS = 8.0  # levels a pixel of edges that opaque strokes add: glasses and marks 13 and more, blush 6
STEEP = 0.3  # pixels by which an edge may have moved
AROUND = 11  # pixels: so much around what differs clearly may differ faintly


@dataclass(frozen=True)
class Overlay:
    """What one picture has over another that is unchanged below."""

    explained: float  # share of the difference that one ink over the picture explains
    rest: np.ndarray  # (height, width, 3) what it does not explain, in levels
    around: np.ndarray  # (height, width) bool, where it lies and a little more
    area: float  # share of the picture that it covers
    opacity: float  # of the ink, median
    evenness: float  # quartile distance of the opacity over its median: small for a translucent layer
    through: float  # standard deviation, in levels, of what lies under it
    width: float  # of the widest stroke, as a share of the longer side
    strip: float  # how far from the nearest edge it reaches into the picture, as a share of the side across
    inset: float  # how far from the edge what differs most begins, as a share of the side across
    span: float  # longer side of the box around what differs most, as a share of the longer side
    stretch: float  # longer side of that box over its shorter side
    edges: float  # how much more edge there is where it lies, levels a pixel

    @property
    def thin(self) -> bool:
        """One ink in thin strokes: a mark, or glasses, or a scar."""
        return self.width <= WIDEST and self.area <= LARGEST

    @property
    def is_mark(self) -> bool:
        """Nothing but a mark: thin, added, and at the edge of the picture, or translucent with the picture showing through."""
        text = self.area >= LONG * self.width**2 and self.stretch >= STRETCHED
        clear = self.explained >= SURELY and self.span >= LEAST_SPAN
        at_edge = self.strip <= STRIP and self.inset >= LEAST_INSET and (text or clear)
        even = self.opacity <= OPACITY and self.evenness <= EVENNESS and self.through >= THROUGH and self.span >= SPAN
        even = even and (self.strip > STRIP or self.inset >= LEAST_INSET)  # clothes run out of the picture
        return self.thin and self.edges > 0 and (at_edge or (even and self.explained >= TRANSLUCENT))

    @property
    def perhaps(self) -> bool:
        """It may be a mark: thin strokes that were added."""
        return self.thin and self.explained >= SURELY and self.edges >= ADDS


def parts_changed(clean: np.ndarray, marked: np.ndarray) -> list[np.ndarray]:
    """Return where two pictures (height, width, 3) differ by more than resizing and compression make them, as masks (height, width).

    The first mask holds the parts that lie in the outer strip, where marks are mostly put, the second all parts; none is empty.
    """
    import cv2

    away = cv2.blur(strongest(np.abs(cv2.blur(marked - clean, (3, 3)))), (3, 3))
    noise = float(np.median(away))
    above = away - STEEP * cv2.dilate(np.minimum(_slopes(clean), _slopes(marked)), np.ones((7, 7)))
    weak = (above > max(6.0, 3 * noise)).astype(np.uint8)
    count, labels, stats, centres = cv2.connectedComponentsWithStats(weak, connectivity=8)
    strong, fair = (_having(labels, above > max(least, times * noise), count) for least, times in ((20.0, 5), (10.0, 4)))
    if not strong.any():
        return []
    x, y, w, h, _ = stats[strong].T  # what is fainter belongs to them if it lies among them
    among = ((centres >= (x.min(), y.min())) & (centres <= ((x + w).max(), (y + h).max()))).all(axis=1)
    keep = (strong | (fair & among)) & (stats[:, cv2.CC_STAT_AREA] >= 6)
    inside = _having(labels, _inset(weak.shape) > STRIP, count)
    return [mask for mask in ((keep & ~inside)[labels], keep[labels]) if 0 < mask.mean() <= LARGEST]


def _having(labels: np.ndarray, where: np.ndarray, count: int) -> np.ndarray:
    """Tell which of the labelled parts, the ground (0) not, have a pixel in a mask."""
    having = np.zeros(count, bool)
    having[np.unique(labels[where])] = True
    having[0] = False
    return having


def _inset(shape: tuple[int, ...]) -> np.ndarray:
    """Return how far each pixel lies from the nearest edge, as a share of the side across: (height, width)."""
    rows, columns = (np.minimum(np.arange(side), side - 1 - np.arange(side)) / side for side in shape)
    return np.minimum(rows[:, None], columns[None, :])


def overlay(clean: np.ndarray, marked: np.ndarray, mask: np.ndarray) -> Overlay | None:
    """Suppose that `marked` is `clean` with one ink over it where `mask` (height, width) is True, and measure it; None if that cannot be."""
    import cv2

    around = cv2.dilate(mask.astype(np.uint8), np.ones((AROUND, AROUND))) > 0
    explained, opacity, rest = _one_ink(clean, marked, mask, around)
    if explained < EXPLAINED:
        return None
    strength = strongest(np.abs(marked - clean))
    core = mask & (strength >= np.median(strength[mask]))
    low, middle, high = np.quantile(opacity[core], (0.25, 0.5, 0.75))
    rows, columns = (np.quantile(places, (0.02, 0.98)) for places in np.nonzero(core))  # without the noise of compression
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)
    return Overlay(
        explained=explained,
        rest=rest,
        around=around,
        area=float(mask.mean()),
        opacity=float(middle),
        evenness=float((high - low) / max(middle, 0.01)),
        through=float(clean[core].mean(axis=1).std()),
        width=float(2 * distance.max() / max(mask.shape)),
        inset=float(_inset(mask.shape)[core].min()),
        strip=float(_inset(mask.shape)[mask].max()),
        span=float(max(np.ptp(rows), np.ptp(columns)) / max(mask.shape)),
        stretch=float(max(np.ptp(rows), np.ptp(columns)) / max(min(np.ptp(rows), np.ptp(columns)), 1)),
        edges=float(_slopes(marked)[mask].mean() - _slopes(clean)[mask].mean()),
    )


def _slopes(image: np.ndarray) -> np.ndarray:
    """Return the steepest slope of any channel at each pixel, in levels a pixel: (height, width)."""
    import cv2

    across, down = (strongest(np.abs(cv2.Sobel(image, cv2.CV_32F, dx, 1 - dx, ksize=3))) / 8 for dx in (1, 0))
    return np.maximum(across, down)


def _one_ink(clean: np.ndarray, marked: np.ndarray, mask: np.ndarray, around: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Find the ink that explains most of the difference in the mask: at each pixel, opacity times (ink - what lies under it).

    Returns the share explained, of the squares, and for the pixels `around` the opacity (height, width) and what is left of the
    difference (height, width, 3), which elsewhere is left whole.
    """
    difference = marked - clean
    total = max(_squares(difference[mask]), 1.0)
    under, wanted = clean[mask], difference[mask]
    inks = _inks(under, wanted, marked[mask])
    left = [_squares(_without(ink, under, wanted)[1]) for ink in inks]
    opacities = np.zeros(mask.shape)
    opacities[around], difference[around] = _without(inks[int(np.argmin(left))], clean[around], difference[around])
    return 1 - min(left) / total, opacities, difference


def _squares(values: np.ndarray) -> float:
    return float(np.vdot(values, values))


def _without(ink: np.ndarray, under: np.ndarray, difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the opacity (pixels,) with which an ink explains a difference (pixels, 3) best, and what it leaves of it."""
    towards = ink - under
    along, length = (np.einsum("ij,ij->i", one, towards) for one in (difference, towards))
    opacity = np.clip(along / np.maximum(length, 1.0), 0, 1)
    return opacity, difference - opacity[:, None] * towards


def _inks(under: np.ndarray, difference: np.ndarray, over: np.ndarray) -> list[np.ndarray]:
    """Return the colours that an ink may have: black, grey, white, what is seen where most differs, and that if it were translucent."""
    strength = strongest(np.abs(difference))
    top = strength >= np.quantile(strength, 0.9)
    seen, step, base = (np.median(values[top], axis=0) for values in (over, difference, under))
    room = np.where(step > 0, 255 - base, base) / np.maximum(np.abs(step), 0.1)  # how often the step fits before a channel is cut off
    return [*(np.full(3, level, np.float32) for level in (0, 128, 255)), seen, np.clip(base + step * min(float(room.min()), 10.0), 0, 255)]
