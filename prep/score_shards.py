"""Score shards: what each task of an array scores goes into a file of its own, and the next command takes all of them into the store.

Tasks share a folder and nothing else; sqlite's locks cannot be relied on there, so no two tasks may write one file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from prep.database import damaged
from prep.options import load_object

PARSE = "pipelines.shards:parse"  # by name: prep does not know pipelines
COMPLETE = 1  # what PRAGMA application_id says of a shard whose task has ended


def file_of(hidden: Path, shard: str) -> Path:
    """Return where the scores of a shard, "3/16" or "auto", lie."""
    index, count = load_object(PARSE)(shard)
    return hidden / f"scores-{index + 1}-of-{count}.sqlite"


def files(hidden: Path) -> list[Path]:
    """List the shards that are in a hidden folder."""
    return sorted(hidden.glob("scores-*-of-*.sqlite"))


def mark(database: sqlite3.Connection, complete: bool) -> None:
    """Note in a shard whether its task has ended, so that the file may go once its scores are taken over."""
    database.execute(f"PRAGMA application_id = {COMPLETE if complete else 0}")


def absorb(database: sqlite3.Connection, shards: Sequence[Path], register: Callable[[str, str, int, str], int]) -> None:
    """Take the scores of shards into a store, each shard's all or none, and delete those whose task has ended.

    `register` returns the store's number of a model by name, identity, version and labels. What is there already stays: a picture's scores
    are the same whoever made them. One that is still being written, or was killed, is taken again when it has changed.
    """
    for path in shards:
        try:
            stat = path.stat()
        except FileNotFoundError:  # another process was faster
            continue
        state = f"{stat.st_size}-{stat.st_mtime_ns}"
        if database.execute("SELECT 1 FROM absorbed WHERE (shard, state) = (?, ?)", (path.name, state)).fetchone():
            continue
        if _take(database, path, state, register):
            path.unlink(missing_ok=True)


def _take(database: sqlite3.Connection, path: Path, state: str, register: Callable[[str, str, int, str], int]) -> bool:
    """Take a shard's scores, and say whether its task has ended; raises UserError if it is damaged."""
    try:
        database.execute("ATTACH ? AS shard", (str(path),))
        try:
            complete = database.execute("PRAGMA shard.application_id").fetchone()[0] == COMPLETE
            models = database.execute("SELECT id, name, identity, version, labels FROM shard.models ORDER BY used").fetchall()
            numbers = {number: register(*model) for number, *model in models}
            with database:
                for number, own in numbers.items():
                    database.execute("INSERT OR IGNORE INTO scores SELECT picture, ?, scores FROM shard.scores WHERE model = ?", (own, number))
                database.execute("INSERT OR REPLACE INTO absorbed VALUES (?, ?)", (path.name, state))
        finally:
            if any(name == "shard" for _, name, _ in database.execute("PRAGMA database_list").fetchall()):
                database.execute("DETACH shard")
    except sqlite3.DatabaseError as error:
        raise damaged(path, error, " and run `prep tag` for that shard again") from None
    return bool(complete)
