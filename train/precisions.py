"""How a frozen weight is held in fewer bits: rounded once, and made again each time that it is used.

fp8 has 4 bits of exponent and 3 of mantissa (arxiv.org/abs/2209.05433), int8 has 127 even steps to each side of zero; either gives each output a
scale of its own. nf4 is NormalFloat (arxiv.org/abs/2305.14314): 16 levels at quantiles of the normal distribution, and a scale for each BLOCK
numbers that follow one another.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

BLOCK = 64  # numbers that share a scale in nf4
SMALLEST = 1e-30  # scale of a row or block of zeros, which it must not divide by itself
# The highest value that a type holds.
FP8, INT8 = 448.0, 127.0


@dataclass(frozen=True)
class Precision:
    """One way to hold a weight."""

    bits: int
    rounded: Callable[[Tensor], tuple[Tensor, Tensor]]  # a weight to what is kept of it and its scales
    restored: Callable[[Tensor, Tensor, torch.dtype], Tensor]  # these to numbers, in the order of the weight and of any shape


def _scales(rows: Tensor, highest: float) -> Tensor:
    """Return the scale of each row (n, m), as (n, 1) in bf16: half precision multiplies by it as it is."""
    return (rows.abs().amax(1, keepdim=True).clamp(min=SMALLEST) / highest).bfloat16()


def _by_output(weight: Tensor, highest: float) -> tuple[Tensor, Tensor]:
    """Divide a weight (out, in[, k, k]) by a scale for each output; returns it in float32 and the scales (out, 1[, 1, 1]) in float32."""
    rows = weight.float().flatten(1)
    scale = _scales(rows, highest).float()
    return (rows / scale).clamp(-highest, highest).view(weight.shape), scale.view(-1, *[1] * (weight.ndim - 1))


def round_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight to fp8; its bytes are kept as uint8, which no cast of a whole model touches."""
    values, scale = _by_output(weight, FP8)
    return values.to(torch.float8_e4m3fn).view(torch.uint8), scale


def restore_fp8(raw: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Make the weight again from the bytes of fp8."""
    return raw.view(torch.float8_e4m3fn).to(dtype) * scale.to(dtype)


def round_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight to whole numbers."""
    values, scale = _by_output(weight, INT8)
    return values.round().to(torch.int8), scale


def restore_int8(raw: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Make the weight again from whole numbers."""
    return raw.to(dtype) * scale.to(dtype)


def normal_float_levels(bits: int = 4) -> list[float]:
    """Return the levels of NormalFloat, from -1 to 1, zero among them.

    Half of them are quantiles of the normal distribution at even steps from a small probability to 1/2, half and one from 1/2 to as near to 1;
    the zero that both have is counted once, and all are divided by the largest. The small probability is the mean of 1/32 and 1/30 for 4 bits.
    """
    half = 2 ** (bits - 1)
    smallest = (1 / (4 * half) + 1 / (4 * half - 2)) / 2
    low = [NormalDist().inv_cdf(smallest + (0.5 - smallest) * i / (half - 1)) for i in range(half - 1)]
    high = [-NormalDist().inv_cdf(smallest + (0.5 - smallest) * (half - i) / half) for i in range(1, half + 1)]
    return [*(level / -low[0] for level in low), 0.0, *(level / high[-1] for level in high)]


LEVELS = normal_float_levels()
MIDDLES = [(low + high) / 2 for low, high in itertools.pairwise(LEVELS)]


def round_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight to the levels of nf4; returns two numbers a byte, the first in the upper half (n, BLOCK / 2), and scales (n, 1) in bf16."""
    blocks = F.pad(weight.float().flatten(), (0, -weight.numel() % BLOCK)).view(-1, BLOCK)
    scale = _scales(blocks, 1.0)
    middles = torch.tensor(MIDDLES, device=blocks.device)
    codes = torch.bucketize(blocks / scale.float(), middles, out_int32=True).to(torch.uint8)
    return codes[:, 0::2] * 16 + codes[:, 1::2], scale


def restore_nf4(raw: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Make the weight again (n, BLOCK) from two numbers a byte, with what fills up the last block."""
    pairs = _pairs(raw.device, dtype).index_select(0, raw.flatten().int())
    return pairs.view(-1, BLOCK).mul_(scale.to(dtype))


@functools.cache
def _pairs(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return both levels that each byte stands for, (256, 2); it is made once for a device."""
    with _disable_current_modes():  # a prediction of memory, whose tensors have none, may ask first
        return torch.tensor([(LEVELS[byte // 16], LEVELS[byte % 16]) for byte in range(256)], device=device, dtype=dtype)


PRECISIONS = {
    "fp8": Precision(8, round_fp8, restore_fp8),
    "int8": Precision(8, round_int8, restore_int8),
    "nf4": Precision(4, round_nf4, restore_nf4),
}


def can_follow(before: str, kind: str) -> bool:
    """Say whether a base that is held in one precision ("" in none) can be held in another: as it is, or rounded further."""
    return before in ("", kind) or (kind in PRECISIONS and PRECISIONS[kind].bits < PRECISIONS[before].bits)
