"""Looks: remember how each picture of a folder looks, so that it is decoded once, and find the pairs that may show the same."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np

from prep.images import PictureError, load
from prep.item import Item
from prep.options import atomic_write
from prep.similar import MIRROR, Look, look, near_pairs
from prep.store import Store

ALIKE = 0.8  # least correlation of the thumbnails of copies; measured: 0.86 and more, see benchmarks/dedup.py
AT_ONCE = 1 << 15  # thumbnails compared at once
SAVE_EVERY = 1000  # new looks, so that a run that is killed does not begin from nothing
COLUMNS = ("states", "digests", "sizes", "counts", "frames", "hashes", "thumbs")

Sight = tuple[int, int, bool]  # frame of the one picture, frame of the other, and whether one is mirrored


def looks_of(items: Sequence[Item], store: Store) -> dict[str, Look]:
    """Look at every kept item, or remember from the last run how it looked; a broken picture is set aside."""
    known, seen = _remembered(store), {}
    states: dict[str, Look] = {}
    fresh = 0
    for item in items:
        if item.dropped:
            continue
        stat = item.path.stat()
        state = f"{item.path.name}/{stat.st_size}/{stat.st_mtime_ns}"
        try:
            found = known.get(state) or look(load(item.path))
        except PictureError as error:
            item.drop(error.reason, str(error))
            continue
        item.digest, item.width, item.height = found.digest, found.width, found.height
        seen[item.key] = states[state] = found
        fresh += state not in known
        if fresh == SAVE_EVERY:
            fresh = 0
            _remember(known | states, store)
    if states.keys() != known.keys():
        _remember(states, store)
    return seen


def candidates(looks: Sequence[Look]) -> dict[tuple[int, int], set[Sight]]:
    """Return the pairs i < j of pictures that may show the same, and which of their frames look alike."""
    if len(looks) < 2:
        return {}
    hashes, thumbs = (np.concatenate([getattr(one, name) for one in looks]) for name in ("hashes", "thumbs"))
    owners = np.repeat(np.arange(len(looks)), [len(one.frames) for one in looks])
    frames = np.concatenate([np.arange(len(one.frames)) for one in looks])
    found: dict[tuple[int, int], set[Sight]] = {}
    for plane in range(hashes.shape[1]):
        for turn in (0, MIRROR):
            for left, right in near_pairs(hashes[:, plane], turn):
                swap = owners[left] > owners[right]
                first, second = np.where(swap, right, left), np.where(swap, left, right)
                keep = owners[first] != owners[second]
                for i, j in _alike(thumbs[:, plane], first[keep], second[keep], turn != 0):
                    found.setdefault((int(owners[i]), int(owners[j])), set()).add((int(frames[i]), int(frames[j]), turn != 0))
    return found


def _alike(thumbs: np.ndarray, first: np.ndarray, second: np.ndarray, mirrored: bool) -> Iterator[tuple[int, int]]:
    """Yield those of the pairs of thumbnails that correlate."""
    for start in range(0, len(first), AT_ONCE):
        places = first[start : start + AT_ONCE], second[start : start + AT_ONCE]
        a, b = thumbs[places[0]], thumbs[places[1]]
        one, other = _normal(a), _normal(b[:, :, ::-1] if mirrored else b)
        close = (one * other).sum(axis=1) >= ALIKE
        plain = np.minimum(a.std(axis=(1, 2)), b.std(axis=(1, 2))) < 2  # nothing to correlate
        yield from zip(*(place[close | plain] for place in places), strict=True)


def _normal(thumbs: np.ndarray) -> np.ndarray:
    """Return thumbnails as vectors of mean 0 and length 1."""
    flat = thumbs.reshape(len(thumbs), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _remember(looks: dict[str, Look], store: Store) -> None:
    rows = list(looks.values())
    columns = {
        "states": np.array(list(looks)),
        "digests": np.array([one.digest for one in rows]),
        "sizes": np.array([(one.width, one.height) for one in rows]),
        "counts": np.array([len(one.frames) for one in rows]),
    }
    columns |= {name: np.concatenate([getattr(one, name) for one in rows]) for name in COLUMNS[4:] if rows}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **columns)  # type: ignore[arg-type]
    atomic_write(store.hidden / "looks.npz", buffer.getvalue())


def _remembered(store: Store) -> dict[str, Look]:
    """Read what was remembered, keyed by file name, size and time; nothing if there is none or it is damaged."""
    try:
        with np.load(store.hidden / "looks.npz", allow_pickle=False) as stored:
            states, digests, sizes, counts, *columns = (stored[name] for name in COLUMNS)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    ends = counts.cumsum()
    rows = zip(states.tolist(), digests.tolist(), sizes.tolist(), (ends - counts).tolist(), ends.tolist(), strict=True)
    return {state: Look(digest, *size, *(column[start:end] for column in columns)) for state, digest, size, start, end in rows}
