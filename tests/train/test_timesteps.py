"""Which timesteps are drawn: the range is kept, each density is the one of its formula, and off is the plain draw."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prep.options import UserError
from train.config import ObjectiveConfig
from train.timesteps import DENSITIES, sample_timesteps

COUNT = 200_000


def draw(count: int = COUNT, total: int = 1000, seed: int = 0, **settings: object) -> torch.Tensor:
    return sample_timesteps(count, total, ObjectiveConfig(**settings), torch.Generator().manual_seed(seed))


def test_plain_is_uniform_over_all() -> None:
    timesteps = draw(20_000)
    assert timesteps.dtype == torch.int64
    assert (timesteps.min(), timesteps.max()) == (0, 999)
    assert torch.equal(timesteps, torch.randint(0, 1000, (20_000,), generator=torch.Generator().manual_seed(0)))


@given(
    low=st.integers(0, 999),
    width=st.integers(1, 1000),
    density=st.sampled_from(sorted(DENSITIES)),
    scale=st.floats(0.01, 1.75),
    seed=st.integers(0, 99),
)
def test_the_range_is_kept(low: int, width: int, density: str, scale: float, seed: int) -> None:
    high = min(1000, low + width)
    found = draw(50, seed=seed, min_timestep=low, max_timestep=high, timestep_density=density, timestep_density_scale=scale)
    assert low <= found.min() and found.max() < high


def test_a_range_beyond_the_base_is_said() -> None:
    assert draw(100, total=500, max_timestep=900).max() < 500
    with pytest.raises(UserError, match="min_timestep is 600, but this base model has timesteps 0 to 499"):
        draw(1, total=500, min_timestep=600)


def share_below(density: str, t: float, mean: float, scale: float) -> float:
    """The densities' distribution functions, as the SD3 paper gives them or worked out by hand."""
    if density == "uniform":
        return t
    if density == "logit_normal":
        return 0.5 * (1 + math.erf((math.log(t / (1 - t)) - mean) / scale / math.sqrt(2)))
    if density == "power":
        return t ** (1 / scale)
    if density == "cos_map":  # the integral of 2 / (pi - 2 pi t + 2 pi t^2)
        return (math.atan(2 * t - 1) + math.pi / 4) * 2 / math.pi
    low, high = 0.0, 1.0  # heavy_tail: the share of u with f(u) <= t, f falling
    for _ in range(60):
        u = (low + high) / 2
        above = 1 - u - scale * (math.cos(math.pi / 2 * u) ** 2 - 1 + u) > t
        low, high = (u, high) if above else (low, u)
    return 1 - low


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (0.5, 0.6)])
@pytest.mark.parametrize("density", DENSITIES)
def test_each_density_is_its_formula(density: str, mean: float, scale: float) -> None:
    found = draw(timestep_density=density, timestep_density_mean=mean, timestep_density_scale=scale).double()
    for t in (0.1, 0.25, 0.5, 0.75, 0.9):
        expected = share_below(density, t, mean, scale)
        spread = 5 * math.sqrt(expected * (1 - expected) / COUNT)  # five standard deviations of a share
        assert (found < 1000 * t).double().mean().item() == pytest.approx(expected, abs=spread)
