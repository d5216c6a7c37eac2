"""What the judgements of a run add up to: its best epoch, when to stop, and in words whether it learned too little, enough or too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from train.validate import Judgement, score

# Shares by which the words are chosen. Measured on pocket runs (benchmarks/judgement.py): runs that were long enough gained 4 to 6 % of what
# they had learned in their second half; a keyword that is not bound yet makes under a twentieth of what was learned, a bound one over two thirds.
STILL_GAINING = 0.1
LOST = 0.03  # of what was learned at best, from which on the end is worse than the best
UNBOUND = 0.2  # of what was learned, under which the keyword is not needed for it
SHARED = 0.9  # of what was learned, from which on predictions for the class have moved as much


@dataclass(frozen=True)
class Verdict:
    """A word for machines, a sentence for people, and the judgement that was best."""

    word: str  # one of WORDS
    sentence: str
    best: Judgement

    def record(self) -> dict[str, Any]:
        """Return it in plain types, for the report."""
        return {"word": self.word, "sentence": self.sentence, "epoch": self.best.epoch, "step": self.best.step}


WORDS = ("diverged", "over-trained", "under-trained", "bleeds", "right")


def best_of(judgements: Sequence[Judgement]) -> Judgement:
    """Return the judgement with the least score, the first of equals."""
    return min(judgements, key=score)


def exhausted(judgements: Sequence[Judgement], patience: int) -> bool:
    """Say whether so many judgements in a row were no better than the best before them; never with a patience of 0."""
    if not patience or not judgements:
        return False
    return len(judgements) - 1 - judgements.index(best_of(judgements)) >= patience


def verdict(judgements: Sequence[Judgement]) -> Verdict:
    """Sum up the judgements of a whole run, at least one."""
    best, last = best_of(judgements), judgements[-1]
    for word, found in (("diverged", _diverged), ("over-trained", _over), ("bleeds", _bleeds), ("under-trained", _under)):
        if sentence := found(judgements, best, last):
            return Verdict(word, sentence, best)
    share = best.needs_keyword / best.learned if best.learned > 0 else 0.0
    told = f"the held-out loss came down to {best.loss:.0%} of the base's (+- {best.band:.0%}) and stayed there"
    return Verdict("right", f"{told}; {share:.0%} of what was learned needs the keyword", best)


def _diverged(judgements: Sequence[Judgement], best: Judgement, last: Judgement) -> str:
    if last.loss < 1 and last.learned > 0:
        return ""
    advice = "a tenth of the learning rate" if best.loss >= 1 else f"a lower learning rate, or {best.epoch} epochs"
    ended = f"at {last.loss:.0%} of the base's"
    if last.loss < 1:
        ended += f", and at the noisiest timesteps at {1 - last.learned:.0%}"
    return f"the held-out loss ended {ended}: what was learned is worse than nothing; try {advice}"


def _over(judgements: Sequence[Judgement], best: Judgement, last: Judgement) -> str:
    if last.loss - best.loss <= LOST * (1 - best.loss):
        return ""
    return (
        f"over-fitted from epoch {best.epoch} on: the held-out loss rose from {best.loss:.1%} to {last.loss:.1%} of the base's; "
        f"epoch {best.epoch} is the best, and fewer epochs or a lower learning rate would do"
    )


def _bleeds(judgements: Sequence[Judgement], best: Judgement, last: Judgement) -> str:
    if best.learned <= 0 or best.needs_keyword >= UNBOUND * best.learned or best.bleed < SHARED * best.learned:
        return ""
    return (
        f"{best.learned:.0%} was learned, but only {max(0.0, best.needs_keyword):.0%} needs the keyword, and the class moved by {best.bleed:.0%}: "
        "the concept is drawn without the keyword as well; add regularization pictures (`prep regularize --matched`)"
    )


def _under(judgements: Sequence[Judgement], best: Judgement, last: Judgement) -> str:
    middle = min(judgements, key=lambda judgement: abs(judgement.step - last.step / 2))
    gained = (middle.loss - last.loss) / (1 - last.loss)
    unbound = best.needs_keyword < UNBOUND * best.learned
    if gained <= STILL_GAINING and not unbound:
        return ""
    still = f"the second half of the run still brought {gained:.0%} of what it learned"
    reason = still if gained > STILL_GAINING else "the keyword is hardly needed yet"
    return f"the held-out loss came down to {last.loss:.0%} of the base's, but {reason}: train longer, or with a higher learning rate"
