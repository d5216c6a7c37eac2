"""Dropout whose chance comes from the run's generator, and is the same when a forward pass is repeated for gradient checkpointing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dropouts:
    """Shares that are left out: of the values between down and up, of the ranks of each sample, of the layers."""

    value: float = 0.0
    rank: float = 0.0
    module: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.value or self.rank or self.module)


@dataclass(frozen=True)
class Draw:
    """The chance of one layer in one batch: `seed` for the layer as a whole, the next one for what is left out within it."""

    seed: int

    def skips(self, share: float) -> bool:
        """Say whether the whole layer is left out."""
        return bool(share) and torch.rand(1, generator=torch.Generator().manual_seed(self.seed)).item() < share

    def thin(self, hidden: Tensor, dropouts: Dropouts, axis: int) -> Tensor:
        """Leave out values, and whole ranks of a sample; `axis` is the ranks'. What stays is scaled up, so that the mean stays."""
        return hidden * self.factor(hidden, dropouts, axis)

    def factor(self, hidden: Tensor, dropouts: Dropouts, axis: int) -> Tensor:
        """Return what `thin` multiplies by, of the shape and type of `hidden`: 0 where something is left out."""
        generator = torch.Generator(hidden.device).manual_seed(self.seed + 1)
        factor = torch.ones_like(hidden)
        for share, shape in ((dropouts.value, hidden.shape), (dropouts.rank, _per_sample(hidden, axis))):
            if share:
                kept = torch.rand(shape, generator=generator, device=hidden.device) >= share
                factor = factor * (kept / (1 - share)).to(hidden.dtype)
        return factor

    @contextmanager
    def as_global(self, device: torch.device) -> Iterator[None]:
        """Let torch's own global chance be this draw inside, for code that takes no generator."""
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            yield


def _per_sample(hidden: Tensor, axis: int) -> list[int]:
    """Shape of a mask (B, 1, ..., ranks, ..., 1)."""
    return [side if i in (0, axis % hidden.ndim) else 1 for i, side in enumerate(hidden.shape)]
