"""Keyword: put the concept word first in every caption and take the character's own name out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from prep.caption_files import close, current, write
from prep.captions import join, parse, read_caption, wordings
from prep.edits import fold, with_keyword, without_name
from prep.item import Item
from prep.ledger import Change, Ledger, State
from prep.names import nameless
from prep.options import UserError, option
from prep.project import Place
from prep.step import Step
from prep.store import Store


@dataclass(frozen=True)
class Keyword(Step):
    """Put the concept word first in every caption, once, and take the character's own name out of them."""

    batch: ClassVar[int] = 128  # the disk is waited for once for each

    keyword: str = option("", "-k", help="The concept word; `prep rare` proposes some.")
    full_name: str = option("", help="The character's own name, taken out in every form; several by commas.")

    def __call__(self, items: Iterable[Item], store: Store) -> Iterator[Item]:
        self.check()
        yield from super().__call__(items, store)

    def work(self, batch: list[Item], store: Store) -> Iterator[Item]:
        """Change the captions of kept items."""
        kept = [item for item in batch if not item.dropped]
        with Ledger.open(store.hidden) as ledger:
            write(filter(None, [self._change(item, ledger) for item in kept]), kept, store, ledger)
        yield from batch

    def check(self) -> None:
        """Raise UserError unless the keyword is one tag, and none that `full_name` takes out."""
        if not self.keyword.strip():
            raise UserError("there is no keyword; `prep rare` proposes some: give one with --keyword, or as keyword under [project] in dataset.toml")
        if any(sign in self.keyword for sign in ",\n\r"):
            raise UserError(f"the keyword {self.keyword!r} is more than one tag; take one word without a comma")
        if not without_name([fold(self.keyword)], self.full_name):
            raise UserError(f"the keyword {self.keyword!r} is the full name that captions must not hold; take another (`prep rare` proposes some)")

    def _change(self, item: Item, ledger: Ledger) -> Change | None:
        """Set the item's keyword and caption, and say how the file changes."""
        old = read_caption(item.path)
        now, keyword = current(item, old, ledger), self.keyword.strip()
        before = State.of(item, old)
        before_word, item.keyword, item.full_name = item.keyword, keyword, self.full_name
        text = now.text if now.text is not None else join(item.tags)
        captions = [text] if now.hand else wordings(text) or [""]
        text = "\n".join(self._changed(caption, before_word, now.hand) for caption in captions)
        item.caption = item.written = text
        return Change(item, before, text) if text != old else None

    def _changed(self, caption: str, before: str, hand: bool) -> str:
        """Put the keyword into a caption in which `before` may be the keyword of a former run."""
        keyword = self.keyword.strip()
        inside = None if hand else _inside(caption, [keyword, before])
        if inside is None:
            return with_keyword(caption, keyword, self.full_name, before)
        return nameless(inside.sub(lambda _: keyword, caption), self.full_name)

    def finish(self, place: Place, store: Store) -> None:
        close(store)


def _inside(text: str, words: list[str]) -> re.Pattern[str] | None:
    """Return the pattern of the word if a template of `prep caption` has put it into the middle of the text's words, where it stays."""
    for word in filter(None, words):
        pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
        tags = parse(text)
        if not any(fold(tag) == fold(word) for tag in tags) and any(" " in tag and pattern.search(tag) for tag in tags):
            return pattern
    return None
