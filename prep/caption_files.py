"""Caption files: whose a caption is, how a person's and ours go together, and how many are written fast and safely."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prep.bulk import clear, write_all
from prep.captions import caption_path, join, parse, wordings
from prep.item import Item
from prep.ledger import Change, Ledger
from prep.names import fold
from prep.store import Store


@dataclass(frozen=True)
class Current:
    """A picture's caption as it is now; `text` may also be one that came with the raw picture and has no file here yet."""

    text: str | None
    hand: bool


def current(item: Item, text: str | None, ledger: Ledger | None = None) -> Current:
    """Find out (and note in `item.hand`) whether a person wrote a picture's caption, whose file holds `text` (None: there is none).

    A file that we did not write is a person's, and so is a caption that came with the raw picture; a deleted or
    emptied file gives the caption back to the compiler.
    """
    if not text:
        text = item.imported_caption if item.written is None else None
        item.hand = bool(text)
    elif text != item.written:
        before = ledger.interrupted(item.key, text) if ledger else None
        if before:
            before.restore(item)
            return current(item, before.text)
        item.hand = True
    return Current(text or None, item.hand)


Composed = tuple[str, list[str]]  # a caption, and which tags in it are ours


def _append(item: Item, person: str, tags: list[str]) -> Composed:
    """Put our tags behind a person's words, in each line."""
    parts = _parted(item, person)
    ours = _lacking([own for _, own in parts], tags)
    return "\n".join(_joined(keyword, own, join(ours)) for keyword, own in parts), ours


def _prepend(item: Item, person: str, tags: list[str]) -> Composed:
    """Put our tags before a person's words, behind the keyword if those begin with it."""
    parts = _parted(item, person)
    ours = _lacking([own for _, own in parts], tags)
    return "\n".join(_joined(keyword, join(ours), own) for keyword, own in parts), ours


def _keep(item: Item, person: str, tags: list[str]) -> Composed:
    return person, []


# What becomes of a caption that a person wrote, from the item as it was, the person's text and the compiled tags.
MODES: dict[str, Callable[[Item, str, list[str]], Composed]] = {
    "replace": _keep,
    "append": _append,
    "prepend": _prepend,
    "only-missing": _keep,
}


def _parted(item: Item, text: str) -> list[tuple[str, str]]:
    """Take off each line of a person's text the keyword, and the tags that an earlier run put there: the keyword, what is left."""
    ours = join(item.tags) if text == item.written else ""
    return [_part(line, item.keyword, ours) for line in wordings(text)]


def _part(line: str, keyword: str, ours: str) -> tuple[str, str]:
    keyword = keyword if keyword and line.startswith(f"{keyword}, ") else ""
    own = line[len(keyword) + 2 :] if keyword else line
    if ours and own.endswith(f", {ours}"):
        own = own[: -len(ours) - 2]
    elif ours and own.startswith(f"{ours}, "):
        own = own[len(ours) + 2 :]
    return keyword, own


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _lacking(texts: list[str], tags: list[str]) -> list[str]:
    """Return the tags that none of the texts holds as a tag of its own."""
    there = {fold(tag) for text in texts for tag in parse(text)}
    return [tag for tag in tags if fold(tag) not in there]


def write(changes: Iterable[Change], saved: Iterable[Item], store: Store, ledger: Ledger) -> None:
    """Write captions, and what is known of the items `saved`: a kill at any moment loses no text, and the next run makes the same of it."""
    changes, saved = list(changes), list(saved)
    ledger.note(changes, saved)
    texts = [(caption_path(change.item.path), None if change.text is None else f"{change.text}\n") for change in changes]
    write_all([*texts, *store.unsaved(saved)])


def close(store: Store, alone: bool = True) -> None:
    """Say that a command has written all its captions; one that is `alone` takes away what a killed one left."""
    with Ledger.open(store.hidden) as ledger:
        ledger.close()
    if alone:  # another machine may be writing just now
        clear(store.folder)
        clear(store.hidden / "items")
