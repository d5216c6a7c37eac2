"""Library: a folder's pictures as the page lists them, a few hundred bytes each, read once and kept true by every edit."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from sys import intern

from prep.captions import parse, read_caption, wordings
from prep.clip_bpe import count
from prep.item import Item
from prep.names import fold
from prep.options import UserError
from prep.project import Place
from prep.review.journal import Edit, Journal
from prep.review.snapshot import Snapshot, write
from prep.scores import picture_key
from prep.store import Store

SCREEN = 60  # pictures of a first screen


@dataclass(slots=True)
class Row:
    """A picture as it is listed and filtered."""

    key: str
    name: str  # of its file
    version: str
    text: str
    tags: frozenset[str]  # folded
    dropped: str
    detail: str
    proposed: str
    width: int
    height: int
    emphasis: float
    hand: bool
    crop: tuple[int, int, int, int] | None
    masked: bool
    scored: str  # under which its scores are kept
    distance: float | None
    counted: int = -1  # tokens; counted when they are first asked for

    @property
    def tokens(self) -> int:
        """Return the CLIP tokens of the caption, of several the longest."""
        if self.counted < 0:
            self.counted = max(map(count, wordings(self.text)), default=0)
        return self.counted


class ConflictError(Exception):
    """Pictures that are not as the page that edits them has seen them."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__(f"changed meanwhile: {', '.join(keys[:5])}{' …' if len(keys) > 5 else ''}")
        self.keys = keys


@dataclass(frozen=True)
class Turned:
    """What an undo or redo did: the edit's title, the pictures it changed, and those that have changed since and stay."""

    title: str
    keys: list[str]
    stay: list[str] = field(default_factory=list)


