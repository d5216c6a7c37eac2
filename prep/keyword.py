"""Keyword: put the concept word first in every caption and take the character's own name out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prep.caption import hand_text, write_caption
from prep.captions import join
from prep.edits import fold, with_keyword, without_name
from prep.item import Item, Store
from prep.options import UserError, option
from prep.step import Step


@dataclass(frozen=True)
class Keyword(Step):
    """Put the concept word first in every caption, once, and take the character's own name out of them."""

    keyword: str = option("", "-k", help="The concept word; `prep rare` proposes some.")
    full_name: str = option("", help="The character's own name, taken out in every form; several by commas.")

    def __call__(self, items: Iterable[Item], store: Store) -> Iterator[Item]:
        self.check()
        yield from super().__call__(items, store)

    def check(self) -> None:
        """Raise UserError unless the keyword is one tag, and none that `full_name` takes out."""
        if not self.keyword.strip():
            raise UserError("there is no keyword; `prep rare` proposes some: give one with --keyword, or as keyword under [project] in dataset.toml")
        if any(sign in self.keyword for sign in ",\n\r"):
            raise UserError(f"the keyword {self.keyword!r} is more than one tag; take one word without a comma")
        if not without_name([fold(self.keyword)], self.full_name):
            raise UserError(f"the keyword {self.keyword!r} is the full name that captions must not hold; take another (`prep rare` proposes some)")

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        for item in batch:
            text = hand_text(item)
            old, item.keyword, item.full_name = item.keyword, self.keyword.strip(), self.full_name
            text = with_keyword(join(item.tags) if text is None else text, item.keyword, self.full_name, old)
            write_caption(item, text, store)
        return batch
