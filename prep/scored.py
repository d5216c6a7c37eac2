"""Scored: what a folder knows of its pictures before they have captions, which is one tagger's scores and the tags that came with them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from prep.compile import limits, mcut_limits, merged
from prep.edits import Policy
from prep.imports import any_kept, kept
from prep.item import Item
from prep.options import UserError
from prep.score_shards import files
from prep.scores import FILE, Model, Scores, ScoreStore, picture_key, unpack
from prep.store import Store
from prep.taggers import LOCAL, TaggerRow, row_of


class Scored:
    """What is known of a folder's pictures: the scores of one tagger, and the tags that came with the pictures."""

    def __init__(self, store: Store, scores: ScoreStore | None, model: Model | None) -> None:
        self._hidden, self._scores, self._model = store.hidden, scores, model
        self._imported = any_kept(store.hidden)
        self.row: TaggerRow = row_of(model.name) if model else LOCAL

    @classmethod
    def open(cls, store: Store, tagger: str, stack: ExitStack, shard: str = "") -> Scored:
        """Open a folder's scores, as the task of a shard sees them; raises UserError if there are none of that tagger and no imported tags."""
        if not (store.hidden / FILE).exists() and not files(store.hidden) and any_kept(store.hidden):
            return cls(store, None, None)
        scores = stack.enter_context(ScoreStore.open(store.hidden, create=False, shard=shard))
        model = scores.last_used(tagger)
        if model is None:
            raise UserError(f"{store.hidden} holds no scores of the tagger {tagger}; run `prep tag --tagger {tagger}` first")
        return cls(store, scores, model)

    def cut(self, item: Item, policy: Policy) -> tuple[Scores, Mapping[str, float]]:
        """Return a picture's scores from the lowest threshold up, and the score from which each category counts.

        Raises UserError for a picture that has neither scores nor imported tags.
        """
        cuts = limits(policy, self.row)
        imported = kept(self._hidden, item.key) if self._imported else {}
        data = self._scores.packed(picture_key(item.picture_digest, item.crop), self._model) if self._scores and self._model else None
        if data is None and (not imported or policy.imported == "ignore"):
            name = self._model.name if self._model else "a tagger"
            raise UserError(f"{item.path} has not been scored by {name}; run `prep tag` first")
        scores: Scores = {}
        if data is not None and self._model is not None:
            labels = self._model.labels
            if policy.mcut:
                cuts = mcut_limits(unpack(data, len(labels.names)), labels, cuts)
            scores = labels.read_packed(data, floor=min(cuts.values(), default=1.0))
        return merged(scores, imported, policy.imported), cuts
