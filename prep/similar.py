"""Similar: what a picture looks like in a few hundred bytes, and which of many pictures may show the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from prep.images import pixel_hash

Corners = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, x1 and y1 exclusive
SIDE = 32  # of the copy whose cosine transform is taken
WAVES = 8  # how many frequencies of it are looked at, each way
THUMB = 16  # side of the thumbnails
PLAIN, PLAIN_SHARE = 20, 0.98  # a line belongs to a border if this share of it is within so many levels of the border's colour
LAYERS = 2  # borders inside borders that are taken off
LEAST = 0.3  # share of each side that must be left inside


@dataclass(frozen=True)
class Look:
    """What a picture looks like: pixel hash, size, and of the whole and of what is inside its borders the place, hashes and thumbnails."""

    digest: str
    width: int
    height: int
    frames: np.ndarray  # (frames, 4) int32: x0, y0, x1, y1; the first is the whole picture
    hashes: np.ndarray  # (frames, 2) uint64: of the grey picture and of its lightness, which a turned hue leaves as it was
    thumbs: np.ndarray  # (frames, 2, THUMB, THUMB) uint8, of the same two


def look(image: Image.Image) -> Look:
    """Look at an RGB picture."""
    frames = borders(image)
    planes = [_planes(image.resize((SIDE, SIDE), Image.Resampling.BOX, box=frame)) for frame in frames]
    hashes = np.array([[_hash(plane) for plane in pair] for pair in planes], np.uint64)
    thumbs = np.array(planes).reshape(len(frames), 2, THUMB, SIDE // THUMB, THUMB, SIDE // THUMB).mean(axis=(3, 5)).round().astype(np.uint8)
    return Look(pixel_hash(image), image.width, image.height, np.array(frames, np.int32), hashes, thumbs)


def borders(image: Image.Image) -> list[Corners]:
    """Return the whole of a picture and, outermost first, what is inside each of its plain borders."""
    pixels = np.asarray(image)
    frames = [(0, 0, image.width, image.height)]
    while len(frames) <= LAYERS:
        x0, y0, x1, y1 = frames[-1]
        part = pixels[y0:y1, x0:x1]
        top, bottom = _plain_lines(part), _plain_lines(part[::-1])
        left, right = _plain_lines(part.swapaxes(0, 1)), _plain_lines(part.swapaxes(0, 1)[::-1])
        inner = (x0 + left, y0 + top, x1 - right, y1 - bottom)
        if inner == frames[-1] or inner[2] - inner[0] < LEAST * image.width or inner[3] - inner[1] < LEAST * image.height:
            break
        frames.append(inner)
    return frames


def _plain_lines(lines: np.ndarray) -> int:
    """Count the lines, from the first, that have the colour of the first all along."""
    colour = np.median(lines[0], axis=0)
    for index, line in enumerate(lines):
        if (np.abs(line - colour).max(axis=1) <= PLAIN).mean() < PLAIN_SHARE:
            return index
    return len(lines)


def _planes(image: Image.Image) -> np.ndarray:
    """Return grey and lightness, the middle between the strongest and the weakest channel: (2, height, width), float32."""
    pixels = np.asarray(image, np.float32)
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.stack([grey, (pixels.max(axis=2) + pixels.min(axis=2)) / 2])


def strongest(values: np.ndarray) -> np.ndarray:
    """Return the largest of three channels (..., 3); numpy's own reduction of so short an axis takes ten times as long."""
    return np.maximum(np.maximum(values[..., 0], values[..., 1]), values[..., 2])


def spread(values: np.ndarray) -> np.ndarray:
    """Return how far the strongest of three channels (..., 3) is from the weakest."""
    return strongest(values) + strongest(-values)


def _cosines() -> np.ndarray:
    waves = np.arange(WAVES + 1)[:, None]
    return np.cos(np.pi * waves * (2 * np.arange(SIDE) + 1) / (2 * SIDE))


def _hash(plane: np.ndarray) -> int:
    """Return the signs of the low frequencies of a plane (SIDE, SIDE) as 64 bits: a perceptual hash that mirroring changes by MIRROR.

    The mean, which says nothing, gives its place to one frequency more.
    """
    cosines = _cosines()
    spectrum = cosines @ plane @ cosines.T
    signs = spectrum[:WAVES, :WAVES] > 0
    signs[0, 0] = spectrum[WAVES, 0] > 0
    return int.from_bytes(np.packbits(signs.ravel()).tobytes(), "big")


# Mirroring turns the sign of every second frequency across.
MIRROR = int.from_bytes(np.packbits(np.tile(np.arange(WAVES) % 2 == 1, WAVES)).tobytes(), "big")


RADIUS = 7  # bits by which the hashes of copies may differ; measured: 347 of 350 copies differ by at most 7, see benchmarks/dedup.py
PART, PARTS = 16, 4  # bits of a part of a hash, and parts: of 7 wrong bits in 4 parts, one part has at most one
BLOCK = 1 << 21  # pairs that are compared at once


def near_pairs(hashes: np.ndarray, turn: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all pairs i, j of different places in `hashes` (n,) uint64 for which hashes[i] ^ turn is within RADIUS bits of hashes[j].

    Each pair comes once, in one of its two orders. Hashes that agree in a part, but for one bit at most, are looked up in a sorted
    list of that part (multi-index hashing: Norouzi, Punjani, Fleet, CVPR 2012).
    """
    for part in range(PARTS):
        keys, turned = _part(hashes, part), _part(np.array([turn], np.uint64), part)[0]
        order = np.argsort(keys, kind="stable")
        table = hashes[order]
        starts = np.searchsorted(keys[order], np.arange((1 << PART) + 1))
        for flip in (0, *(1 << bit for bit in range(PART))):
            wanted = keys[order] ^ (flip ^ turned)  # a pair is found from both its ends: it is taken from the end that has the lower key
            first = np.where(wanted > keys[order], starts[wanted], len(order))
            first = np.where(wanted == keys[order], np.arange(len(order)) + 1, first)
            last = np.where(wanted >= keys[order], starts[wanted + 1], len(order))
            for left, right in _runs(first, last):
                apart = table[left] ^ np.uint64(turn) ^ table[right]
                near = (np.bitwise_count(apart) <= RADIUS) & ~_found_before(apart, part)
                yield order[left[near]], order[right[near]]


def _part(hashes: np.ndarray, part: int) -> np.ndarray:
    return ((hashes >> np.uint64(PART * part)) & np.uint64((1 << PART) - 1)).astype(np.int64)


def _found_before(apart: np.ndarray, part: int) -> np.ndarray:
    """Tell of which differences an earlier part has at most one bit, so that the pair has been yielded already."""
    seen = np.zeros(len(apart), bool)
    for earlier in range(part):
        seen |= np.bitwise_count(_part(apart, earlier)) <= 1
    return seen


def _runs(first: np.ndarray, last: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, for the places i and all places from first[i] to last[i], the pairs of the two, about BLOCK at a time."""
    counts = last - first
    ends = counts.cumsum()
    start = 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + BLOCK, "right")), start + 1)
        places = np.arange(start, stop)
        left = np.repeat(places, counts[start:stop])
        within = np.arange(len(left)) - np.repeat(ends[start:stop] - counts[start:stop] - done, counts[start:stop])
        yield left, within + np.repeat(first[start:stop], counts[start:stop])
        start = stop
