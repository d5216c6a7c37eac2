"""A picture is far if it differs in what the set agrees on, and in nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prep.embedders.consensus import Trait, judge

HAIR = Trait("hair colour", (0, 1, 2), ("blue_hair", "red_hair", "green_hair"), 0.9, 0.5)
EYES = Trait("eye colour", (3, 4), ("blue_eyes", "red_eyes"), 0.8, 0.5)
MARKS = Trait("marks", (5, 6), ("horns", "tail"), 0.6, 0.5, additive=True)
TRAITS = (HAIR, EYES, MARKS)
TYPICAL = (0.95, 0.02, 0.01, 0.9, 0.05, 0.9, 0.0)


def scores(*rows: tuple[float, ...], typical: int = 10) -> np.ndarray:
    return np.array([TYPICAL] * typical + list(rows), np.float32)


def far(*rows: tuple[float, ...], typical: int = 10) -> list[bool]:
    judged = judge(scores(*rows, typical=typical), TRAITS, 0.5)
    assert not any(row.far for row in judged[:typical])
    return [row.far for row in judged[typical:]]


def test_one_trait_that_all_others_share_is_enough() -> None:
    other_hair = (0.02, 0.9, 0.01, 0.9, 0.05, 0.9, 0.0)
    other_eyes = (0.95, 0.02, 0.01, 0.05, 0.9, 0.9, 0.0)
    no_horns = (0.95, 0.02, 0.01, 0.9, 0.05, 0.01, 0.0)
    assert far(other_hair, other_eyes, no_horns) == [True, True, True]
    judged = judge(scores(other_hair, other_eyes, no_horns), TRAITS, 0.5)[10:]
    assert [row.why for row in judged] == ["red_hair, not blue_hair", "red_eyes, not blue_eyes", "no horns"]


def test_what_is_not_to_be_seen_is_not_held_against_a_picture() -> None:
    closed_eyes = (0.95, 0.02, 0.01, 0.1, 0.1, 0.9, 0.0)
    assert far(closed_eyes) == [False]


def test_what_is_put_on_is_not_held_against_a_picture() -> None:
    with_tail = (0.95, 0.02, 0.01, 0.9, 0.05, 0.9, 0.95)
    assert far(with_tail) == [False]


def test_a_trait_that_the_set_does_not_share_says_nothing() -> None:
    hair = [np.roll((0.9, 0.02, 0.01), turn) for turn in range(12)]
    rows = np.array([(*row, *TYPICAL[3:]) for row in hair], np.float32)
    assert not any(row.far for row in judge(rows, TRAITS, 0.5))


@given(seed=st.integers(0, 10**6), strangers=st.integers(1, 4))
def test_noise_makes_no_strangers_and_hides_none(seed: int, strangers: int) -> None:
    rng = np.random.default_rng(seed)
    rows = scores(*[(0.02, 0.9, 0.01, 0.05, 0.9, 0.0, 0.0)] * strangers, typical=24 - strangers)
    noisy = np.clip(rows + rng.normal(0, 0.05, rows.shape), 0, 1).astype(np.float32)
    order = rng.permutation(24)
    assert [row.far for row in judge(noisy[order], TRAITS, 0.5)] == [bool(place >= 24 - strangers) for place in order]


def test_a_tagger_that_knows_no_trait_makes_no_strangers() -> None:
    assert [row.distance for row in judge(np.zeros((5, 0), np.float32), (), 0.5)] == [0.0] * 5
