"""The verdict's words on courses whose case is plain, and that they never fail on any course."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.validate import Judgement, score
from train.verdict import WORDS, best_of, verdict


def course(losses: list[float], needs: float = 0.5, bleed: float = 0.2) -> list[Judgement]:
    """Judgements with these losses; `needs` and `bleed` are shares of what was learned."""
    return [Judgement(10 * n, n, loss, 0.02, 1 - loss, needs * (1 - loss), bleed * abs(1 - loss)) for n, loss in enumerate(losses, 1)]


@pytest.mark.parametrize(
    ("judgements", "word"),
    [
        (course([0.6, 0.45, 0.4, 0.39, 0.385, 0.385]), "right"),
        (course([0.97, 0.94, 0.92, 0.9, 0.88, 0.86]), "under-trained"),
        (course([0.6, 0.45, 0.4, 0.39, 0.385, 0.385], needs=0.05), "under-trained"),
        (course([0.6, 0.4, 0.45, 0.5, 0.55, 0.6]), "over-trained"),
        (course([9.0, 30.0, 2.0, 1.3]), "diverged"),
        (course([0.6, 0.45, 0.4, 0.39, 0.385, 0.385], needs=0.01, bleed=1.0), "bleeds"),
        (course([1.0, 1.0]), "diverged"),
    ],
)
def test_the_word_fits_the_course(judgements: list[Judgement], word: str) -> None:
    found = verdict(judgements)
    assert found.word == word and found.best == best_of(judgements)
    assert found.record()["epoch"] == found.best.epoch


def test_what_is_spoilt_at_the_noisiest_timesteps_alone_is_told_so() -> None:
    judgements = course([0.6, 0.4, 0.99])
    judgements[-1] = dataclasses.replace(judgements[-1], learned=-0.2)
    found = verdict(judgements)
    assert found.word == "diverged" and "at 99% of the base's, and at the noisiest timesteps at 120%" in found.sentence


def test_over_fitting_is_named_with_its_epoch() -> None:
    assert "from epoch 2 on" in verdict(course([0.6, 0.4, 0.45, 0.5])).sentence


@given(st.lists(st.tuples(st.floats(0.01, 50), st.floats(-2, 2), st.floats(0, 20)), min_size=1, max_size=30))
def test_any_course_has_a_word(values: list[tuple[float, float, float]]) -> None:
    judgements = [Judgement(n, n, loss, 0.1, 1 - loss, needs, bleed) for n, (loss, needs, bleed) in enumerate(values, 1)]
    found = verdict(judgements)
    assert found.word in WORDS and found.sentence and score(found.best) == min(map(score, judgements))