class Library:
    """The pictures of a place. Edits take turns; reading the rows needs no turn."""

    def __init__(self, place: Place, journal: Journal) -> None:
        self.place, self.store, self.journal = place, Store(place.work), journal
        self.rows: dict[str, Row] = {}
        self.loaded = threading.Event()
        self.changes = 0  # grows with every edit
        self.roots = [path.resolve() for path in {place.root, place.work, place.raw if place.is_project else place.root}]
        self._lock = threading.RLock()

    def load(self) -> None:
        """Read all pictures, those of the first screen before all others; the rows grow while this runs."""
        self._mend()
        painted = {path.stem for path in (self.store.hidden / "painted").glob("*.png")}
        first = (self.store.get(key) for key in self.store.keys()[:SCREEN])
        for item in chain((item for item in first if item and item.path.exists()), self.store.items()):
            if item.key not in self.rows:
                state = Snapshot.of(item, self.store) if item.key in painted else Snapshot.made(item, _caption(item), b"")
                with self._lock:
                    self.rows.setdefault(item.key, row_of(item, state))
        self.loaded.set()

    def item(self, key: str) -> Item:
        """Return a picture as its sidecar has it now; raises UserError for one that is not there."""
        row = self.rows.get(key)
        item = (self.store.get(key) or Item(row.key, self.store.folder / row.name)) if row else None
        if item is None or not item.path.exists():
            raise UserError(f"there is no picture {key} any more; load the page again")
        if not item.width:
            self._measure(item)
        return item

    def picture(self, key: str, raw: bool = False) -> Path:
        """Return a picture's file, or that of the raw picture it came from; raises UserError for one outside the place."""
        item = self.item(key)
        path = (item.source if raw else item.picture) or item.path
        if not any(path.resolve().is_relative_to(root) for root in self.roots):
            raise UserError(f"the file of {key} lies outside {self.place.root} and is not shown; copy it into the folder")
        return path

    def edit(self, title: str, versions: dict[str, str], after: Iterable[tuple[str, Snapshot]]) -> list[str]:
        """Do an edit on the disk and return the keys it changed; raises ConflictError, and does nothing, if a version is not what is there."""
        with self._lock:
            items = {key: self.item(key) for key in versions}
            before = {key: Snapshot.of(item, self.store) for key, item in items.items()}
            if stale := [key for key, version in versions.items() if before[key].version != version]:
                self._take(stale)
                raise ConflictError(stale)
            states = {key: (before[key], state) for key, state in after if state != before[key]}
            if states:
                edit = self.journal.begin(title, states)
                try:
                    self._write(states)
                except OSError:  # a full disk, a folder that may not be written to
                    self._take_back(edit)
                    raise
                self.journal.settle(edit)
            return list(states)

    def _take_back(self, edit: Edit) -> None:
        """Have the disk as it was before an edit that failed; where that fails too, the next start finishes the edit."""
        for key, (before, _) in edit.states.items():
            item = self.item(key)
            now = Snapshot.of(item, self.store)
            if now != before:
                write([(item, now, before)], self.store)
        self.journal.forget(edit)

    def turn(self, back: bool) -> Turned:
        """Take the last edit back, or do again what was taken back; pictures that have changed since stay as they are."""
        with self._lock:
            edit = self.journal.last() if back else self.journal.next()
            if edit is None:
                raise UserError("there is nothing to undo" if back else "there is nothing to do again")
            states, stay = self._turnable(edit, back)
            self.journal.turn(edit)
            self._write(states)
            self.journal.settle(edit)
            return Turned(edit.title, list(states), stay)

    def _turnable(self, edit: Edit, back: bool) -> tuple[dict[str, tuple[Snapshot, Snapshot]], list[str]]:
        """Say from which state to which an edit's pictures go, and which do not because they are in neither."""
        states, stay = {}, []
        for key, pair in edit.states.items():
            start, end = pair[::-1] if back else pair
            item = self.store.get(key)
            if item is not None and item.path.exists() and Snapshot.of(item, self.store) == start:
                states[key] = start, end
            else:
                stay.append(key)
        return states, stay

    def _mend(self) -> None:
        """Finish the edit at which an earlier server was killed; what a person or a command has written since stays."""
        with self._lock:
            while edit := self.journal.unsettled():
                for key, pair in edit.states.items():
                    item = self.store.get(key) or Item(key, self.store.folder / f"{key}.png")
                    now = Snapshot.of(item, self.store) if item.path.exists() else None
                    if now and now.text in (pair[0].text, pair[1].text) and now.painted in (pair[0].painted, pair[1].painted):
                        write([(item, now, pair[0] if edit.undone else pair[1])], self.store)
                self.journal.settle(edit)

    def _write(self, states: dict[str, tuple[Snapshot, Snapshot]]) -> None:
        items = {key: self.item(key) for key in states}
        write([(items[key], *pair) for key, pair in states.items()], self.store)
        self._take(states)

    def _take(self, keys: Iterable[str]) -> None:
        """Have rows say what is on the disk."""
        self.changes += 1
        for key in keys:
            item = self.item(key)
            self.rows[key] = row_of(item, Snapshot.of(item, self.store))

    def fresh(self, key: str) -> tuple[Item, Snapshot]:
        """Read a picture anew, as another program may have changed it."""
        with self._lock:
            item = self.item(key)
            state = Snapshot.of(item, self.store)
            if self.rows[key].version != state.version:
                self._take([key])
            self.rows[key].width, self.rows[key].height = item.width, item.height
            return item, state

    def vocabulary(self) -> Counter[str]:
        """Count in how many captions each tag is, as it is spelled there."""
        return Counter(tag for row in list(self.rows.values()) for tag in set(tags_of(row.text)))

    def measure(self) -> None:
        """Read the sizes of pictures that no command has looked at yet."""
        unmeasured = [row for row in list(self.rows.values()) if not row.width]
        for row in unmeasured:
            item = Item(row.key, self.store.folder / row.name)
            self._measure(item)
            row.width, row.height = item.width, item.height
        self.changes += bool(unmeasured)

    def _measure(self, item: Item) -> None:
        from PIL import Image

        try:
            with Image.open(item.path) as image:
                item.width, item.height = image.size
        except OSError:
            return


def _caption(item: Item) -> str | None:
    try:
        return read_caption(item.path)
    except UserError:
        return None  # not UTF-8; opening the picture says so


def tags_of(text: str) -> Iterator[str]:
    """Yield the tags of all lines of a caption."""
    for line in text.split("\n"):
        yield from parse(line)


def row_of(item: Item, state: Snapshot) -> Row:
    """Make the row of a picture."""
    return Row(
        key=item.key,
        name=item.path.name,
        version=state.version,
        text=state.text or "",
        tags=frozenset(intern(fold(tag)) for tag in tags_of(state.text or "")),
        dropped=item.dropped,
        detail=item.detail,
        proposed=item.proposed,
        width=item.width,
        height=item.height,
        emphasis=item.emphasis,
        hand=item.hand or bool(state.text and state.text != item.written),
        crop=state.crop,
        masked=bool(item.masked or state.painted),
        scored=picture_key(item.picture_digest, state.crop),
        distance=item.distance,
    )
