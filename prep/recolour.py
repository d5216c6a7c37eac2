"""Recolour: find by what change of colour, the same all over, one picture became another, as far as there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from prep.similar import spread, strongest

GREYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "bt601": lambda pixels: pixels @ np.array([0.299, 0.587, 0.114], np.float32),
    "bt709": lambda pixels: pixels @ np.array([0.2126, 0.7152, 0.0722], np.float32),
    "mean": lambda pixels: pixels @ np.full(3, 1 / 3, np.float32),
    "lightness": lambda pixels: (strongest(pixels) - strongest(-pixels)) / 2,
}
# Contrast of a copy relative to its original. Measured: with 0.4 and less a redrawn mouth can look like noise.
GAIN = (0.5, 2.0)
STEADY = 0.2  # least contrast anywhere between dark and light
NEARLY_GREY, GREY_SHARE = 14.0, 0.98  # a picture is grey if the channels of this share of its pixels are so few levels apart
CHANGED, EVERYWHERE = 8.0, 0.12  # a recolouring changes this share of the pixels by so many levels; a repainted part is smaller
VIVID = 40.0  # levels between the channels of a pixel whose hue can be told
VARIED = 15.0  # standard deviation in levels; a recoloured background or shirt is flatter
SECTORS, SECTOR_SHARE = 12, 0.02  # or two of so many hues, each in this share of the picture
CUT = 8.0  # levels from black or white within which a colour may have been cut off
FITS, FIT_SHARE = 10.0, 0.5  # a fit is worth a look if this share of the pixels is within so many levels


@dataclass(frozen=True)
class Colouring:
    """A change of colour: what it makes of RGB pixels (..., 3) float32, by what it multiplies contrast, and which picture it starts from."""

    name: str  # same, grey, levels, hue
    apply: Callable[[np.ndarray], np.ndarray]
    gain: float = 1.0
    source: int = 0  # 0: it makes the second of two pictures from the first, 1: the first from the second
    sure: bool = True  # False: it may as well be a part painted in another colour


SAME = Colouring("same", lambda pixels: pixels)


def colourings(first: np.ndarray, second: np.ndarray) -> Iterator[Colouring]:
    """Yield ways in which one of two pictures (height, width, 3), float32, may be a recoloured copy of the other, the plainest first."""
    yield SAME
    if (strongest(np.abs(first - second)) > CHANGED).mean() < EVERYWHERE:
        return
    pair = first, second
    grey = [_is_grey(picture) for picture in pair]
    for source in (0, 1):
        if grey[1 - source] and not grey[source]:
            yield from _found("grey", pair, source, [_greyed(function) for function in GREYS.values()])
    if grey[0] != grey[1]:
        return
    for source in (0, 1):
        yield from _found("levels", pair, source, [lambda pixels: pixels])
    turn = None if grey[0] else _turn(first, second)
    if turn:
        yield from _found("hue", pair, 0, [lambda pixels: turned(pixels, turn)])


def _found(name: str, pair: tuple[np.ndarray, np.ndarray], source: int, firsts: list[Callable[[np.ndarray], np.ndarray]]) -> Iterator[Colouring]:
    """Fit levels after each of the changes in `firsts` and yield the best if it fits well and changes the picture all over."""
    start, target = pair[source], pair[1 - source]
    best, least = None, np.inf
    for change in firsts:
        fitted = _fit(change(start)[::2, ::2], target[::2, ::2])
        if fitted and fitted[2] < least:
            best, least = (change, *fitted[:2]), fitted[2]
    if best is None:
        return
    change, curve, gain = best
    moved = strongest(np.abs(curve(change(start)) - start)) > CHANGED
    if moved.mean() >= EVERYWHERE:
        yield Colouring(name, lambda pixels: curve(change(pixels)), gain, source, _varied(start, moved))


def _fit(start: np.ndarray, target: np.ndarray) -> tuple[Callable[[np.ndarray], np.ndarray], float, float] | None:
    """Fit target = a grey + b colour + c colour squared + d by least squares, the same for all channels, without what does not fit.

    That is brightness, contrast, saturation and, nearly, gamma. Returns the curve, its gain of contrast and the mean difference.
    """
    values, wanted = _terms(start).reshape(-1, 4).astype(np.float64), target.reshape(-1).astype(np.float64)
    inside = (wanted > CUT) & (wanted < 255 - CUT)  # what was cut off at black or white says little
    keep = inside
    weights: np.ndarray = np.zeros(4)
    for _ in range(5):
        if keep.sum() < 0.1 * len(wanted):
            return None
        chosen = values[keep]
        weights = np.linalg.lstsq(chosen.T @ chosen, chosen.T @ wanted[keep], rcond=None)[0]
        away = np.abs(np.clip(values @ weights, 0, 255) - wanted)
        keep = inside & (away <= max(FITS, 2.5 * float(np.median(away))))
    slopes = (weights[0] + weights[1]) / 255, (weights[0] + weights[1] + 2 * weights[2]) / 255  # in the dark and in the light
    gain = float(sum(slopes)) / 2
    if min(slopes) < STEADY or not GAIN[0] <= gain <= GAIN[1] or (away <= FITS).mean() < FIT_SHARE:
        return None
    return (lambda pixels: np.clip(_terms(pixels) @ weights, 0, 255).astype(np.float32)), gain, float(away.mean())


def _terms(pixels: np.ndarray) -> np.ndarray:
    """Return grey, colour, colour squared and 1 for each channel, in 0..1: (..., 3, 4)."""
    colour = pixels / 255
    grey = np.broadcast_to(GREYS["bt601"](colour)[..., None], colour.shape)
    return np.stack([grey, colour, colour**2, np.ones_like(colour)], axis=-1)


def _greyed(grey: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: np.repeat(grey(pixels)[..., None], 3, axis=-1)


def _is_grey(pixels: np.ndarray) -> bool:
    return bool((spread(pixels) <= NEARLY_GREY).mean() >= GREY_SHARE)


def _hues(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the hue, 0..255, and whether it can be told, of each pixel."""
    hue = np.asarray(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert("HSV"))[..., 0]
    return hue.astype(np.int64), spread(pixels) > VIVID


