"""The learning-rate courses: against diffusers' and torch's, and against numbers worked out by hand."""

import pytest
import torch
from diffusers.optimization import get_scheduler

from train.schedules import SCHEDULES, Course

RATE = 3e-4
DIFFUSERS = ["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]


def theirs(name: str, warmup: int, total: int, **shape: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total, **shape)
    rates = []
    for _ in range(total + 3):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, {}) for name in DIFFUSERS] + [("cosine_with_restarts", {"num_cycles": 3}), ("polynomial", {"power": 2.0})],
)
def test_equals_diffusers(name: str, shape: dict, warmup: int) -> None:
    course = Course(total=50, warmup=warmup, rate=RATE, cycles=shape.get("num_cycles", 1), power=shape.get("power", 1.0))
    ours = [RATE * SCHEDULES[name](step, course) for step in range(53)]
    assert ours[:50] == pytest.approx(theirs(name, warmup, 50, **shape)[:50], abs=1e-12)


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")
@pytest.mark.parametrize(("total", "warmup"), [(4, 2), (10, 3), (50, 2), (50, 25), (333, 99)])
def test_one_cycle_equals_torchs(total: int, warmup: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=total, pct_start=warmup / total)
    course, wanted = Course(total=total, warmup=warmup, rate=RATE), []
    for _ in range(total):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(wanted) < total:
            scheduler.step()
    found = [RATE * SCHEDULES["one_cycle"](step, course) for step in range(total)]
    assert found == pytest.approx(wanted, abs=1e-12)


def test_rex_keeps_the_rate_up_longer_than_linear() -> None:
    course = Course(total=100, rate=RATE)
    rex, linear = ([SCHEDULES[name](step, course) for step in range(101)] for name in ("rex", "linear"))
    assert rex[0] == 1 and rex[100] == 0
    assert rex == pytest.approx([(1 - p / 100) / (1 - p / 200) for p in range(101)], rel=1e-12)  # the paper's formula
    assert all(high > low for high, low in zip(rex[1:100], linear[1:100], strict=True))


@pytest.mark.parametrize(
    ("name", "step", "factor"),
    [
        ("constant", 0, 1.0),  # constant knows no warm-up
        ("constant_with_warmup", 0, 0.0),
        ("constant_with_warmup", 5, 0.5),
        ("linear", 10, 1.0),
        ("linear", 60, 0.5),
        ("cosine", 60, 0.5),
        ("cosine", 110, 0.0),
        ("cosine_with_restarts", 60, 1.0),  # two cycles: back at the full rate in the middle
        ("cosine_with_restarts", 110, 0.0),
        ("polynomial", 110, 1e-7 / RATE),
    ],
)
def test_by_hand(name: str, step: int, factor: float) -> None:
    assert SCHEDULES[name](step, Course(total=110, warmup=10, rate=RATE, cycles=2)) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_stays_in_bounds_past_the_end_and_on_tiny_runs(name: str) -> None:
    for total in (1, 2, 5):
        for step in range(total + 5):
            assert 0 <= SCHEDULES[name](step, Course(total=total, warmup=total, rate=RATE)) <= 1
    assert SCHEDULES[name](0, Course(total=1, rate=0.0)) in (0.0, 1.0)
