"""Traits: tell characters apart by what a tagger says of their hair, eyes, horns and the like, and of nothing that changes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache, cached_property
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from prep.embedders import Judged
from prep.embedders.consensus import Trait, judge
from prep.taggers import Located, Tagger, locate

if TYPE_CHECKING:
    from PIL import Image

    from prep.embedders import EmbedderRow
    from prep.scores import Labels

BATCH = 16
NAMES = "character"
# What a picture's distance is if it differs from the others in one kind of trait alone. All but marks are more than the limit of 0.5,
# because the world that was measured in has characters that differ in one; of marks all must be missing, as a hat hides horns.
WEIGHTS = {"hair colour": 0.9, "eye colour": 0.8, "hair style": 0.8, "person": 0.7, "marks": 0.6, NAMES: 0.9}
PRESENCE = ("somebody", "nobody")


class Traits:
    """The scores of one tagger's tags of a character; see `prep.embedders.Embedder`."""

    def __init__(self, row: EmbedderRow, tagger: str, device: str = "auto") -> None:
        self.row, self.name, self.device = row, tagger, device

    @cached_property
    def _located(self) -> Located:
        return locate(self.name)

    @cached_property
    def _tagger(self) -> Tagger:
        return self._located.open(self.device, BATCH)

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        """Of each kind of trait the places of its tags in the tagger's output."""
        return places(self._tagger.labels)

    @cached_property
    def _columns(self) -> list[int]:
        """The places that are kept, sorted; a vector holds their scores."""
        return sorted({place for found in self._places.values() for place in found})

    @cached_property
    def version(self) -> str:
        columns = hashlib.sha256(repr(self._columns).encode()).hexdigest()[:8]
        return f"traits {self._located.identity} {self._tagger.version} {columns}"

    @cached_property
    def traits(self) -> list[Trait]:
        """The kinds of traits that this tagger knows, with their places in the vectors."""
        names, row = self._tagger.labels.names, self._located.row
        return [
            Trait(
                kind,
                tuple(map(self._columns.index, self._places[kind])),
                tuple(names[place] for place in self._places[kind]),
                weight,
                min(row.character, 0.6) if kind == NAMES else row.general,
                additive=kind == "marks",
            )
            for kind, weight in WEIGHTS.items()
            if self._places[kind]
        ]

    def embed(self, images: Sequence[Image.Image]) -> list[np.ndarray]:
        scores = self._tagger.score([self._tagger.prepare(image) for image in images])
        return [row[self._columns].astype(np.float32) for row in scores]

    def judge(self, vectors: np.ndarray, limit: float | None = None) -> list[Judged]:
        return judge(vectors, self.traits, self.row.limit if limit is None else limit)

    def somebody(self, vector: np.ndarray) -> bool | None:
        """Say whether the tagger sees anybody; None if it knows no pictures without people and so cannot tell."""
        columns = {kind: [self._columns.index(place) for place in self._places[kind]] for kind in PRESENCE}
        if not columns["nobody"]:
            return None
        return bool(vector[columns["somebody"]].max(initial=0) >= self._located.row.general)


def places(labels: Labels) -> dict[str, list[int]]:
    """Return of each kind of trait the places of its tags in a tagger's output, in their order."""
    found = {kind: [i for i, name in enumerate(labels.names) if pattern.fullmatch(name)] for kind, pattern in _patterns().items()}
    return found | {NAMES: [i for i, category in enumerate(labels.categories) if category == NAMES]}


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    """Read data/traits.txt: a kind of trait and its tags a line, * for any letters."""
    text = resources.files("prep").joinpath("embedders/data/traits.txt").read_text(encoding="utf-8")
    lines = (line.partition(":") for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {kind: re.compile("|".join(".*".join(map(re.escape, tag.split("*"))) for tag in tags.split())) for kind, _, tags in lines}
