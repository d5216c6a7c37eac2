"""Scores: what a tagger thinks of every picture, kept once, so that captions can be compiled again without the model."""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from prep.database import opened
from prep.options import UserError
from prep.score_shards import absorb, file_of, files, mark

if TYPE_CHECKING:
    import numpy as np

FILE = "scores.sqlite"
# Scores of one picture: category -> tag -> probability. "general", "character" and "rating" are those that captions use.
Scores = dict[str, dict[str, float]]

# Scores are kept in steps of 1/4000: every threshold of three decimals is one of them, so a score is at most 0.000125 off, whatever it is,
# and no score crosses a threshold from farther away. A step takes 12 bits: its upper 8 and its lower 4 are kept apart, because nearly all of
# the upper ones are 0. At worst, 10,861 scores take 16.3 kB, and 17.2 kB with all that sqlite adds.
STEPS = 4000
# Level of zlib. Measured on 10,861 scores of a few dozen tags that fire: 3 makes 5.5 kB in 0.3 ms, 9 makes 5.0 kB in 3.7 ms.
LEVEL = 3
# What PRAGMA user_version says of how rows are written: 0 float16, 1 as `pack` does.
FORMAT = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS models (
    id INTEGER PRIMARY KEY, name TEXT, identity TEXT, version INTEGER, labels TEXT, used INTEGER, UNIQUE (name, identity, version)
);
CREATE TABLE IF NOT EXISTS absorbed (shard TEXT PRIMARY KEY, state TEXT);
CREATE TABLE IF NOT EXISTS scores (picture TEXT, model INTEGER, scores BLOB, PRIMARY KEY (picture, model)) WITHOUT ROWID;
"""


class UnsoundScores(UserError):
    """Scores that are no probabilities, which no store keeps."""


@dataclass(frozen=True)
class Labels:
    """The tags a model scores, in the order of its output, each with its category."""

    names: tuple[str, ...]
    categories: tuple[str, ...]

    @cached_property
    def _ratings(self) -> frozenset[int]:
        return frozenset(index for index, category in enumerate(self.categories) if category == "rating")

    def read(self, values: np.ndarray, floor: float) -> Scores:
        """Name the scores of one picture, shape (labels,): all ratings, and what else is at least `floor`."""
        found = sorted(self._ratings.union((values >= floor).nonzero()[0].tolist()))
        # Rounded, so that what float32 makes of 0.35 is not below the 0.35 of a threshold.
        return self._named((index, round(float(values[index]), 6)) for index in found)

    def read_packed(self, data: bytes, floor: float) -> Scores:
        """Name the scores that `pack` squeezed as `read` names those of `unpack`, at a fifth of the time: only what counts is unpacked."""
        import numpy as np

        count, first, raw = len(self.names), _first_step(floor), _raw(data, len(self.names))
        found = (raw[:count] >= first >> 4).nonzero()[0] if first <= STEPS else np.zeros(0, np.intp)
        if not self._ratings.issubset(index := found.tolist()):
            index = sorted(self._ratings.union(index))
            found = np.array(index, np.intp)
        pair = raw[count + (found >> 1)]
        steps = (raw[found].astype(np.uint16) << 4 | np.where(found & 1, pair & 15, pair >> 4)).tolist()
        scale, ratings = _scale(), self._ratings
        return self._named((place, scale[step]) for place, step in zip(index, steps, strict=True) if step >= first or place in ratings)

    def _named(self, found: Iterable[tuple[int, float]]) -> Scores:
        scores: Scores = {"rating": {}, "general": {}, "character": {}}
        names, categories = self.names, self.categories
        for index, score in found:
            category = categories[index]
            if category in scores:
                scores[category][names[index]] = score
            else:
                scores[category] = {names[index]: score}
        return scores


@dataclass(frozen=True)
class Model:
    """A tagger as the store knows it; `identity` says which weights, `version` which preprocessing."""

    name: str
    identity: str
    version: int
    labels: Labels


@lru_cache(maxsize=4)
def _labels(text: str) -> Labels:
    """Read a model's labels once for all the times that a store is opened: 10,861 take 5 ms."""
    names, categories = json.loads(text)
    return Labels(tuple(names), tuple(categories))


def picture_key(digest: str, crop: tuple[int, int, int, int] | None) -> str:
    """Name what the tagger saw: the pixels, and the part of them."""
    return digest if crop is None else f"{digest}:{','.join(map(str, crop))}"


