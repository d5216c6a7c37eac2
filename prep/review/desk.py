"""Desk: the library with all that the page works with: views, edits, completion, copies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from prep.names import fold
from prep.options import UserError
from prep.project import Place
from prep.review.edits import EDITS
from prep.review.evidence import Sieve
from prep.review.filters import compiled
from prep.review.journal import Journal
from prep.review.library import Library, Row
from prep.review.snapshot import Snapshot
from prep.review.thumbnails import Thumbnails
from prep.rules import rules_of

PROPOSED = 12  # completions
SORTS: dict[str, Callable[[Row], Any]] = {
    "name": lambda row: row.key,
    "tokens": lambda row: (-row.tokens, row.key),
    "tags": lambda row: (len(row.tags), row.key),
    "size": lambda row: (row.width * row.height, row.key),
    "distance": lambda row: (-(row.distance or 0.0), row.key),
    "reason": lambda row: (row.dropped or row.proposed or "~", row.key),
}


class Desk:
    """What one server holds; `start` reads the pictures and scores in the background."""

    def __init__(self, place: Place, journal: Journal, language: str = "auto") -> None:
        self.library, self.journal, self.language = Library(place, journal), journal, language
        self.thumbnails = Thumbnails(self.library)
        self.sieve = Sieve(self.library.store, str(place.settings.get("caption", {}).get("tagger", "")))
        self._view = lru_cache(maxsize=8)(self._viewed)

    def start(self) -> threading.Thread:
        """Read the pictures, then their scores, in a thread of its own."""
        thread = threading.Thread(target=self.load, name="review-load", daemon=True)
        thread.start()
        return thread

    def load(self) -> None:
        """Read the pictures, then sizes that are not known and their scores, and count the captions' tokens."""
        self.library.load()
        self.library.measure()
        self.sieve.read()
        for row in list(self.library.rows.values()):
            row.tokens  # noqa: B018 - counted once, before anybody asks

    @property
    def stamp(self) -> str:
        """Name the state of the list: another one means that views are to be asked for anew."""
        return f"{self.library.changes}-{len(self.library.rows)}"

    def view(self, text: str, sort: str) -> list[str]:
        """Return the keys of the pictures that pass a filter, sorted; raises UserError."""
        return self._view(text.strip(), sort, self.stamp)

    def _viewed(self, text: str, sort: str, stamp: str) -> list[str]:
        if sort not in SORTS:
            raise UserError(f"there is no order {sort!r}; choose one of {', '.join(SORTS)}")
        rows = list(self.library.rows.values())
        if not text:
            return [row.key for row in sorted(rows, key=SORTS[sort])]
        test = compiled(text, set().union(*(row.tags for row in rows)) if "*" in text else (), self.sieve)
        return [row.key for row in sorted(filter(test, rows), key=SORTS[sort])]

    def changed(self, versions: dict[str, str], edit: Any) -> Iterator[tuple[str, Snapshot]]:
        """Yield what pictures would be after an edit, {"kind": ..., ...}; raises UserError for one that is not known."""
        if not isinstance(edit, dict) or edit.get("kind") not in EDITS:
            raise UserError(f"there is no such edit; the kinds are {', '.join(EDITS)}")
        for key in versions:
            item = self.library.item(key)
            yield key, EDITS[edit["kind"]](Snapshot.of(item, self.library.store), item, edit)

    def completions(self, typed: str) -> list[dict[str, Any]]:
        """Propose tags that begin with what was typed, then those that hold it, the commonest first; another name leads to its tag."""
        wanted = fold(typed)
        if not wanted:
            return []
        counts = {fold(tag): (tag, number) for tag, number in reversed(self._counted(self.stamp))}
        proper = fold(rules_of("").proper(wanted.replace(" ", "_")))
        names = {*counts, *self.sieve.labels, proper} if proper != wanted else {*counts, *self.sieve.labels}

        def rank(name: str) -> tuple[bool, bool, int, str]:
            return name != proper or proper == wanted, not name.startswith(wanted), -counts.get(name, ("", 0))[1], name

        found = sorted((name for name in names if wanted in name or name == proper), key=rank)[:PROPOSED]
        return [{"tag": counts.get(name, (name, 0))[0], "count": counts.get(name, ("", 0))[1]} for name in found]

    @lru_cache(maxsize=1)  # noqa: B019 - a desk lives as long as its server
    def _counted(self, stamp: str) -> list[tuple[str, int]]:
        return self.library.vocabulary().most_common()

    def copies(self, row: Row) -> list[dict[str, Any]]:
        """List the pictures that are copies of one another with this one, the kept one among them."""
        kept = _original(row) or row.key
        rows = [other for other in list(self.library.rows.values()) if other.key == kept or _original(other) == kept]
        names = ("key", "version", "dropped", "detail")
        return [{name: getattr(other, name) for name in names} for other in rows] if len(rows) > 1 else []


def _original(row: Row) -> str:
    """Return the key of the picture that this one is a copy of, "" for none."""
    copy = "duplicate" in (row.dropped, row.proposed) and row.detail.startswith("of ")
    return row.detail.removeprefix("of ").split(" (", 1)[0] if copy else ""
