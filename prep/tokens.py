"""Tokens: how long every caption is to the text encoder, which max_token_length holds them all, and what would be cut."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from prep.captions import join, parse, read_caption, wordings
from prep.clip_bpe import CHUNK, LENGTHS, count
from prep.item import Item
from prep.options import UserError, atomic_write, option
from prep.project import Place
from prep.step import Step
from prep.store import Store

LEDGER = "tokens.json"
STEP = 15  # tokens, of the histogram; a fifth of a row


@dataclass(frozen=True)
class Entry:
    """A caption in the ledger: its tokens, how they fill rows of 75, and what does not fit into 75, 150 and 225.

    All text encoders of a base (SDXL has two) read the same tokens; they differ only in what fills up a row, which is no token here.
    """

    picture: str
    tokens: int
    rows: list[int]  # tokens in each row of 75; the encoder reads row by row
    beyond: dict[int, list[str]]  # length -> the tags that lie, in whole or in part, past it
    straddling: dict[int, str]  # boundary -> the tag that it cuts in two


@dataclass(frozen=True)
class Tokens(Step):
    """Count the CLIP tokens of every caption and say which max_token_length (75, 150 or 225) holds them all."""

    json: bool = option(False, help="Print the ledger as JSON.")

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        for item in batch:
            text = caption_of(item)
            item.tokens = None if text is None else count(longest(text))
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


def longest(text: str) -> str:
    """Return the longest of a picture's captions, which are lines."""
    return max(wordings(text), key=count, default="")


def entry(picture: str, text: str) -> Entry:
    """Count a caption, of several the longest, and find the tags that end beyond each length."""
    text = longest(text)
    tokens = count(text)
    beyond = {length: tags_beyond(text, length) for length in LENGTHS if tokens > length}
    cut = {length: _cut_at(text, length) for length in beyond}
    rows = [min(CHUNK, tokens - start) for start in range(0, max(tokens, 1), CHUNK)]
    return Entry(picture, tokens, rows, beyond, {length: tag for length, tag in cut.items() if tag})


def tags_beyond(text: str, length: int) -> list[str]:
    """Return the tags of a caption that lie, in whole or in part, past its first `length` tokens."""
    tags = parse(text)
    return tags[_whole_tags(tags, length) :]


def _whole_tags(tags: list[str], length: int) -> int:
    """Count the tags from the first on that lie wholly within `length` tokens."""
    return bisect_right(range(1, len(tags) + 1), length, key=lambda number: count(join(tags[:number])))


def _cut_at(text: str, length: int) -> str:
    """Return the tag that begins before a boundary and ends after it; "" if the boundary falls between two."""
    tags = parse(text)
    whole = _whole_tags(tags, length)
    if whole == len(tags):
        return ""
    begins = count(join(tags[:whole]) + ",") if whole else 0
    return tags[whole] if begins < length else ""


def fit(tags: Sequence[str], limit: int, keep: int, weakest: Iterable[str]) -> tuple[list[str], list[str]]:
    """Leave tags out, weakest first, until the caption has at most `limit` tokens; return those kept, in their order, and those left out.

    The first `keep` tags always stay, even if they alone are too long; `weakest` names the tags that may go, the weakest first.
    """
    kept, dropped = list(tags), []
    safe = set(kept[:keep])
    for tag in weakest:
        if count(join(kept)) <= limit:
            break
        if tag in kept and tag not in safe:
            kept.remove(tag)
            dropped.append(tag)
    return kept, dropped


def recommend(entries: Iterable[Entry]) -> int | None:
    """Return the smallest max_token_length that cuts no caption, None if even 225 cuts one."""
    longest = max(entry.tokens for entry in entries)
    return next((length for length in LENGTHS if longest <= length), None)


def histogram(lengths: Sequence[int], width: int = 40) -> str:
    """Draw how many captions there are of each length, in steps of 15 tokens, the ends of the rows marked."""
    counts = Counter(max(0, length - 1) // STEP for length in lengths)
    most, lines = max(counts.values()), []
    for step in range(max(counts) + 1):
        first, last = step * STEP + 1, (step + 1) * STEP
        bar = "#" * max(round(width * counts[step] / most), counts[step] > 0)
        lines.append(f"{first:4}-{last:<4}{'|' if last in LENGTHS else ' '} {bar} {counts[step] or ''}".rstrip())
    return "\n".join(lines)


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
    console.print(histogram(lengths), markup=False, highlight=False)
    long = [entry for entry in entries if entry.tokens > CHUNK]
    if long:
        table = Table("picture", "tokens", f"tags beyond {CHUNK}", "cut in two")
        for e in sorted(long, key=lambda e: -e.tokens):
            table.add_row(escape(e.picture), str(e.tokens), escape(", ".join(e.beyond[CHUNK])), escape(", ".join(e.straddling.values())))
        console.print(table)
    if best is not None:
        hint = f" (now {current}: set it under [train] in dataset.toml)" if current < best else ""
        console.print(f"max_token_length {best} holds all of them{hint}", markup=False, highlight=False)
