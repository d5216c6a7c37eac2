"""Prepared: pictures on their way to a tagger, decoded by threads that keep out of the way of its model."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.images import PictureError, load
from prep.item import Item
from prep.scores import Model, ScoreStore, UnsoundScores, picture_key
from prep.taggers import Tagger

if TYPE_CHECKING:
    import numpy as np

CPU = "CPUExecutionProvider"
# How far threads that decode step back behind the model on a CPU (nice of Linux, which counts for each thread). Measured on two cores,
# ViT-B 448, 20 JPEGs of 12 megapixels, pace over the bare model's, two rounds, always in this order: 0.910 and 0.915 at 0, 0.926 and 0.932
# at 5, 0.945 and 0.962 at 10. Not settled: 48 pictures at 10 gave 0.920 and 0.930, and there nothing was run at 0 to compare.
STEP_BACK = 10

Waiting = tuple[Item, "Future[np.ndarray | None] | None"]  # an item, and what its pixels come from, if it has to be scored


def ahead(stream: Iterator[Any], count: int) -> Iterator[Any]:
    """Draw `count` of a stream before they are wanted, so that what drawing starts goes on meanwhile."""
    drawn = deque(islice(stream, count))
    while drawn:
        yield drawn.popleft()
        drawn.extend(islice(stream, 1))


def known(item: Item, scores: ScoreStore, model: Model) -> bool:
    """Tell without decoding whether the picture as it now lies there has scores."""
    return item.stamps.get("tag") == state_of(item.picture) and scores.has(picture_key(item.picture_digest, item.crop), model)


def prepared(item: Item, scores: ScoreStore, model: Model, tagger: Tagger) -> np.ndarray | None:
    """Decode a picture, note its digest, and return what the tagger takes, or None if its pixels have been scored before."""
    state, image = state_of(item.picture), load(item.picture)
    item.see(image)
    item.stamps["tag"] = state
    if scores.has(picture_key(item.picture_digest, item.crop), model):
        return None
    return tagger.prepare(image.crop(item.crop) if item.crop else image)


def prepared_aside(item: Item, scores: ScoreStore, model: Model, tagger: Tagger) -> np.ndarray | None:
    """Do as `prepared` in a thread of the pool, which steps back once the model is loaded: its own threads inherit the rank of who loads it."""
    if tagger.provider == CPU:
        step_back()
    return prepared(item, scores, model, tagger)


def step_back() -> None:
    """Let this thread have only what the model's threads leave of the cores; where a thread has no priority of its own, nothing changes.

    The model's threads wait for each other at every layer, and with equal rights they would also wait for decoders.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        if os.getpriority(os.PRIO_PROCESS, thread) < STEP_BACK:  # one that was started lower stays there: going up needs rights
            os.setpriority(os.PRIO_PROCESS, thread, STEP_BACK)


def decoded(group: Iterable[Waiting]) -> list[tuple[Item, np.ndarray | None]]:
    """Wait for what is being decoded, and set aside what cannot be."""
    found = []
    for item, future in group:
        try:
            if future is not None:
                found.append((item, future.result()))
        except PictureError as error:
            item.drop(error.reason, str(error))
    return found


def fresh(pictures: Iterable[tuple[Item, np.ndarray | None]]) -> dict[str, np.ndarray]:
    """Return the pixels of pictures that have no scores by their keys, equal ones once."""
    return {picture_key(item.picture_digest, item.crop): pixels for item, pixels in pictures if pixels is not None}


def scored(pixels: Mapping[str, np.ndarray], tagger: Tagger) -> dict[str, np.ndarray]:
    """Have the model run on pictures, key -> pixels, and return key -> scores."""
    return dict(zip(pixels, tagger.score(list(pixels.values())), strict=True)) if pixels else {}


def without(pixels: Mapping[str, np.ndarray], scores: ScoreStore, model: Model, tagger: Tagger) -> set[str]:
    """Score pictures one by one, keep the scores, and return the keys of those that get no sound ones."""
    found = set()
    for key, one in pixels.items():
        try:
            scores.put(model, scored({key: one}, tagger))
        except UnsoundScores:
            found.add(key)
    return found


def state_of(path: Path) -> str:
    """Return what changes when a file does, as far as can be told without reading it."""
    stat = path.stat()
    return f"{stat.st_size}-{stat.st_mtime_ns}"
