"""Consensus: what most pictures agree on, trait by trait, and how far each picture is from that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prep.embedders import Judged

# A trait counts as far as the set agrees on it: not at all where no half shares it, in full from three quarters. So hair that is worn
# in many ways does not make strangers of its pictures, and a tagger that does not know what it sees makes none at all.
DISAGREED, AGREED = 0.5, 0.75
ENOUGH = 0.2  # share of the pictures that must show a trait before it says anything
SHARED = 0.6  # mean score from which the set is said to have a mark
FAINT, CLEAR = 0.4, 1.6  # times the tagger's threshold: the score at which a trait begins to be seen, and is seen plainly
ROUNDS = 8


@dataclass(frozen=True)
class Trait:
    """A kind of trait: the places of its tags in the vectors, what it weighs, and from which score its tags count."""

    name: str
    places: tuple[int, ...]
    tags: tuple[str, ...]
    weight: float  # the distance of a picture that differs in this alone
    threshold: float
    additive: bool = False  # False: one value of several, such as a colour. True: marks that are there or not

    def seen(self, scores: np.ndarray) -> np.ndarray:
        """Return how plainly each picture shows the trait at all, 0..1, from its scores (n, tags)."""
        low, high = FAINT * self.threshold, min(CLEAR * self.threshold, 0.95)
        return np.clip((scores.max(axis=1) - low) / (high - low), 0, 1)


@dataclass(frozen=True)
class _View:
    """One trait over a set: how far each picture is from the members in it, weighed by how far these agree."""

    trait: Trait
    scores: np.ndarray  # (n, tags)
    members: np.ndarray  # (n,) bool

    @cached_property
    def common(self) -> np.ndarray:
        """What the members show, (tags,), the most frequent value 1; for marks their mean scores, those shared by few as 0."""
        if self.trait.additive:
            mean = self.scores[self.members].mean(axis=0)
            return np.where(mean >= SHARED, mean, 0)
        seen = self.trait.seen(self.scores)[self.members, None]
        total = (seen * _shares(self.scores[self.members])).sum(axis=0)
        return total / max(total.max(), 1e-9)

    @cached_property
    def distances(self) -> np.ndarray:
        """Return the distances (n,) in this trait, 0..1; a picture that does not show it is not far."""
        if self.trait.additive:  # only what is missing counts: ears and wings are also put on
            expected = self.common.sum()
            missing = (self.common * np.clip(1 - self.scores / (CLEAR * self.trait.threshold), 0, 1)).sum(axis=1)
            return self.trait.weight * missing / max(expected, 1e-9)
        seen = self.trait.seen(self.scores)
        like = np.minimum(_shares(self.scores), self.common).sum(axis=1)
        shown = seen[self.members].sum()
        if shown < max(3, ENOUGH * self.members.sum()):
            return np.zeros(len(self.scores))
        agreement = (seen * like)[self.members].sum() / shown
        trust = np.clip((agreement - DISAGREED) / (AGREED - DISAGREED), 0, 1)
        return self.trait.weight * trust * seen * (1 - like)

    def words(self, index: int) -> str:
        """Say in which way a picture differs."""
        best = self.trait.tags[int(self.common.argmax())]
        if self.trait.additive:
            return f"no {best}"
        return f"{self.trait.tags[int(self.scores[index].argmax())]}, not {best}"


def _shares(scores: np.ndarray) -> np.ndarray:
    return scores / np.maximum(scores.sum(axis=1, keepdims=True), 1e-9)


def judge(vectors: np.ndarray, traits: Sequence[Trait], limit: float) -> list[Judged]:
    """Say how far each picture, a row of scores (n, tags), is from what those within the limit have in common.

    Distances in single traits are combined as chances are: 1 minus the product of what each leaves.
    """
    members = np.ones(len(vectors), bool)
    for _ in range(ROUNDS):
        views = [_View(trait, vectors[:, list(trait.places)], members) for trait in traits if trait.places]
        distances = 1 - np.prod([1 - view.distances for view in views], axis=0) if views else np.zeros(len(vectors))
        within = distances <= limit
        if (within == members).all() or not within.any():
            break
        members = within
    return [Judged(float(distance), bool(distance > limit), _why(views, index)) for index, distance in enumerate(distances)]


def _why(views: Sequence[_View], index: int) -> str:
    """Name the traits in which a picture differs, the plainest first."""
    far = sorted(((view.distances[index], view) for view in views if view.distances[index] > 0.2), key=lambda row: -row[0])
    return "; ".join(view.words(index) for _, view in far)
