"""Ledger: what captions were before the last command changed them, so that it can be undone, and so that a killed run knows its own texts."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prep.caption_states import FILE, REMEDY, SCHEMA, different, put, texts
from prep.database import opened
from prep.item import Item


@dataclass(frozen=True)
class State:
    """A caption and what is remembered of it."""

    text: str | None  # None: there was no file
    written: str | None
    hand: bool
    tags: list[str]
    keyword: str
    full_name: str

    @classmethod
    def of(cls, item: Item, text: str | None) -> State:
        return cls(text, item.written, item.hand, list(item.tags), item.keyword, item.full_name)

    def restore(self, item: Item) -> None:
        """Make the item remember it again."""
        item.written, item.hand, item.tags, item.keyword, item.full_name = self.written, self.hand, list(self.tags), self.keyword, self.full_name
        item.caption = self.text or ""


@dataclass(frozen=True)
class Change:
    """A caption that is about to be written."""

    item: Item
    before: State
    text: str | None  # None: the file goes

    def ours(self) -> tuple[str | None, str | None]:
        """Return the texts that no person has to be thanked for."""
        return self.text, None if self.before.hand else self.before.text


class Ledger:
    """FOLDER/.atelier/captions.sqlite, of the last command that changed captions.

    Before a batch of captions is written, `note` keeps what they were, what their items will be and the digests of their texts, in one
    transaction. While the command has not called `close`, a caption with such a digest that its item does not know is `interrupted`: the
    next command takes it for what it was before, and so it does with one that was not written any more. A command that goes on after a kill
    keeps what the captions were before the first. Several processes may share it.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    @classmethod
    @contextmanager
    def open(cls, hidden: Path, create: bool = True) -> Iterator[Ledger]:
        """Open the ledger of a folder's hidden folder, or an empty one if it is not to be made; raises UserError if it is damaged."""
        with opened(hidden / FILE, SCHEMA, REMEDY, create) as database:
            yield cls(database)

    @property
    def unfinished(self) -> bool:
        """Say whether the command that changed captions last was killed."""
        return self._database.execute("PRAGMA user_version").fetchone()[0] == 1

    def interrupted(self, key: str, text: str) -> State | None:
        """Return what a caption was before a command that was killed, if that wrote this text, or was killed before it did."""
        query = "SELECT state, EXISTS (SELECT 1 FROM ours WHERE ours.key = before.key AND digest = ?) FROM before WHERE key = ?"
        for state, ours in self._database.execute(query, (digest(text), key)) if self.unfinished else ():
            before = State(**json.loads(state))
            if ours or before.text == text:
                return before
        return None

    def note(self, changes: Iterable[Change], items: Iterable[Item]) -> None:
        """Keep what captions are, before they are changed, and what items will be; a new command's first change forgets the command before it."""
        changes, states = list(changes), {item.key: item.caption_state() for item in items}
        rows = different(states, texts(self._database, list(states)))
        if not changes and not rows:
            return
        with self._database as db:
            db.execute("BEGIN IMMEDIATE")
            put(db, rows)
            if changes and not self.unfinished:
                db.execute("DELETE FROM before")
                db.execute("DELETE FROM ours")
                db.execute("PRAGMA user_version = 1")
            before = [(change.item.key, json.dumps(vars(change.before), ensure_ascii=False)) for change in changes]
            db.executemany("INSERT OR IGNORE INTO before VALUES (?, ?)", before)
            # What was ours before is noted too: of caption and item either may be the one that a kill left old.
            ours = [(change.item.key, digest(text)) for change in changes for text in change.ours() if text]
            db.executemany("INSERT OR IGNORE INTO ours VALUES (?, ?)", ours)

    def close(self) -> None:
        """Say that all captions are written."""
        if self.unfinished:
            with self._database as db:
                db.execute("DELETE FROM ours")
                db.execute("PRAGMA user_version = 0")

    def before(self) -> Mapping[str, State]:
        """Return what the captions were that the last command changed: key -> state."""
        rows: Iterable[tuple[str, Any]] = self._database.execute("SELECT key, state FROM before")
        return {key: State(**json.loads(state)) for key, state in rows}


def digest(text: str) -> str:
    """Name a text in 16 letters."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
