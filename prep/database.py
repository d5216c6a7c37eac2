"""Small databases in a folder's hidden folder: opened with their schema, closed at the end, and one that is damaged told in a sentence.

sqlite's own journal makes every write whole or undone, also after SIGKILL.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prep.options import UserError

DAMAGE = (sqlite3.DatabaseError, zlib.error)  # what a damaged one raises
WAIT = 60.0  # seconds for another process that is writing


@contextmanager
def opened(path: Path, schema: str, remedy: str, create: bool = True, threads: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a database, or an empty one in memory if there is none and none is to be made; raises UserError, which ends in `remedy`.

    With `threads` the connection may be used from several, which then must take turns.
    """
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    place = path if create or path.exists() else ":memory:"
    database = sqlite3.connect(place, timeout=WAIT, check_same_thread=not threads)
    try:
        database.executescript(schema)
        yield database
    except DAMAGE as error:
        raise damaged(path, error, remedy) from None
    finally:
        database.close()


def damaged(path: Path, error: Exception, remedy: str) -> UserError:
    """Return the sentence for a database that cannot be used; it ends in `remedy`."""
    return UserError(f"{path} cannot be used ({error}); delete it{remedy}")