def _turn(first: np.ndarray, second: np.ndarray) -> int:
    """Return by how much, of 256, the hue of most vivid pixels differs; 0 if hardly or if there are few."""
    (hue, vivid), (other, also) = _hues(first), _hues(second)
    both = vivid & also
    if both.mean() < SECTOR_SHARE:
        return 0
    counts = np.bincount((other - hue)[both] % 256, minlength=256)
    smooth = sum(np.roll(counts, shift) for shift in range(-2, 3))
    turn = int(np.argmax(smooth))
    return turn if 4 <= turn <= 252 else 0


def turned(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Turn the hue of RGB pixels by turn / 256 of the circle, as photo programs do in HSV or HSL."""
    hue, saturation, value = Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8)).convert("HSV").split()
    hue = hue.point([(level + turn) % 256 for level in range(256)])
    return np.asarray(Image.merge("HSV", (hue, saturation, value)).convert("RGB"), np.float32)


def _varied(pixels: np.ndarray, moved: np.ndarray) -> bool:
    """Tell whether what was recoloured has light and dark, or two quite different hues: more than one part has."""
    if GREYS["bt601"](pixels[moved]).std() >= VARIED:
        return True
    hue, vivid = _hues(pixels)
    shares = np.bincount((hue[vivid & moved] * SECTORS) // 256, minlength=SECTORS) / vivid.size
    at = np.flatnonzero(shares >= SECTOR_SHARE)
    apart = np.abs(at[:, None] - at[None, :])
    return bool((np.minimum(apart, SECTORS - apart) >= 2).any())
