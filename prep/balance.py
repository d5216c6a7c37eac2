"""Balance: repeats chosen so that concepts, or better and worse pictures, get stated shares of an epoch."""

from __future__ import annotations

from collections.abc import Sequence

from prep.options import UserError

TOLERANCE = 0.02  # shares that are met so closely need no longer epoch
LONGEST = 4  # times the wanted samples up to which an epoch may grow for the sake of the shares

# Measure of prep.quality -> whether more of it is better. Written out, since loading that module takes longer than many a build.
MEASURES = {
    "side": True,
    "megapixels": True,
    "contrast": True,
    "blur": False,
    "overexposed": False,
    "underexposed": False,
    "blockiness": False,
    "chroma": True,
}


def read_shares(text: str, parts: int, setting: str) -> list[float]:
    """Read "60, 30, 10" as shares that sum to 1; empty = all alike. Raises UserError unless there are `parts` positive numbers."""
    if not text.strip():
        return [1 / parts] * parts
    try:
        numbers = [float(word.strip().rstrip("%")) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != parts or not all(0 < number < float("inf") for number in numbers):
        raise UserError(f"{setting} is {text!r}; give {parts} positive number{'s' * (parts > 1)}, by commas, such as {_example(parts)}")
    return [number / sum(numbers) for number in numbers]


def _example(parts: int) -> str:
    return ", ".join(str(10 * (parts - index)) for index in range(parts))


def choose_repeats(counts: Sequence[int], shares: Sequence[float], samples: float) -> list[int]:
    """Return the repeats of groups of pictures so that each gets its share (0..1, sum 1) of about `samples` samples.

    Repeats are whole and at least 1, so the epoch is made longer, up to LONGEST times, until the shares are met to TOLERANCE. A group
    that is large for its share needs more samples still: its pictures are all shown once.
    """
    least = max(count / share for count, share in zip(counts, shares, strict=True))
    start = max(samples, least)
    tried = (_rounded(counts, shares, start * (1 + step / 20)) for step in range(20 * (LONGEST - 1) + 1))
    best, best_error = _rounded(counts, shares, start), float("inf")
    for repeats in tried:
        error = max(abs(real - share) for real, share in zip(real_shares(counts, repeats), shares, strict=True))
        if error < best_error:
            best, best_error = repeats, error
        if error <= TOLERANCE:
            break
    return best


def _rounded(counts: Sequence[int], shares: Sequence[float], samples: float) -> list[int]:
    return [max(1, round(samples * share / count)) for count, share in zip(counts, shares, strict=True)]


def real_shares(counts: Sequence[int], repeats: Sequence[int]) -> list[float]:
    """Return what share of an epoch each group gets."""
    samples = [count * number for count, number in zip(counts, repeats, strict=True)]
    return [number / sum(samples) for number in samples]


def tiers(values: Sequence[float | None], parts: int, more_is_better: bool) -> list[int]:
    """Sort pictures into `parts` tiers of nearly equal size, 0 the best; those without a value are the worst, equal ones keep their order."""
    sign = -1 if more_is_better else 1
    order = sorted(range(len(values)), key=lambda index: (values[index] is None, sign * (values[index] or 0.0)))
    found = [0] * len(values)
    for place, index in enumerate(order):
        found[index] = place * parts // len(values)
    return found
