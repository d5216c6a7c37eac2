"""Quality: numbers that say how fit a picture is to learn from, and the limits beyond which it is set aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from prep.blocks import blockiness
from prep.borders import content_box
from prep.item import Box

__all__ = ["LIMITS", "Limit", "content_box", "faults", "measure"]

SIDE = 256  # shorter side of the copy that is measured: the same for all, so that a picture's size does not count
AREA = 4 * SIDE * SIDE  # most pixels of that copy, for very long pictures
SPOTS = 64  # longer side of the copy on which a picture that shows nothing is known
REBLUR = 1.0  # sigma in pixels of the copy by which it is blurred once more
STEEPEST = 0.03  # share of the pixels, those at the strongest edges, by which sharpness is judged
EDGE = 4  # pixels at the copy's rim that resizing has made up
BOX = 24  # pixels of the copy that a subject's box must have on each side to be judged by itself
WHITE, COLOUR = 248, 232  # levels: all channels from WHITE on are white, one there and another below COLOUR is a blown colour
DARK = 100  # levels: what white becomes three stops darker is 99
# Share of the rim of white areas in which one channel ends before the others: little in paper, much in light. Measured: drawings with a
# white ground 0.00-0.04, the same as JPEG at quality 60 up to 0.02, ten colour photographs three stops too bright 0.08-0.79.
RIM = (0.05, 0.1)


@dataclass(frozen=True)
class Limit:
    """A row: which measure may not go beyond which default, on which side, and what is said then. None = not looked at unless asked."""

    measure: str
    option: str
    default: float | None
    above: bool  # True: more than the limit is a fault; False: less is
    reason: str
    sentence: str  # with {value}, {limit}

    def broken(self, value: float, limit: float | None) -> bool:
        """Tell whether a value is a fault; a limit of None or 0 is none."""
        return bool(limit) and (value > limit if self.above else value < limit)  # type: ignore[operator]


# In the order in which they are looked at: the first fault is the one that is told. Clean = the 19 photographs of scikit-image and
# scikit-learn and 300 drawings of the pocket world, as they are and as JPEG of quality 60, 75 and 90. The limits were chosen on these.
LIMITS = (
    Limit("side", "min_side", 200, False, "too_small", "the shorter side has {value:.0f} pixels, it should have {limit:.0f}"),
    Limit("megapixels", "min_megapixels", None, False, "too_small", "it has {value:.2f} megapixels, it should have {limit:g}"),
    # Measured: clean 87 levels at least, one colour with grain of 6 levels and JPEG noise at most 6.
    Limit("contrast", "min_contrast", 8, False, "empty", "its tones differ by {value:.0f} of 255 levels, they should by {limit:g} or more"),
    # Measured: clean 0.27 to 0.47, but 0.97 and 0.84 in two soft micrographs (cell, microaneurysms), which are false alarms; blurred by 1 %
    # of the side 0.82 and more.
    Limit("blur", "max_blur", 0.7, True, "blurred", "its sharpest edges are {value:.2f} % of the shorter side wide, the limit is {limit:g} %"),
    # Measured: clean 0.08 at most; three stops more finds 5 of 10 colour photographs (0.61-0.92), not the dark ones, and none of 9 grey ones.
    Limit("overexposed", "max_overexposed", 0.5, True, "overexposed", "{value:.0%} of it is blown out, the limit is {limit:.0%}"),
    # Measured: clean 0.978 at most (the deep field of stars); all at three stops less 1.0.
    Limit(
        "underexposed",
        "max_underexposed",
        0.995,
        True,
        "underexposed",
        "{value:.1%} of it is darker than a white three stops down, the limit is {limit:.1%}",
    ),
    # Measured: clean 0.91 at most; quality 20 2.5 to 2.9, quality 15 3.3 to 3.9, quality 10 4.9 to 5.9.
    Limit("blockiness", "max_blockiness", 3.2, True, "blocky", "JPEG rounded it {value:.1f} times as coarsely as quality 50, the limit is {limit:g}"),
    Limit(
        "chroma", "min_chroma", None, False, "monochrome", "its strongest colours are {value:.0f} levels from grey, they should be {limit:g} or more"
    ),
)


def measure(image: Image.Image, boxes: Sequence[Box] = ()) -> dict[str, float]:
    """Measure an RGB picture; blur inside the best of `boxes` (in its pixels) if that is large enough.

    side          pixels of the shorter side
    megapixels    millions of pixels
    contrast      levels between the darkest and the brightest spot, of the channel where they differ most
    blur          sigma of the sharpest edges in percent of the shorter side; the same at any size
    overexposed   share of pixels that are blown out, 0..1; 0 for grey pictures, in which paper and light look alike
    underexposed  share of pixels darker than white is three stops down, 0..1
    blockiness    how coarsely JPEG rounded it, 1 = as at quality 50; 0 = not noticeably
    chroma        levels between the highest and the lowest channel, 98th percentile: about 0 for grey
    """
    copy = _copy(image)
    red, green, blue = copy.split()
    low = np.asarray(ImageChops.darker(ImageChops.darker(red, green), blue))
    high = np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue))
    grey = np.asarray(copy.convert("L"))
    values = {
        "side": min(image.size),
        "megapixels": image.width * image.height / 1e6,
        "contrast": _contrast(copy),
        "blur": _blur(grey, _region(image, copy, boxes)),
        "overexposed": _overexposed(low, high),
        "underexposed": float((grey <= DARK).mean()),
        "blockiness": blockiness(image.convert("L")),
        "chroma": _percentile(high - low, 0.98),
    }
    return {name: round(float(value), 4) for name, value in values.items()}


def faults(measures: Mapping[str, float], limits: Mapping[str, float | None]) -> tuple[str, str] | None:
    """Return (reason, sentence with the numbers) of the first limit that a picture breaks; None if it breaks none.

    `limits` has the options by name (see LIMITS); one that is None, 0 or not there is off.
    """
    for row in LIMITS:
        value, limit = measures.get(row.measure), limits.get(row.option)
        if value is not None and row.broken(value, limit):
            return row.reason, row.sentence.format(value=value, limit=limit)
    return None


def _copy(image: Image.Image) -> Image.Image:
    """Return the picture at the size at which all are measured."""
    scale = min(SIDE / min(image.size), (AREA / (image.width * image.height)) ** 0.5)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    return image.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC, reducing_gap=2.0)


def _region(image: Image.Image, copy: Image.Image, boxes: Sequence[Box]) -> tuple[slice, slice]:
    """Return rows and columns of the copy in which sharpness is judged: the best box's, else all but the rim."""
    if boxes:
        best, scale = max(boxes, key=lambda box: box.score), copy.width / image.width
        x0, y0, x1, y1 = (round(side * scale) for side in (best.x0, best.y0, best.x1, best.y1))
        if min(x1 - x0, y1 - y0) >= BOX:
            return slice(max(y0, 0), y1), slice(max(x0, 0), x1)
    return slice(EDGE, max(copy.height - EDGE, EDGE + 1)), slice(EDGE, max(copy.width - EDGE, EDGE + 1))


