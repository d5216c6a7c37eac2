"""Which timesteps are trained how often: a range, and a density over it as one function from a uniform number to a share of the range."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prep.options import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from train.config import ObjectiveConfig


@dataclass(frozen=True)
class Density:
    """A row of DENSITIES: the quantile function (u in 0..1, mean, scale) -> share in 0..1, 0 being clean, a description, the scales it takes."""

    quantile: Callable[[Tensor, float, float], Tensor]
    description: str
    scales: tuple[float, float] = (-math.inf, math.inf)


def uniform(u: Tensor, mean: float, scale: float) -> Tensor:
    return u


def logit_normal(u: Tensor, mean: float, scale: float) -> Tensor:
    """A normal number put through the logistic function (https://arxiv.org/abs/2403.03206, equation 19)."""
    normal = math.sqrt(2) * (2 * u - 1).erfinv()
    return (mean + scale * normal).sigmoid()


def heavy_tail(u: Tensor, mean: float, scale: float) -> Tensor:
    """The same paper's mode sampling (equation 20): most in the middle, but the ends are never left out; monotonic for -1 <= scale <= 1.75."""
    return 1 - u - scale * ((math.pi / 2 * u).cos() ** 2 - 1 + u)


def cos_map(u: Tensor, mean: float, scale: float) -> Tensor:
    """The same paper's CosMap (equation 21): as often as a cosine schedule would."""
    return 1 - 1 / ((math.pi / 2 * u).tan() + 1)


def power(u: Tensor, mean: float, scale: float) -> Tensor:
    """A power of u: over 1 prefers clean timesteps and details, under 1 noisy ones and composition."""
    return u**scale


DENSITIES: dict[str, Density] = {
    "uniform": Density(uniform, "All timesteps alike."),
    "logit_normal": Density(logit_normal, "The middle, about the mean, within the scale.", (1e-3, 1e3)),
    "heavy_tail": Density(heavy_tail, "The middle, the ends still often.", (-1, 1.75)),
    "cos_map": Density(cos_map, "The middle a little more than the ends."),
    "power": Density(power, "Clean ones if the scale is over 1, noisy ones if it is under.", (1e-3, 1e3)),
}


def sample_timesteps(count: int, total: int, config: ObjectiveConfig, generator: torch.Generator) -> Tensor:
    """Draw `count` timesteps of a schedule of `total`, (B,) int64 on the CPU, from min_timestep up to but not with max_timestep."""
    import torch

    low, high = config.min_timestep, min(config.max_timestep or total, total)
    if low >= high:
        raise UserError(f"min_timestep is {low}, but this base model has timesteps 0 to {total - 1}; set it lower")
    if config.timestep_density == "uniform":
        return torch.randint(low, high, (count,), generator=generator)
    u = torch.rand(count, generator=generator, dtype=torch.float64)
    share = DENSITIES[config.timestep_density].quantile(u, config.timestep_density_mean, config.timestep_density_scale)
    return (low + (share * (high - low)).long()).clamp(low, high - 1)
