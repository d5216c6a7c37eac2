"""Journal: every edit of the page, noted before it is done and undone, so that a kill loses none and a restart can undo them all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from prep.database import opened
from prep.review.snapshot import Snapshot

FILE = "review.sqlite"
MOST = 2000  # edits that can be undone
_SCHEMA = """
CREATE TABLE IF NOT EXISTS edits (
    id INTEGER PRIMARY KEY, title TEXT, states TEXT, undone INTEGER DEFAULT 0, busy INTEGER DEFAULT 1
);
"""


@dataclass(frozen=True)
class Edit:
    """An edit: its title, and of each picture what it was before and after."""

    id: int
    title: str
    states: Mapping[str, tuple[Snapshot, Snapshot]]
    undone: bool


class Journal:
    """FOLDER/.atelier/review.sqlite. An edit is `begin`-ed, done on the disk and `settle`-d; what a kill left between is `unsettled`."""

    def __init__(self, hidden: Path, stack: ExitStack) -> None:
        remedy = ", and what was done on the page can no longer be undone"
        self._database: sqlite3.Connection = stack.enter_context(opened(hidden / FILE, _SCHEMA, remedy, threads=True))

    def begin(self, title: str, states: Mapping[str, tuple[Snapshot, Snapshot]]) -> Edit:
        """Note a new edit; what was undone before it can no longer be done again."""
        text = json.dumps({key: [before.row(), after.row()] for key, (before, after) in states.items()}, ensure_ascii=False)
        with self._database as db:
            db.execute("DELETE FROM edits WHERE undone = 1 AND busy = 0")
            number = db.execute("INSERT INTO edits (title, states) VALUES (?, ?)", (title, text)).lastrowid or 0
            db.execute("DELETE FROM edits WHERE id <= ? AND busy = 0", (number - MOST,))
        return Edit(number, title, states, False)

    def turn(self, edit: Edit) -> None:
        """Note that an edit is about to be undone, or done again if it was undone."""
        with self._database as db:
            db.execute("UPDATE edits SET undone = ?, busy = 1 WHERE id = ?", (not edit.undone, edit.id))

    def settle(self, edit: Edit) -> None:
        """Note that the disk is as the journal says."""
        with self._database as db:
            db.execute("UPDATE edits SET busy = 0 WHERE id = ?", (edit.id,))

    def forget(self, edit: Edit) -> None:
        """Note that an edit has not been done."""
        with self._database as db:
            db.execute("DELETE FROM edits WHERE id = ?", (edit.id,))

    def last(self) -> Edit | None:
        """Return the edit that an undo takes back."""
        return self._one("undone = 0 ORDER BY id DESC")

    def next(self) -> Edit | None:
        """Return the edit that a redo does again."""
        return self._one("undone = 1 ORDER BY id")

    def unsettled(self) -> Edit | None:
        """Return an edit at which the server was killed."""
        return self._one("busy = 1 ORDER BY id")

    def titles(self) -> dict[str, str]:
        """Return the titles of what can be undone and redone, "" for nothing."""
        found = {"undo": self._row("title", "undone = 0 ORDER BY id DESC"), "redo": self._row("title", "undone = 1 ORDER BY id")}
        return {name: row[0] if row else "" for name, row in found.items()}

    def _row(self, columns: str, which: str) -> tuple[str, ...] | None:
        found: tuple[str, ...] | None = self._database.execute(f"SELECT {columns} FROM edits WHERE {which} LIMIT 1").fetchone()
        return found

    def _one(self, which: str) -> Edit | None:
        row = self._row("id, title, states, undone", which)
        if row is None:
            return None
        states = {key: (Snapshot.read(before), Snapshot.read(after)) for key, (before, after) in json.loads(row[2]).items()}
        return Edit(int(row[0]), row[1], states, bool(row[3]))
