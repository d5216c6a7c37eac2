"""Dedup: find pictures that are there twice, also resized or recompressed, and keep the best of each."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from prep.images import PictureError, load, pixel_hash
from prep.item import Item, Store
from prep.options import atomic_write, option
from prep.step import Step

DUPLICATE = "duplicate"
THUMB = 32  # side of the thumbnail by which candidates are found
THUMB_MEAN, THUMB_PEAK = 4.0, 60.0  # how far, in levels of 255, the thumbnails of one picture may differ
ASPECT = 0.02  # relative difference of aspect ratio that rounding a size makes
CHUNK = 256  # pictures compared with all others at once
SIDE = 256  # longer side at which two pictures are compared in earnest
# Side of a window in pixels at that size -> how far the means of two pictures in it may differ anywhere, in levels of 255.
# Recompressing and resizing change single pixels by much but no window's mean. Measured: copies of drawings and photographs
# (0.3 to 2 times the size, JPEG quality 40 to 95) at most 58, 26, 20; another mouth, eyebrow or eye colour at least 105, 65, 31.
WINDOWS = {5: 60.0, 9: 27.0, 17: 22.0}
# Recompressing changes a picture all over, a redrawn eyebrow in one place. So beyond FLOOR levels the largest difference may be at
# most SPREAD times the root mean square: copies reach 13, a subtly different eyebrow 24 and more.
FLOOR, SPREAD = 16.0, 14.0


@dataclass(frozen=True)
class Look:
    """What a picture looks like: pixel hash, size, and a thumbnail (THUMB, THUMB, 3), uint8."""

    digest: str
    width: int
    height: int
    thumb: np.ndarray


@dataclass(frozen=True)
class Dedup(Step):
    """Set aside pictures that are there twice and keep the best: the larger one, else the less compressed one.

    Resized and recompressed copies are found too. Different drawings of one character are not duplicates, however alike: a pair is
    compared pixel by pixel before one of the two is set aside.
    """

    near: bool = option(True, help="Find resized and recompressed copies too, not only exact ones.")

    def __call__(self, items: Iterable[Item], store: Store) -> Iterator[Item]:
        """Gather all items, decide, and pass all on in their order."""
        everything = list(items)
        before = {id(item): replace(item) for item in everything}
        for item in everything:
            if item.dropped == DUPLICATE:
                item.drop("")
        looks = _looks(everything, store)
        self._decide([item for item in everything if not item.dropped], looks)
        for item in everything:
            if item != before[id(item)]:
                self.remember(item, store)
            yield item

    def _decide(self, items: list[Item], looks: dict[str, Look]) -> None:
        """Go from the best picture to the worst and drop each that shows the same as a better one."""
        items = sorted(items, key=_rank)
        near = _candidates([looks[item.key] for item in items]) if self.near else {}
        first: dict[str, Item] = {}  # pixel hash -> the best item with it
        for index, item in enumerate(items):
            twin = first.setdefault(item.digest, item)
            if twin is item:
                better = (items[other] for other in near.get(index, ()) if not items[other].dropped)
                twin = next((other for other in better if _same_file(item.path, other.path)), item)
            if twin is not item:
                item.drop(DUPLICATE, twin.detail or f"of {twin.key}")  # a twin that was set aside names the one that is kept


def _rank(item: Item) -> tuple[int, int, bool, int, str]:
    """Sort the best first: area, then size of the raw file (less compressed), then a caption, then the shorter name."""
    raw = item.source if item.source and item.source.exists() else item.path
    return -item.width * item.height, -raw.stat().st_size, item.imported_caption is None, len(item.key), item.key


def same_picture(a: Image.Image, b: Image.Image) -> bool:
    """Tell whether two RGB pictures are copies of each other, resized or recompressed perhaps, and not just alike."""
    scale = min(1.0, SIDE / max(a.size), SIDE / max(b.size))
    smaller = min(a.size, b.size, key=lambda size: size[0] * size[1])
    size = (max(round(smaller[0] * scale), 1), max(round(smaller[1] * scale), 1))
    first, second = (np.asarray(image.resize(size, Image.Resampling.LANCZOS), dtype=np.float32) for image in (a, b))
    return all(_within(_window_means(first - second, side), most) for side, most in WINDOWS.items())


def _within(means: np.ndarray, most: float) -> bool:
    """Tell whether differences are small enough, and spread well enough, to come from resizing and compression."""
    peak, spread = np.abs(means).max(), np.sqrt((means**2).mean()) + 0.3
    return bool(peak <= min(most, max(FLOOR, SPREAD * spread)))


def _same_file(a: Path, b: Path) -> bool:
    return same_picture(load(a), load(b))


def _window_means(values: np.ndarray, side: int) -> np.ndarray:
    """Return the mean over each window of side x side pixels of an array (height, width, 3), edges repeated."""
    margin = side // 2
    padded = np.pad(values, ((margin + 1, margin), (margin + 1, margin), (0, 0)), mode="edge").astype(np.float64)
    padded[0], padded[:, 0] = 0, 0
    sums = padded.cumsum(axis=0).cumsum(axis=1)
    return (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]) / side**2


def _candidates(looks: Sequence[Look]) -> dict[int, list[int]]:
    """Return for each picture those before it with the same proportions and nearly the same thumbnail."""
    if len(looks) < 2:
        return {}
    thumbs = np.stack([look.thumb for look in looks])
    coarse = thumbs.reshape(len(looks), 8, THUMB // 8, 8, THUMB // 8, 3).mean(axis=(2, 4)).reshape(len(looks), -1)
    coarse = coarse.astype(np.float32)
    norms = (coarse**2).sum(axis=1)
    aspects = np.log([look.width / look.height for look in looks])
    found: dict[int, list[int]] = {}
    for start in range(0, len(looks), CHUNK):
        rows = slice(start, min(start + CHUNK, len(looks)))
        # |a - b| squared, of all pairs by one matrix product; single values may differ by more than the mean does
        squares = norms[rows, None] + norms[None, : rows.stop] - 2 * coarse[rows] @ coarse[: rows.stop].T
        close = squares <= coarse.shape[1] * (2 * THUMB_MEAN) ** 2
        close &= np.abs(aspects[rows, None] - aspects[None, : rows.stop]) <= ASPECT
        for row, column in np.argwhere(close):
            index = start + int(row)
            if column < index and _alike(thumbs[index], thumbs[column]):
                found.setdefault(index, []).append(int(column))
    return found


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    difference = np.abs(a.astype(np.int16) - b)
    return bool(difference.mean() <= THUMB_MEAN and difference.max() <= THUMB_PEAK)


def _looks(items: Sequence[Item], store: Store) -> dict[str, Look]:
    """Look at every kept item, or remember from the last run how it looked; a broken picture is set aside."""
    known, looks = _remembered(store), {}
    states = {}
    for item in items:
        if item.dropped:
            continue
        stat = item.path.stat()
        state = f"{item.path.name}/{stat.st_size}/{stat.st_mtime_ns}"
        try:
            look = known.get(state) or _look(item.path)
        except PictureError as error:
            item.drop(error.reason, str(error))
            continue
        item.digest, item.width, item.height = look.digest, look.width, look.height
        looks[item.key] = states[state] = look
    if states.keys() != known.keys():
        _remember(states, store)
    return looks


def _look(path: Path) -> Look:
    image = load(path)
    thumb = image.resize((THUMB, THUMB), Image.Resampling.BOX)
    return Look(pixel_hash(image), image.width, image.height, np.asarray(thumb))


def _file(store: Store) -> Path:
    return store.hidden / "looks.npz"


def _remember(looks: dict[str, Look], store: Store) -> None:
    buffer = io.BytesIO()
    rows = list(looks.values())
    np.savez_compressed(
        buffer,
        states=np.array(list(looks)),
        digests=np.array([look.digest for look in rows]),
        sizes=np.array([(look.width, look.height) for look in rows]),
        thumbs=np.array([look.thumb for look in rows]),
    )
    atomic_write(_file(store), buffer.getvalue())


def _remembered(store: Store) -> dict[str, Look]:
    """Read what was remembered, keyed by file name, size and time; nothing if there is none or it is damaged."""
    try:
        with np.load(_file(store), allow_pickle=False) as stored:
            columns = [stored[name] for name in ("states", "digests", "sizes", "thumbs")]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    return {str(state): Look(str(digest), int(w), int(h), thumb) for state, digest, (w, h), thumb in zip(*columns, strict=True)}
