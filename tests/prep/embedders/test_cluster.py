"""The main group is found whatever the order and however many strangers, as long as they are fewer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.embedders.cluster import judge


def cosine(vectors: np.ndarray):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return lambda rows, columns: 1 - unit[rows] @ unit[columns].T


@given(seed=st.integers(0, 10**6), right=st.integers(6, 40), strangers=st.integers(0, 8))
def test_strangers_are_far_and_the_others_near(seed: int, right: int, strangers: int) -> None:
    rng = np.random.default_rng(seed)
    count = right + min(strangers, right // 3)
    vectors = rng.normal(size=(count, 64))
    vectors[:right] = rng.normal(size=64) + 0.25 * vectors[:right]
    order = rng.permutation(count)
    judged = judge(count, cosine(vectors[order]), 0.35)
    assert [row.far for row in judged] == [bool(place >= right) for place in order]
    assert all((row.distance > 0.35) == row.far for row in judged)


def test_strangers_who_are_alike_are_still_fewer() -> None:
    vectors = np.array([[1.0, 0.02 * i, 0] for i in range(10)] + [[0, 0.02 * i, 1.0] for i in range(4)])
    assert [row.far for row in judge(14, cosine(vectors), 0.3)] == [False] * 10 + [True] * 4


def test_large_sets_are_compared_with_a_part_of_them_only() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1500, 8)) * 0.1 + 1
    vectors[::10] *= rng.choice((-1, 1), size=(150, 8))
    compared = 0
    table = cosine(vectors)

    def counted(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        nonlocal compared
        compared += rows.size * columns.size
        return table(rows, columns)

    judged = judge(1500, counted, 0.3)
    assert compared < 1500 * 1500 / 4
    assert not any(row.far for index, row in enumerate(judged) if index % 10)
    assert sum(row.far for row in judged[::10]) > 100


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_pictures_are_no_error(count: int) -> None:
    assert len(judge(count, cosine(np.eye(3)[:count]), 0.3)) == count
