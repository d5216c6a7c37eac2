"""Learning-rate schedules: the factor on the base rate as a pure function of the step, the kinds that users know."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

END_RATE = 1e-7  # where the polynomial course ends, as in every peer
FIRST_SHARE, LAST_SHARE = 25.0, 1e4  # one_cycle begins at the full rate / 25 and ends at that / 10,000, as torch's OneCycleLR


@dataclass(frozen=True)
class Course:
    """What a schedule needs: steps in all, steps of warm-up, the base rate, and the two shape settings."""

    total: int
    warmup: int = 0
    rate: float = 1e-4
    cycles: int = 1
    power: float = 1.0

    def progress(self, step: int) -> float:
        """Return the share of the steps after the warm-up that are done."""
        return (step - self.warmup) / max(1, self.total - self.warmup)


@dataclass(frozen=True)
class Schedule:
    """A row of SCHEDULES: the factor after the warm-up, whether there is one, and a description."""

    factor: Callable[[int, Course], float]
    description: str
    warms_up: bool = True

    def __call__(self, step: int, course: Course) -> float:
        """Return the factor for a step counted from 0; under warm-up the very first step has rate 0, as in peers."""
        if self.warms_up and step < course.warmup:
            return step / max(1, course.warmup)
        return self.factor(step, course)


def constant(step: int, course: Course) -> float:
    return 1.0


def linear(step: int, course: Course) -> float:
    return max(0.0, (course.total - step) / max(1, course.total - course.warmup))


def cosine(step: int, course: Course) -> float:
    """Fall along half a cosine (SGDR without restarts, https://arxiv.org/abs/1608.03983)."""
    return max(0.0, 0.5 * (1 + math.cos(math.pi * course.progress(step))))


def cosine_with_restarts(step: int, course: Course) -> float:
    """Fall along a half cosine `cycles` times, back to the full rate each time (https://arxiv.org/abs/1608.03983)."""
    progress = course.progress(step)
    return 0.0 if progress >= 1 else max(0.0, 0.5 * (1 + math.cos(math.pi * (course.cycles * progress % 1))))


def polynomial(step: int, course: Course) -> float:
    """Fall to END_RATE along (1 - progress) ** power; a rate already below it stays."""
    if course.rate <= END_RATE:
        return 1.0
    rest = max(0.0, 1 - course.progress(step)) ** course.power if course.progress(step) < 1 else 0.0
    return ((course.rate - END_RATE) * rest + END_RATE) / course.rate


def rex(step: int, course: Course) -> float:
    """Fall slowly at first and fast at the end, (1 - p) / (1 - p / 2) (https://arxiv.org/abs/2107.04197)."""
    left = max(0.0, 1 - course.progress(step))
    return 2 * left / (1 + left)


def one_cycle(step: int, course: Course) -> float:
    """Rise over the warm-up from a 25th to the full rate and fall to a 250,000th, along half cosines (https://arxiv.org/abs/1708.07120).

    The turning points are torch's: the full rate at the warm-up's last step, the lowest at the run's last.
    """
    top, end = course.warmup - 1, course.total - 1
    if step < top:
        return _between(1 / FIRST_SHARE, 1.0, step / top)
    return _between(1.0, 1 / (FIRST_SHARE * LAST_SHARE), min(1.0, (step - max(top, 0)) / max(1, end - max(top, 0))))


def _between(first: float, last: float, share: float) -> float:
    """Go from one factor to another along half a cosine."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * share))


SCHEDULES: dict[str, Schedule] = {
    "constant": Schedule(constant, "The same rate throughout, no warm-up.", warms_up=False),
    "constant_with_warmup": Schedule(constant, "The same rate after the warm-up."),
    "linear": Schedule(linear, "Falls evenly to 0."),
    "cosine": Schedule(cosine, "Falls slowly, fast, slowly to 0."),
    "cosine_with_restarts": Schedule(cosine_with_restarts, "Falls to 0 several times."),
    "polynomial": Schedule(polynomial, "Falls by a power of what is left."),
    "rex": Schedule(rex, "Stays high for long, then falls fast to 0."),
    "one_cycle": Schedule(one_cycle, "Rises over the warm-up, falls along a cosine to nearly 0.", warms_up=False),
}
