"""Import: take over what lies beside the raw pictures, or in them, so that captions start from what people said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import click

from prep.captions import read_caption
from prep.imports import KINDS, Asked, Found, keep
from prep.item import Item
from prep.options import UserError, option
from prep.project import Place
from prep.step import Step
from prep.store import Store

SUFFIXES = (".txt", ".caption", ".json")
BESIDE_TXT = ("grabber", "text")  # kinds that read the file where `prep caption` writes, if the pictures are in a bare folder


@dataclass(frozen=True)
class Import(Step):
    """Take over tags and captions that lie beside the raw pictures: logs of Grabber, JSON of gallery-dl or Danbooru, kohya's metadata,
    captions, or the prompts that generated pictures hold.

    Tags are kept apart from the scores, and `prep caption` merges them with the tagger's: an imported tag counts as sure. A caption stays
    as a person's. What an earlier import kept is replaced; nothing beside the raw pictures is changed.
    """

    kind: str = option("auto", help=f"What to read: auto takes the first of {', '.join(KINDS)} that is there.", choices=("auto", *KINDS))
    separator: str = option("", help="What stands between the tags of a log: space, comma, newline, or a sign (default: found out).")
    metadata: str = option("", help="A metadata file of kohya's scripts (default: any in the raw folder).")

    kinds: ClassVar[tuple[str, ...]] = tuple(KINDS)  # that auto looks for

    @cached_property
    def _counts(self) -> Counter[str]:
        return Counter()

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        asked = Asked(self.separator, Path(self.metadata) if self.metadata else None)
        for item in batch:
            if item.parent:
                continue  # of what is said of the whole picture, nobody knows what its part shows
            source = item.source or item.path
            kind, found = self._find(source, asked)
            keep(store.hidden, item.key, found.tags if found else {})
            if found is not None:
                self._take(item, source, found)
                self._counts[kind] += 1
        return batch

    def _find(self, source: Path, asked: Asked) -> tuple[str, Found | None]:
        kinds = self.kinds if self.kind == "auto" else (self.kind,)
        ours = any(kind in BESIDE_TXT for kind in kinds) and _is_ours(source)
        for kind in kinds:
            found = None if ours and kind in BESIDE_TXT else KINDS[kind].read(source, asked)
            if found is not None:
                return kind, found
        return "", None

    def _take(self, item: Item, source: Path, found: Found) -> None:
        """Note a person's caption; a log that `prep clean` took for one is none."""
        if found.caption:
            item.imported_caption = found.caption
        elif found.file.suffix == ".txt" and item.imported_caption is not None and item.imported_caption == read_caption(source):
            item.imported_caption = None

    def finish(self, place: Place, store: Store) -> None:
        if not self._counts:
            self.nothing_found()
            return
        counts = ", ".join(f"{count} by {kind}" for kind, count in self._counts.most_common())
        click.echo(f"imported for {self._counts.total()} pictures: {counts}", err=True)

    def nothing_found(self) -> None:
        raise UserError(f"nothing was found beside the pictures or in them; `prep import --kind` reads {', '.join(KINDS)}")


@dataclass(frozen=True)
class Beside(Import):
    """Import as `prep run` does: what lies beside the pictures, not the prompts in them, which ask for what may not be there."""

    kinds: ClassVar[tuple[str, ...]] = tuple(kind for kind in KINDS if kind != "parameters")

    @classmethod
    def table(cls) -> str:
        return Import.table()

    def nothing_found(self) -> None:
        """It is no mistake."""


def lies_beside(raw: Path) -> bool:
    """Say whether a folder of raw pictures holds any file that could be read."""
    return raw.is_dir() and any(path.suffix.lower() in SUFFIXES for path in raw.rglob("*"))


def _is_ours(source: Path) -> bool:
    """Say whether the caption beside a picture is one that a command of ours wrote."""
    caption = read_caption(source)
    return caption is not None and Store(source.parent).wrote(source, caption)
