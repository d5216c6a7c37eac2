"""DoRA: LoRA gives the direction of each output's weights, and a trained magnitude their length (https://arxiv.org/abs/2402.09353)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from train.adapters.dropout import Draw, Dropouts
from train.adapters.lora import LoRALayer

MAGNITUDE = "dora_scale"


class DoRALayer(LoRALayer):
    """The update of one layer: W' = m * (W + s up down) / |W + s up down|, with lengths taken over each output's weights.

    Files hold m as NAME.dora_scale (out, 1[, 1, 1]), which diffusers, ComfyUI and LyCORIS read so.
    """

    def __init__(self, base: Any, rank: int, alpha: float, dropouts: Dropouts = Dropouts()) -> None:  # noqa: B008 (frozen)
        super().__init__(base, rank, alpha, dropouts)
        self._base = [base]  # in a list, so that it is no part of this module
        with torch.no_grad():
            self.magnitude = nn.Parameter(lengths(base.weight.float()))

    def forward(self, x: Tensor, output: Tensor, multiplier: float, draw: Draw | None) -> Tensor:
        if draw and draw.skips(self.dropouts.module):
            return output
        base = self._base[0]
        # The length is taken as a constant, as in section 4.3 of the paper: the gradient through it costs memory and changes little.
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            length = lengths(base.weight.float() + super().weight_update())
        factor = (self.magnitude / length).flatten()
        bias: Tensor | float = 0.0 if base.bias is None else base.bias.float()
        if self.geometry is not None:
            factor = factor.view(-1, 1, 1)
            bias = bias.view(-1, 1, 1) if isinstance(bias, Tensor) else bias
        change = (factor - 1) * (output.float() - bias) + factor * self.update(x, draw).float()
        return output + (multiplier * change).to(output.dtype)

    def weight_update(self) -> Tensor:
        weight = self._base[0].weight.float()
        turned = weight + super().weight_update()
        return turned * (self.magnitude / lengths(turned)) - weight

    def tensors(self) -> dict[str, Tensor]:
        return {**super().tensors(), MAGNITUDE: self.magnitude}

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        super().take(tensors)
        with torch.no_grad():
            self.magnitude.copy_(tensors[MAGNITUDE].reshape(self.magnitude.shape))


def lengths(weight: Tensor) -> Tensor:
    """Return the length of each output's weights: (out, in[, k, k]) -> (out, 1[, 1, 1])."""
    return weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))
