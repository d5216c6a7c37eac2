"""Which layers an adapter sits on, with which rank, alpha and rate: the settings of the [train] table, layer by layer."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prep.options import UserError
from train.adapters.blocks import Numbering, block_index, block_weights, numbering_of, numbers

if TYPE_CHECKING:
    from train.adapters import Target
    from train.config import NetworkConfig


@dataclass(frozen=True)
class LayerPlan:
    """One layer's adapter: rank, alpha as files hold it, and its learning rate: its own, or a factor of its part's."""

    dim: int
    alpha: float
    factor: float = 1.0
    rate: float | None = None


def plan_layers(config: NetworkConfig, targets: Sequence[Target]) -> dict[str, LayerPlan]:
    """Say what each target gets; a target with rank 0, rate 0 or block weight 0 gets nothing and is left out.

    Raises UserError if a list's length does not fit the base, a pattern matches nothing, or nothing is left.
    """
    blocks = _Blocks(config, numbering_of([target.name for target in targets]))
    dims, rates = patterns(config.network_reg_dims, "network_reg_dims"), patterns(config.network_reg_lrs, "network_reg_lrs")
    _all_match([*dims, *rates], targets)
    plans: dict[str, LayerPlan] = {}
    for target in targets:
        dim, alpha, factor = blocks.of(target)
        own, rate = _first(dims, target.name), _first(rates, target.name)
        dim = int(dim if own is None else own)
        if dim and factor > config.block_lr_zero_threshold and rate != 0:
            plans[target.name] = LayerPlan(dim, stored_alpha(alpha, dim) if config.rs_lora else alpha, factor, rate)
    if targets and not plans:
        raise UserError("these settings leave no layer to train; look at block_dims, down_lr_weight and network_reg_dims")
    return plans


def needs_convolutions(config: NetworkConfig) -> bool:
    """Say whether the settings ask for the layers of residual blocks too."""
    return bool(config.conv_dim or config.conv_block_dims)


def stored_alpha(alpha: float, dim: int) -> float:
    """Return what a file's alpha must be so that readers, who divide by the rank, scale by alpha / sqrt(rank) (arxiv.org/abs/2312.03732).

    It is rounded to 8 bits, which fp16 and bf16 both hold, so that what is saved is exactly what was trained; the scale changes by 0.4 %
    at most.
    """
    (bits,) = struct.unpack("<I", struct.pack("<f", alpha * math.sqrt(dim)))
    (rounded,) = struct.unpack("<f", struct.pack("<I", (bits + 0x8000) & 0xFFFF0000))
    return float(rounded)


def patterns(text: str, setting: str) -> dict[re.Pattern[str], float]:
    """Read "PATTERN=NUMBER PATTERN=NUMBER": regular expressions that are looked for in kohya's names; raises UserError."""
    found = {}
    for pair in text.split():
        pattern, _, value = pair.rpartition("=")
        try:
            found[re.compile(pattern)] = numbers(value, setting)[0]
        except (re.error, UserError):
            raise UserError(f'{setting} holds {pair!r}; write it as "attn2_to_k=8 ff_net=4", a regular expression before each =') from None
        if not pattern:
            raise UserError(f'{setting} holds {pair!r}, which names no layers; write it as "attn2_to_k=8 ff_net=4"')
    return found


def _all_match(found: Sequence[re.Pattern[str]], targets: Sequence[Target]) -> None:
    for pattern in found:
        if targets and not any(pattern.search(target.name) for target in targets):
            raise UserError(
                f"the pattern {pattern.pattern!r} is in no layer's name (the first is {targets[0].name}); mend it in network_reg_dims or _lrs"
            )


def _first(found: Mapping[re.Pattern[str], float], name: str) -> float | None:
    return next((value for pattern, value in found.items() if pattern.search(name)), None)


class _Blocks:
    """Rank, alpha and rate factor by block, from the lists in the settings."""

    def __init__(self, config: NetworkConfig, numbering: Numbering) -> None:
        count = numbering.count

        def listed(text: str, setting: str, otherwise: float) -> list[float]:
            return block_weights(text, count, setting) if text else [otherwise] * count

        self.config = config
        conv_alpha = config.network_alpha if config.conv_alpha is None else config.conv_alpha
        self.linear = listed(config.block_dims, "block_dims", config.network_dim), listed(config.block_alphas, "block_alphas", config.network_alpha)
        self.conv = (
            listed(config.conv_block_dims, "conv_block_dims", config.conv_dim),
            listed(config.conv_block_alphas, "conv_block_alphas", conv_alpha),
        )
        self.factors = [1.0] * count
        for setting, place in (("down_lr_weight", numbering.down), ("mid_lr_weight", numbering.mid), ("up_lr_weight", numbering.up)):
            if text := getattr(config, setting):
                for block, weight in zip(place, block_weights(text, len(place), setting), strict=True):
                    self.factors[block] = weight

    def of(self, target: Target) -> tuple[float, float, float]:
        block = block_index(target.name)
        if block is None:  # a text encoder's layer
            return self.config.network_dim, self.config.network_alpha, 1.0
        dims, alphas = self.conv if is_wide(target) else self.linear
        return dims[block], alphas[block], self.factors[block]


def is_wide(target: Target) -> bool:
    """Say whether a target is a convolution that looks at more than one pixel: these take conv_dim, all others network_dim."""
    return any(side > 1 for side in getattr(target.module, "kernel_size", ()))
