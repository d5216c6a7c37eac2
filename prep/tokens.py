"""Tokens: how long every caption is to the text encoder, which max_token_length holds them all, and what would be cut."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from prep.captions import join, parse, read_caption
from prep.clip_bpe import CHUNK, LENGTHS, count
from prep.item import Item, Store
from prep.options import UserError, atomic_write, option
from prep.project import Place
from prep.step import Step

LEDGER = "tokens.json"


@dataclass(frozen=True)
class Entry:
    """A caption in the ledger: tokens, and for 75, 150 and 225 the tags that do not fit any more."""

    picture: str
    tokens: int
    beyond: dict[int, list[str]]


@dataclass(frozen=True)
class Tokens(Step):
    """Count the CLIP tokens of every caption and say which max_token_length (75, 150 or 225) holds them all."""

    json: bool = option(False, help="Print the ledger as JSON.")

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        for item in batch:
            text = caption_of(item)
            item.tokens = None if text is None else count(text)
        return batch

    def finish(self, place: Place, store: Store) -> None:
        kept = [(item, caption_of(item)) for item in store.items() if not item.dropped]
        if not kept:
            return  # the report has said that all was set aside
        entries = [entry(item.key, text) for item, text in kept if text is not None]
        if not entries:
            raise UserError(f"no picture in {place.work} has a caption; run `prep tag` and `prep caption`, or write STEM.txt files")
        best = recommend(entries)
        bare = [item.key for item, text in kept if text is None]
        ledger = {"max_token_length": best, "without_caption": bare, "captions": [asdict(e) for e in entries]}
        text = json.dumps(ledger, indent=1, ensure_ascii=False) + "\n"
        atomic_write(store.hidden / LEDGER, text)
        if self.json:
            print(text, end="")
        else:
            show(entries, best, bare, place.settings.get("train", {}).get("max_token_length", CHUNK))
        if best is None:
            raise UserError(too_long(entries))


def caption_of(item: Item) -> str | None:
    """Return the caption as it stands on disk, edits by hand included, else what the sidecar holds; None if there is none."""
    text = read_caption(item.path)
    return text if text is not None else item.caption or None


def entry(picture: str, text: str) -> Entry:
    """Count a caption and find the tags that end beyond each length."""
    return Entry(picture, count(text), {length: tags_beyond(text, length) for length in LENGTHS if count(text) > length})


def tags_beyond(text: str, length: int) -> list[str]:
    """Return the tags of a caption that lie, in whole or in part, past its first `length` tokens."""
    tags = parse(text)
    fit = bisect_right(range(1, len(tags) + 1), length, key=lambda number: count(join(tags[:number])))
    return tags[fit:]


def recommend(entries: Iterable[Entry]) -> int | None:
    """Return the smallest max_token_length that cuts no caption, None if even 225 cuts one."""
    longest = max(entry.tokens for entry in entries)
    return next((length for length in LENGTHS if longest <= length), None)


def too_long(entries: Iterable[Entry]) -> str:
    """Name the captions that no setting can hold."""
    names = [f"{e.picture} ({e.tokens})" for e in entries if e.tokens > LENGTHS[-1]]
    most = 10
    listed = ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
    return f"captions of more than {LENGTHS[-1]} tokens cannot be used: {listed}; shorten them, or raise the threshold of `prep caption`"


def show(entries: list[Entry], best: int | None, bare: list[str], current: int) -> None:
    """Print the span, the recommendation, and a table of captions that one pass of the text encoder does not hold."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(stderr=True)
    lengths = sorted(entry.tokens for entry in entries)
    console.print(f"{len(entries)} captions of {lengths[0]} to {lengths[-1]} tokens, the middle one {lengths[len(lengths) // 2]}", highlight=False)
    if bare:
        console.print(f"{len(bare)} pictures have no caption: {', '.join(bare[:5])}{' …' if len(bare) > 5 else ''}", markup=False, highlight=False)
    long = [entry for entry in entries if entry.tokens > CHUNK]
    if long:
        table = Table("picture", "tokens", f"tags beyond {CHUNK}")
        for e in sorted(long, key=lambda e: -e.tokens):
            table.add_row(escape(e.picture), str(e.tokens), escape(", ".join(e.beyond[CHUNK])))
        console.print(table)
    if best is not None:
        hint = f" (now {current}: set it under [train] in dataset.toml)" if current < best else ""
        console.print(f"max_token_length {best} holds all of them{hint}", markup=False, highlight=False)
