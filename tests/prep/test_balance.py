"""Balance: stated shares are met with whole repeats, and tiers are made of the better and the worse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.balance import MEASURES, TOLERANCE, choose_repeats, read_shares, real_shares, tiers
from prep.options import UserError
from prep.quality import LIMITS


def test_shares_are_read_in_any_unit() -> None:
    assert read_shares("60, 40", 2, "shares") == read_shares("3,2", 2, "shares") == read_shares("60%,40 %", 2, "shares") == [0.6, 0.4]
    assert read_shares("", 4, "shares") == [0.25] * 4


@pytest.mark.parametrize("text", ["1", "1,2,3", "1,-1", "1,0", "a,b", "1,nan", "1,inf"])
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"shares is .*20, 10"):
        read_shares(text, 2, "shares")


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 10)), min_size=1, max_size=4), st.integers(1, 2000))
def test_shares_are_met(groups: list[tuple[int, int]], target: int) -> None:
    counts, weights = [count for count, _ in groups], [weight for _, weight in groups]
    shares = [weight / sum(weights) for weight in weights]
    repeats = choose_repeats(counts, shares, target)
    assert min(repeats) >= 1
    errors = [abs(real - share) for real, share in zip(real_shares(counts, repeats), shares, strict=True)]
    assert max(errors) <= 0.12, "whole repeats of large groups are coarse"
    if max(counts) * 20 <= target:
        assert max(errors) <= TOLERANCE


def test_an_epoch_grows_only_as_far_as_it_must() -> None:
    assert choose_repeats([10], [1.0], 200) == [20]
    assert choose_repeats([10, 20], [0.5, 0.5], 200) == [10, 5]
    assert choose_repeats([1000, 10], [0.5, 0.5], 200) == [1, 100]


@given(st.lists(st.none() | st.floats(-5, 5), max_size=40), st.integers(1, 6), st.booleans())
def test_tiers_are_sorted_and_of_equal_size(values: list[float | None], parts: int, more_is_better: bool) -> None:
    found = tiers(values, parts, more_is_better)
    sizes = [found.count(tier) for tier in range(parts)]
    assert max(sizes) - min(sizes) <= 1
    for one, left in zip(values, found, strict=True):
        for two, right in zip(values, found, strict=True):
            if one is not None and two is not None and one != two and (one > two) == more_is_better:
                assert left <= right
            if one is not None and two is None:
                assert left <= right


def test_the_measures_are_those_of_the_quality_limits() -> None:
    assert {row.measure: not row.above for row in LIMITS} == MEASURES
