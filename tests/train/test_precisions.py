"""Weights in fewer bits: the levels of the paper, each number to its nearest, each scale where it belongs."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from train import precisions
from train.precisions import BLOCK, LEVELS, PRECISIONS, can_follow, normal_float_levels, restore_nf4, round_nf4

# Appendix E of arxiv.org/abs/2305.14314.
PAPER = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip
# Root of the mean squared error over that of a normally distributed weight: int8 has 127 steps to each side, fp8 three bits of mantissa.
ERRORS = {"int8": 0.01, "fp8": 0.03, "nf4": 0.1}


def restored(kind: str, weight: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    raw, scale = PRECISIONS[kind].rounded(weight)
    return PRECISIONS[kind].restored(raw, scale, dtype).flatten()[: weight.numel()].view(weight.shape).float()


def test_the_levels_are_the_papers() -> None:
    assert [0.0, *LEVELS] == pytest.approx([0.0, *PAPER], abs=1e-6) and sorted(LEVELS) == LEVELS
    assert len(normal_float_levels(3)) == 8 and LEVELS[7] == 0.0


def test_each_number_goes_to_the_nearest_level() -> None:
    weight = torch.cat([torch.linspace(-1, 1, 10 * BLOCK - 1), torch.ones(1)])
    weight[::BLOCK] = 1.0  # the scale of each block
    nearest = (weight[:, None] - torch.tensor(LEVELS)).abs().argmin(1)
    torch.testing.assert_close(restored("nf4", weight), torch.tensor(LEVELS)[nearest])


@pytest.mark.parametrize("kind", PRECISIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_error_is_that_of_the_bits(kind: str, dtype: torch.dtype) -> None:
    weight = torch.randn(64, 5 * BLOCK, generator=torch.Generator().manual_seed(0))
    error = (restored(kind, weight, dtype) - weight).norm() / weight.norm()
    assert ERRORS[kind] / 3 < error < ERRORS[kind]


@pytest.mark.parametrize("kind", PRECISIONS)
def test_large_and_small_rows_are_rounded_alike(kind: str) -> None:
    weight = torch.randn(12, BLOCK) * torch.logspace(-6, 2, 12)[:, None]
    errors = (restored(kind, weight) - weight).norm(dim=1) / weight.norm(dim=1)
    assert errors.max() < 1.5 * ERRORS[kind]


@pytest.mark.parametrize("kind", PRECISIONS)
@pytest.mark.parametrize("shape", [(3, 4), (5, 3, 3, 3), (2, BLOCK), (1, BLOCK + 1)])
def test_zeros_stay_so_in_any_shape(kind: str, shape: tuple[int, ...]) -> None:
    assert torch.equal(restored(kind, torch.zeros(shape)), torch.zeros(shape))


def test_nf4_takes_half_a_byte_and_a_scale_a_block() -> None:
    raw, scale = round_nf4(torch.randn(7, 9, 3, 3))
    assert raw.shape == (9, BLOCK // 2) and raw.dtype == torch.uint8 and scale.shape == (9, 1) and scale.dtype == torch.bfloat16


def test_a_prediction_that_comes_first_leaves_the_levels_whole() -> None:
    precisions._pairs.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True):
        restore_nf4(torch.zeros(1, BLOCK // 2, dtype=torch.uint8), torch.ones(1, 1), torch.float32)
    weight = torch.tensor([*LEVELS] * 4)
    torch.testing.assert_close(restored("nf4", weight), weight)


@pytest.mark.parametrize(
    ("before", "kind", "can"),
    [
        ("", "", True),
        ("", "nf4", True),
        ("int8", "int8", True),
        ("fp8", "nf4", True),
        ("int8", "", False),
        ("int8", "fp8", False),
        ("nf4", "int8", False),
    ],
)
def test_a_base_is_never_held_in_more_bits_than_it_has(before: str, kind: str, can: bool) -> None:
    assert can_follow(before, kind) == can
