"""How near `train extract` comes to the update that was merged into layers in half precision, with and without what rounding gives.

usage: python -m benchmarks.extract_rounding
"""

from __future__ import annotations

import torch
from torch import Tensor

from train.tools.extract import low_rank, rounding_noise
from train.tools.updates import DOWN, UP

SIDE, ASKED = 1280, 64
CASES = ((16, 0.05), (16, 0.2), (32, 0.1))  # rank of the update, its norm as a share of the weight's


def error(difference: Tensor, wanted: Tensor, noise: float) -> float:
    """Return the relative error of the update that is found, its halves in fp16."""
    layer, _, _ = low_rank(difference, ASKED, noise)
    return float((layer[UP].half().double() @ layer[DOWN].half().double() - wanted).norm() / wanted.norm())


def main() -> None:
    draw = torch.Generator().manual_seed(0)
    base = (0.02 * torch.randn(SIDE, SIDE, generator=draw)).half()
    for rank, share in CASES:
        wanted = torch.randn(SIDE, rank, generator=draw).double() @ torch.randn(rank, SIDE, generator=draw).double()
        wanted *= share * base.double().norm() / wanted.norm()
        tuned = (base.double() + wanted).half()
        difference = (tuned.double() - base.double()).float()
        itself = float((difference.double() - wanted).norm() / wanted.norm())
        found = [error(difference, wanted, noise) for noise in (0.0, rounding_noise(tuned))]
        print(f"rank {rank}, {share:.0%} of the norm: {found[1]:.1e}; with all values {found[0]:.1e}; rounding itself {itself:.1e}")


if __name__ == "__main__":
    main()
