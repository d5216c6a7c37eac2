"""Evidence: what the tagger says of the pictures, for filters over all of them and for the caption of one."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from prep.caption import Caption
from prep.captions import parse
from prep.compile import compile_tags, explain, strengths
from prep.item import Item
from prep.names import fold
from prep.options import UserError
from prep.project import Place
from prep.review.library import Library, Row
from prep.scored import Scored
from prep.scores import FILE, Model, ScoreStore
from prep.store import Store

if TYPE_CHECKING:
    import numpy as np

FLOOR = 0.05  # scores below it are not held for filters and count as 0


class Sieve:
    """The scores of all pictures in memory, without those that are nearly nothing: about 60 a picture, of 6 bytes each."""

    def __init__(self, store: Store, tagger: str) -> None:
        self._store, self._tagger, self._lock = store, tagger, threading.Lock()
        self._columns: dict[str, dict[str, float]] = {}  # folded tag -> scored picture -> score
        self._rows: dict[str, np.ndarray] = {}
        self._names: list[str] = []

    def read(self) -> None:
        """Read the scores; nothing if there are none."""
        if not (self._store.hidden / FILE).exists():
            return
        with self._lock, ScoreStore.open(self._store.hidden, create=False) as scores:
            model = scores.last_used(self._tagger)
            if model is not None:
                self._names = [fold(name) for name in model.labels.names]
                self._rows = {picture: _squeezed(data, model) for picture, data in scores.rows(model)}

    def __call__(self, row: Row, tag: str) -> float:
        """Return the score of a tag on a picture; 0 if it is below FLOOR, or the picture has none."""
        name = fold(tag)
        column = self._columns.get(name)
        if column is None:
            column = self._columns[name] = self._column(name)
        return column.get(row.scored, 0.0)

    def _column(self, name: str) -> dict[str, float]:
        """Collect a tag's scores over all pictures; raises UserError for a tag that the tagger does not know."""
        if not self._names:
            raise UserError("no picture has scores; run `prep tag` first")
        if name not in self._names:
            raise UserError(f"the tagger does not know the tag {name!r}; choose one from the list")
        index, found = self._names.index(name), {}
        for picture, row in self._rows.items():
            place = int(row["label"].searchsorted(index))
            if place < len(row) and row["label"][place] == index:
                found[picture] = round(float(row["score"][place]), 4)
        return found

    @cached_property
    def labels(self) -> frozenset[str]:
        return frozenset(self._names)


def _squeezed(data: bytes, model: Model) -> np.ndarray:
    """Return the labels whose score is not nearly nothing, rising, with their scores; 8 bytes each."""
    import numpy as np

    from prep.scores import unpack

    values = unpack(data, len(model.labels.names))
    labels = (values >= FLOOR).nonzero()[0]
    found = np.zeros(len(labels), [("label", np.uint32), ("score", np.float32)])
    found["label"], found["score"] = labels, values[labels]
    return found


def evidence(item: Item, place: Place, library: Library) -> dict[str, Any]:
    """Tell of a picture's tags: score by tag as captions spell it, what became of each, and the caption that would be compiled."""
    step = Caption.configured(place)
    step = replace(step, full_name=item.full_name or step.full_name)
    try:
        with ExitStack() as stack:
            scored = Scored.open(library.store, step.tagger, stack)
            scores, cuts = scored.cut(item, step)
            fates = explain(scores, step, cuts)
            return {
                "scores": {fold(tag): round(score, 3) for tag, score in strengths(scores, step).items()},
                "fates": [asdict(fate) for fate in fates if not fate.kept],
                "compiled": compile_tags(scores, step, scored.row, cuts),
                "note": "",
            }
    except UserError as error:
        return {"scores": {}, "fates": [], "compiled": [], "note": str(error)}


def leaks(place: Place, item: Item) -> list[str]:
    """List the names that captions must not hold, as they are when folded."""
    return [fold(name) for name in parse(item.full_name or place.project.full_name)]