def pack(values: np.ndarray) -> bytes:
    """Squeeze probabilities, shape (labels,), into bytes; `unpack` gives them back to 1/8000."""
    import numpy as np

    steps = np.rint(np.clip(values, 0, 1).astype(np.float64) * STEPS).astype(np.uint16)
    low = np.append(steps, np.zeros(len(steps) % 2, np.uint16)) & 15
    return zlib.compress((steps >> 4).astype(np.uint8).tobytes() + (low[::2] << 4 | low[1::2]).astype(np.uint8).tobytes(), LEVEL)


def unpack(data: bytes, count: int) -> np.ndarray:
    """Return the probabilities, float32 of shape (count,), that `pack` squeezed."""
    import numpy as np

    raw = _raw(data, count).astype(np.uint16)
    low = np.stack([raw[count:] >> 4, raw[count:] & 15], axis=1).ravel()[:count]
    return ((raw[:count] << 4 | low) / STEPS).astype(np.float32)


def _raw(data: bytes, count: int) -> np.ndarray:
    """Return the bytes of `count` scores, uint8: the upper 8 bits of each, then the lower 4 of each pair."""
    import numpy as np

    raw = np.frombuffer(zlib.decompress(data, bufsize=count + (count + 1) // 2 + 1), np.uint8)
    if len(raw) != count + (count + 1) // 2:
        raise sqlite3.DatabaseError("a row of scores has another length than its model's list of tags")
    return raw


@lru_cache
def _scale() -> tuple[float, ...]:
    """Return the score of each of the 12-bit steps, as `unpack` and `Labels.read` have it."""
    import numpy as np

    return tuple(round(float(value), 6) for value in (np.arange(4096) / STEPS).astype(np.float32))


@lru_cache(maxsize=64)
def _first_step(floor: float) -> int:
    """Return the first step whose score is at least `floor`, compared in float32 as `Labels.read` does."""
    import numpy as np

    return int(np.searchsorted((np.arange(4096) / STEPS).astype(np.float32), np.float32(floor)))


class ScoreStore:
    """FOLDER/.atelier/scores.sqlite: one row of squeezed scores per picture and model; labels once per model.

    sqlite's own journal makes every write whole or undone, also after SIGKILL. Several threads may share a store. A task that has a share
    of the pictures writes a file of its own and reads both, see prep.score_shards.
    """

    def __init__(self, database: sqlite3.Connection, base: ScoreStore | None = None) -> None:
        self._database, self._base, self._lock = database, base, threading.RLock()
        self._numbers: dict[tuple[str, str, int], int | None] = {}

    @classmethod
    @contextmanager
    def open(cls, hidden: Path, create: bool = True, shard: str = "") -> Iterator[ScoreStore]:
        """Open the store in a folder's hidden folder, or a shard of it; raises UserError if it is damaged, or missing and not to be made.

        The store itself takes in all shards that are there.
        """
        base = hidden / FILE
        path, others = (file_of(hidden, shard), []) if shard else (base, files(hidden))
        if not create and not base.exists() and not path.exists() and not others:
            raise UserError(f"no picture in {hidden.parent} has been scored yet; run `prep tag` first")
        with ExitStack() as stack:
            below = stack.enter_context(cls._open(base)) if shard and base.exists() else None
            store = stack.enter_context(cls._open(path, below)) if create or path.exists() or not below else below
            if shard and create:
                mark(store._database, complete=False)
            absorb(store._database, others, store._register)
            yield store

    @classmethod
    @contextmanager
    def _open(cls, path: Path, base: ScoreStore | None = None) -> Iterator[ScoreStore]:
        with opened(path, _SCHEMA, " and `prep tag` will score the pictures again", threads=True) as database:
            _bring_up_to_date(database)
            yield cls(database, base)

    def complete(self) -> None:
        """Note that the task of this shard has ended."""
        with self._lock:
            mark(self._database, complete=True)

    def register(self, name: str, identity: str, version: int, labels: Labels) -> Model:
        """Return the model of that name, weights and preprocessing, added if new, and note that it is the one used last."""
        self._register(name, identity, version, json.dumps([labels.names, labels.categories], ensure_ascii=False))
        return Model(name, identity, version, labels)

    def _register(self, name: str, identity: str, version: int, text: str) -> int:
        """Register a model whose labels are JSON, and return its number here."""
        with self._lock, self._database as db:
            if (number := self._newest_if(name, identity, version, text)) is not None:
                return number
            db.execute("BEGIN IMMEDIATE")
            if (number := self._newest_if(name, identity, version, text)) is not None:  # another process may have done it meanwhile
                return number
            db.execute(
                "INSERT INTO models (name, identity, version, labels, used) VALUES (?, ?, ?, ?, (SELECT coalesce(max(used), 0) + 1 FROM models))"
                " ON CONFLICT DO UPDATE SET labels = excluded.labels, used = excluded.used",
                (name, identity, version, text),
            )
            row = db.execute("SELECT id FROM models WHERE (name, identity, version) = (?, ?, ?)", (name, identity, version)).fetchone()
        return int(row[0])

    def _newest_if(self, name: str, identity: str, version: int, text: str) -> int | None:
        """Return the number of the model used last if it is this one."""
        newest = self._database.execute("SELECT name, identity, version, labels, id FROM models ORDER BY used DESC LIMIT 1").fetchone()
        return int(newest[4]) if newest and newest[:4] == (name, identity, version, text) else None

    def _number(self, model: Model) -> int | None:
        """Return the number of a model here, None if it has none."""
        key = (model.name, model.identity, model.version)
        if self._numbers.get(key) is None:
            row = self._database.execute("SELECT id FROM models WHERE (name, identity, version) = (?, ?, ?)", key).fetchone()
            self._numbers[key] = row and row[0]
        return self._numbers[key]

    def last_used(self, name: str = "") -> Model | None:
        """Return the model used last, of that name if one is given."""
        query = "SELECT name, identity, version, labels FROM models WHERE ? IN ('', name) ORDER BY used DESC LIMIT 1"
        with self._lock:
            row = self._database.execute(query, (name,)).fetchone()
        if row is None:
            return self._base.last_used(name) if self._base else None
        return Model(row[0], row[1], row[2], _labels(row[3]))

    def has(self, picture: str, model: Model) -> bool:
        """Say whether the picture's scores are kept."""
        query = "SELECT 1 FROM scores WHERE picture = ? AND model = ?"
        with self._lock:
            found = self._database.execute(query, (picture, self._number(model))).fetchone() is not None
        return found or (self._base is not None and self._base.has(picture, model))

    def any(self, model: Model) -> bool:
        """Say whether scores of the model are kept for any picture."""
        with self._lock:
            found = self._database.execute("SELECT 1 FROM scores WHERE model = ? LIMIT 1", (self._number(model),)).fetchone() is not None
        return found or (self._base is not None and self._base.any(model))

    def put(self, model: Model, rows: Mapping[str, np.ndarray]) -> None:
        """Keep the scores of some pictures, each of shape (labels,), all or none; raises UnsoundScores if one is NaN or infinite."""
        import numpy as np

        if broken := next((picture for picture, values in rows.items() if not np.isfinite(values).all()), None):
            raise UnsoundScores(f"{model.name} gives the picture {broken} a score that is no number, which cannot be kept; try another tagger")
        data = [(picture, pack(values)) for picture, values in rows.items()]
        with self._lock, self._database as db:
            number = self._number(model)
            db.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?)", [(picture, number, scores) for picture, scores in data])

    def get(self, picture: str, model: Model) -> np.ndarray | None:
        """Return the picture's scores, float32 of shape (labels,), or None if there are none."""
        data = self.packed(picture, model)
        return None if data is None else unpack(data, len(model.labels.names))

    def rows(self, model: Model) -> Iterator[tuple[str, bytes]]:
        """Yield all of a model's pictures with their scores as `pack` squeezed them."""
        if self._base:
            yield from self._base.rows(model)
        with self._lock:
            yield from self._database.execute("SELECT picture, scores FROM scores WHERE model = ?", (self._number(model),))

    def packed(self, picture: str, model: Model) -> bytes | None:
        """Return the picture's scores as `pack` squeezed them, or None if there are none."""
        query = "SELECT scores FROM scores WHERE picture = ? AND model = ?"
        with self._lock:
            row = self._database.execute(query, (picture, self._number(model))).fetchone()
        if row is None:
            return self._base.packed(picture, model) if self._base else None
        data: bytes = row[0]
        return data


def _bring_up_to_date(database: sqlite3.Connection) -> None:
    """Rewrite rows of float16, as they once were, all or none of them."""
    import numpy as np

    if database.execute("PRAGMA user_version").fetchone()[0] == FORMAT:
        return
    database.create_function("packed", 1, lambda data: pack(np.frombuffer(data, "<f2")))
    with database:
        database.execute("BEGIN IMMEDIATE")
        if database.execute("PRAGMA user_version").fetchone()[0] != FORMAT:  # another process may have done it meanwhile
            database.execute("UPDATE scores SET scores = packed(scores)")
            database.execute(f"PRAGMA user_version = {FORMAT}")
