"""What the judgements of a run add up to: its best epoch, when to stop, and in words whether it learned too little, enough or too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from train.validate import Judgement, score


@dataclass(frozen=True)
class Verdict:
    """A word for machines, a sentence for people, and the judgement that was best."""

    word: str  # one of WORDS
    sentence: str
    best: Judgement


def best_of(judgements: Sequence[Judgement]) -> Judgement:
    """Return the judgement with the least score, the first of equals."""
    return min(judgements, key=score)


def exhausted(judgements: Sequence[Judgement], patience: int) -> bool:
    """Say whether so many judgements in a row were no better than the best before them; never with a patience of 0."""
    if not patience or not judgements:
        return False
    return len(judgements) - 1 - judgements.index(best_of(judgements)) >= patience
