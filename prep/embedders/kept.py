"""Kept: the vectors of pictures, computed once, so that a rerun needs no model."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from prep.database import opened

FILE = "embeddings.sqlite"
_SCHEMA = "CREATE TABLE IF NOT EXISTS vectors (model TEXT, picture TEXT, vector BLOB, PRIMARY KEY (model, picture)) WITHOUT ROWID"


class VectorStore:
    """FOLDER/.atelier/embeddings.sqlite: a float32 vector per picture (see `prep.scores.picture_key`) and version of a model.

    sqlite's own journal makes every write whole or undone, also after SIGKILL.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    @classmethod
    @contextmanager
    def open(cls, hidden: Path) -> Iterator[VectorStore]:
        """Open the store in a folder's hidden folder; raises UserError if it is damaged."""
        with opened(hidden / FILE, _SCHEMA, " and `prep identity` will look at the pictures again") as database:
            yield cls(database)

    def has(self, model: str, picture: str) -> bool:
        """Say whether the picture's vector is kept."""
        return self._database.execute("SELECT 1 FROM vectors WHERE model = ? AND picture = ?", (model, picture)).fetchone() is not None

    def get(self, model: str, pictures: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the vectors that are kept of these pictures."""
        rows = ((p, self._database.execute("SELECT vector FROM vectors WHERE model = ? AND picture = ?", (model, p)).fetchone()) for p in pictures)
        return {picture: np.frombuffer(row[0], dtype="<f4").astype(np.float32) for picture, row in rows if row is not None}

    def put(self, model: str, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep some vectors, all or none of them."""
        rows = [(model, picture, vector.astype("<f4").tobytes()) for picture, vector in vectors.items()]
        with self._database as database:
            database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