def _blur(grey: np.ndarray, region: tuple[slice, slice]) -> float:
    """Return the sigma of the strongest edges in percent of SIDE; 0 for a picture without edges.

    Blurred by another sigma r, an edge of sigma s loses slope by the factor sqrt(1 + (r / s)^2) (Zhuo & Sim 2011,
    doi:10.1016/j.patcog.2011.03.009), so that the ratio of the two slopes tells s.
    """
    import cv2

    sharp = grey.astype(np.float32)
    before, after = (_slopes(values)[region] for values in (sharp, cv2.GaussianBlur(sharp, (0, 0), REBLUR)))
    if after.size == 0 or after.max() < 1:
        return 0.0
    count = max(int(after.size * STEEPEST), 1)
    edges = after >= np.partition(after, -count, axis=None)[-count]
    ratio = float(before[edges].sum() / after[edges].sum())
    return 100 * REBLUR / SIDE / max(ratio - 1, 1e-3) ** 0.5


def _slopes(values: np.ndarray) -> np.ndarray:
    """Return the squared gradient at each pixel, (height, width)."""
    import cv2

    return cv2.Sobel(values, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(values, cv2.CV_32F, 0, 1) ** 2


def _percentile(levels: np.ndarray, share: float) -> float:
    """Return the level (0..255) up to which a share of the pixels goes."""
    counts = np.bincount(levels.ravel(), minlength=256).cumsum()
    return float(np.searchsorted(counts, share * counts[-1]))


def _overexposed(low: np.ndarray, high: np.ndarray) -> float:
    """Return the share of pixels that are white, and as many again that have one channel at its end, if that white is light, not paper.

    `low` and `high` are each pixel's lowest and highest channel. Towards a light the channels reach their end one after another; at the
    edge of white paper all end at once.
    """
    import cv2

    white, colour = low >= WHITE, (high >= WHITE) & (low < COLOUR)
    rim = cv2.dilate(white.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & ~white
    if not rim.any():
        return 0.0
    light = float(np.clip((colour[rim].mean() - RIM[0]) / (RIM[1] - RIM[0]), 0, 1))
    share = float(white.mean())
    return light * (share + min(share, float(colour.mean())))


def _contrast(copy: Image.Image) -> float:
    small = copy.copy()
    small.thumbnail((SPOTS, SPOTS), Image.Resampling.BOX)
    return max(high - low for low, high in small.getextrema())  # type: ignore[misc, operator, union-attr]
