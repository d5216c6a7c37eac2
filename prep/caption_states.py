"""Caption states: what a folder remembers of its captions, one row a picture in one table, so that noting many takes one write."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from prep.database import DAMAGE, damaged, opened

FILE = "captions.sqlite"
# The rows with texts in them are long: in a table without row ids each would fill two pages, and 20,000 pictures 180 MB.
SCHEMA = """
CREATE TABLE IF NOT EXISTS captions (key TEXT PRIMARY KEY, state TEXT);
CREATE TABLE IF NOT EXISTS before (key TEXT PRIMARY KEY, state TEXT);
CREATE TABLE IF NOT EXISTS ours (key TEXT, digest TEXT, PRIMARY KEY (key, digest)) WITHOUT ROWID;
"""
REMEDY = ", and the captions that are there will count as a person's"
# What a row holds of an item, and what it is where there is no row.
BLANK: Mapping[str, Any] = {"tags": [], "keyword": "", "full_name": "", "caption": "", "written": None, "hand": False}
TOGETHER = 256  # rows read at once while items are streamed in their order; sqlite takes so many names in one query


class CaptionStates:
    """The table `captions` of FOLDER/.atelier/captions.sqlite, which prep.ledger shares; opened when it is first needed.

    Several threads and processes may use it; an object that is pickled opens it anew.
    """

    def __init__(self, hidden: Path) -> None:
        self._hidden, self._open = hidden, ExitStack()
        self._database: sqlite3.Connection | None = None
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[type[CaptionStates], tuple[Path]]:
        return CaptionStates, (self._hidden,)

    def __del__(self) -> None:
        self._open.close()

    def read(self, keys: Iterable[str]) -> Iterator[Mapping[str, Any] | None]:
        """Yield what is known of each key, None of most that have no caption; many are read at once, shortly before they are wanted."""
        keys = iter(keys)
        while group := list(islice(keys, TOGETHER)):
            found = self.texts(group)
            yield from (json.loads(found[key]) if key in found else None for key in group)

    def get(self, key: str) -> Mapping[str, Any] | None:
        """Return what is known of a key, if anything is."""
        return next(self.read([key]))

    def texts(self, keys: list[str]) -> dict[str, str]:
        """Return the rows of some keys, as JSON."""
        with self._connection(create=False) as database:
            return {} if database is None else texts(database, keys)

    def put(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep what is known of some keys, all of it or none, where it is not so already."""
        if rows := different(states, self.texts(list(states))):
            with self._connection(create=True) as database:
                assert database is not None
                with database:
                    put(database, rows)

    def forget(self, key: str) -> None:
        """Delete the row of a key."""
        self.put({key: BLANK})

    @contextmanager
    def _connection(self, create: bool) -> Iterator[sqlite3.Connection | None]:
        """Hand out the connection, or None if there is no file and none is to be made."""
        path = self._hidden / FILE
        with self._lock:
            if self._database is not None and not path.exists():  # the hidden folder was deleted
                self._open.close()
                self._database = None
            if self._database is None and (create or path.exists()):
                self._database = self._open.enter_context(opened(path, SCHEMA, REMEDY, threads=True))
            try:
                yield self._database
            except DAMAGE as error:
                raise damaged(path, error, REMEDY) from None


def texts(database: sqlite3.Connection, keys: list[str]) -> dict[str, str]:
    """Return the rows of some keys, as JSON."""
    found: dict[str, str] = {}
    for at in range(0, len(keys), TOGETHER):
        some = keys[at : at + TOGETHER]
        found.update(database.execute(f"SELECT key, state FROM captions WHERE key IN ({','.join('?' * len(some))})", some).fetchall())
    return found


def different(states: Mapping[str, Mapping[str, Any]], known: Mapping[str, str]) -> dict[str, str | None]:
    """Return the rows, as JSON, that are not `known`; None for one that says nothing and goes."""
    rows = {key: None if state == BLANK else json.dumps(state, ensure_ascii=False) for key, state in states.items()}
    return {key: text for key, text in rows.items() if text != known.get(key)}


def put(database: sqlite3.Connection, rows: Mapping[str, str | None]) -> None:
    """Write rows, as `different` gives them; the caller commits."""
    database.executemany("INSERT OR REPLACE INTO captions VALUES (?, ?)", [(key, text) for key, text in rows.items() if text is not None])
    database.executemany("DELETE FROM captions WHERE key = ?", [(key,) for key, text in rows.items() if text is None])
