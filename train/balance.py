"""Balancing the two halves of an update by powers of two before it is saved in half precision, where small numbers vanish.

fp16 has no number under 6e-8, and under 6.1e-5 fewer digits. A fresh LoRA's up half is that small for long, while its down half is not:
what one half is multiplied by, the other is divided by, and as it is a power of two the product stays the same bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from train.layouts import COMPONENTS

if TYPE_CHECKING:
    from torch import Tensor

# Suffixes of the two halves of a product (out, rank) x (rank, in).
PAIRS = (("lora_up.weight", "lora_down.weight"), ("hada_w1_a", "hada_w1_b"), ("hada_w2_a", "hada_w2_b"),
         ("lokr_w1_a", "lokr_w1_b"), ("lokr_w2_a", "lokr_w2_b"))  # fmt: skip


def balanced(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a float32 state in which each rank's column of the one half and row of the other are about equally long.

    Each rank has its own power of two. Ranks of which one half is all zero stay as they are.
    """
    found = dict(state)
    for left_end, right_end in PAIRS:
        for key, left in state.items():
            right = state.get(key.removesuffix(left_end) + right_end) if key.endswith(f".{left_end}") else None
            if right is not None and left.shape[1] == right.shape[0]:  # Tucker's factors have other axes
                found[key], found[key.removesuffix(left_end) + right_end] = _balanced(left, right)
    return found


def levelled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state of LoRA or DoRA layers with one alpha in each part of the model, the most frequent; the updates stay.

    diffusers 0.42 ignores an attention layer's own alpha in kohya's layout, and draws another picture with a warning: it looks for it
    under a name that no layer has. What alpha loses the up half gets: exact where that is a power of two, else rounded once in float32.
    """
    import torch

    found = dict(state)
    for part in COMPONENTS:
        layers = [key.removesuffix(".lora_up.weight") for key in state if key.startswith(part) and key.endswith(".lora_up.weight")]
        alphas = {name: float(state.get(f"{name}.alpha", 0.0)) or float(state[f"{name}.lora_up.weight"].shape[1]) for name in layers}
        common = Counter(alphas.values()).most_common(1)[0][0] if layers else 0.0
        for name, alpha in alphas.items():
            if alpha != common:
                found[f"{name}.lora_up.weight"] = (state[f"{name}.lora_up.weight"].double() * (alpha / common)).float()
                found[f"{name}.alpha"] = torch.tensor(common)
    return found


def _balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    columns, rows = left.transpose(0, 1).flatten(1), right.flatten(1)
    # Lengths per value, in float64: the square of a small float32 is 0.
    ratio = rows.double().square().mean(1) / columns.double().square().mean(1)
    exponents = torch.where(torch.isfinite(ratio) & (ratio > 0), ratio.log2() / 4, 0.0).round().to(torch.int32)
    shape = [-1] + [1] * (right.ndim - 1)
    raised = torch.ldexp(left.transpose(0, 1), exponents.view([-1] + [1] * (left.ndim - 1))).transpose(0, 1)
    return raised.contiguous(), torch.ldexp(right, -exponents.view(shape)).contiguous()
