"""Cluster: the largest group of pictures that resemble each other, and how far each picture is from it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from prep.embedders import Judged

REFERENCES = 256  # at most so many pictures, spread evenly, are compared with all others
CHUNK = 256
ROUNDS = 8

# Two lists of places in the vectors (a,), (b,) -> how different they are, (a, b).
Differences = Callable[[np.ndarray, np.ndarray], np.ndarray]


def judge(count: int, differences: Differences, limit: float) -> list[Judged]:
    """Say how far each of `count` pictures is from the largest group: the median of its differences from those in the group.

    The group grows from the picture that has the most others within the limit, so that strangers do not count, whatever they are.
    """
    if count == 0:
        return []
    references = np.unique(np.linspace(0, count - 1, min(count, REFERENCES)).round().astype(int))
    table = differences(references, references)
    group = references[_members(table, limit)]
    parts = [np.arange(at, min(at + CHUNK, count)) for at in range(0, count, CHUNK)]
    medians = (value for part in parts for value in _medians(differences(part, group), part, group))
    return [Judged(float(value), bool(value > limit), "") for value in medians]


def _members(table: np.ndarray, limit: float) -> np.ndarray:
    """Return which of the references (n,) are in the largest group, as a mask, from their differences (n, n)."""
    near = (table <= limit).sum(axis=1)
    densest = int(np.lexsort((table.mean(axis=1), -near))[0])
    members = table[densest] <= limit
    members[densest] = True
    every = np.arange(len(table))
    for _ in range(ROUNDS):
        within = _medians(table[:, members], every, every[members]) <= limit
        if not within.any() or (within == members).all():
            break
        members = within
    return members


def _medians(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return each row's median, a picture's difference from itself left out; of one that has no other, the largest there is."""
    others = np.where(rows[:, None] == columns[None, :], np.nan, table.astype(np.float64))
    alone = np.isnan(others).all(axis=1)
    others[alone] = max(1.0, float(np.nanmax(table)))
    return np.nanmedian(others, axis=1)
