"""LoRA: a low-rank update beside a frozen layer (https://arxiv.org/abs/2106.09685), for Linear and Conv2d layers.

The update of a layer is (alpha / rank) * up @ down. Names and shapes are kohya's, which all readers take: NAME.lora_down.weight
(rank, in[, k, k]), NAME.lora_up.weight (out, rank[, 1, 1]) and NAME.alpha.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.adapters.dropout import Draw, Dropouts
from train.adapters.network import Layer
from train.adapters.plan import LayerPlan
from train.stored import base_shape

DOWN, UP, ALPHA = "lora_down.weight", "lora_up.weight", "alpha"


class LoRALayer(Layer):
    """The update of one layer; it starts as the identity, for up is zero."""

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, alpha: float, dropouts: Dropouts = Dropouts()) -> None:  # noqa: B008 (frozen)
        super().__init__()
        out_features, *inner = base_shape(base)
        self.down = nn.Parameter(torch.zeros(rank, *inner))
        self.up = nn.Parameter(torch.zeros(out_features, rank, *[1] * (len(inner) - 1)))
        self.alpha = alpha
        self.dropouts = dropouts
        # A convolution's stride and padding sit in the down half, so that the 1x1 up half keeps the size.
        self.geometry = {key: getattr(base, key) for key in ("stride", "padding", "dilation")} if isinstance(base, nn.Conv2d) else None
        self.pointwise = isinstance(base, nn.Conv2d) and base.kernel_size == (1, 1) and base.stride == (1, 1) and not any(base.padding)

    @classmethod
    def fresh(cls, base: Any, plan: LayerPlan, dropouts: Dropouts, generator: torch.Generator | None, _: Any = None) -> Self:
        """Make a layer that is to be trained."""
        layer = cls(base, plan.dim, plan.alpha, dropouts)
        # Kaiming-uniform as torch's own Linear; drawn from the run's generator, so that the seed fixes it.
        nn.init.kaiming_uniform_(layer.down, a=math.sqrt(5), generator=generator)
        return layer

    @classmethod
    def from_tensors(cls, base: Any, tensors: Mapping[str, Tensor], _: str = "") -> Self:
        """Make a layer with the rank that a file holds; its weights are not taken yet."""
        return cls(base, tensors[DOWN].shape[0], float(tensors.get(ALPHA, 0.0)) or float(tensors[DOWN].shape[0]))

    @property
    def scale(self) -> float:
        return self.alpha / self.down.shape[0]

    def hidden(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        """Return what the down half makes of an input, thinned by the draw."""
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.down.dtype)  # under autocast torch picks the type itself
        if self.geometry is None:
            hidden = F.linear(x, self.down)
        elif self.pointwise:  # torch's own 1x1 convolution copies the input first
            hidden = _per_picture(self.down, x.flatten(2)).unflatten(2, x.shape[2:])
        else:
            hidden = F.conv2d(x, self.down, **self.geometry)
        if draw and self.dropouts:
            hidden = draw.thin(hidden, self.dropouts, axis=-1 if self.geometry is None else 1)
        return hidden

    def update(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        """Return what the layer adds to the base's output for an input."""
        hidden = self.hidden(x, draw)
        return (F.linear(hidden, self.up) if self.geometry is None else F.conv2d(hidden, self.up)) * self.scale

    def forward(self, x: Tensor, output: Tensor, multiplier: float, draw: Draw | None) -> Tensor:
        if draw and draw.skips(self.dropouts.module):
            return output
        hidden, strength = self.hidden(x, draw), multiplier * self.scale
        if hidden.dtype != output.dtype:
            update = F.linear(hidden, self.up) if self.geometry is None else F.conv2d(hidden, self.up)
            return output + (strength * update).to(output.dtype)
        # The up half, the strength and the sum in one pass over the output, which is far larger than what is hidden.
        if self.geometry is None:
            return torch.addmm(output.flatten(0, -2), hidden.flatten(0, -2), self.up.t(), alpha=strength).view(output.shape)
        up = self.up.flatten(1).expand(len(hidden), -1, -1)
        return torch.baddbmm(output.flatten(2), up, hidden.flatten(2), alpha=strength).view(output.shape)

    def tensors(self) -> dict[str, Tensor]:
        return {DOWN: self.down, UP: self.up, ALPHA: torch.tensor(self.alpha)}

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for suffix, parameter in ((DOWN, self.down), (UP, self.up)):
                parameter.copy_(tensors[suffix].reshape(parameter.shape))
        # Without an alpha, or with 0, it is the rank, as all readers take it.
        self.alpha = float(tensors.get(ALPHA, 0.0)) or float(self.down.shape[0])

    def fast(self) -> list[nn.Parameter]:
        return [self.up]

    def weight_update(self) -> Tensor:
        """Return the change of the base's weight (out, in[, k, k])."""
        return (self.up.flatten(1) @ self.down.flatten(1)).view(self.up.shape[0], *self.down.shape[1:]) * self.scale

    def limit(self, max_norm: float) -> Tensor:
        """Scale both halves alike, so that the update's Frobenius norm is at most `max_norm`.

        The norm comes from the halves' rank x rank Gram matrices, |up down|^2 = tr(up^T up down down^T), without the whole update.
        """
        up, down = self.up.flatten(1).double(), self.down.flatten(1).double()
        norm = ((up.T @ up) * (down @ down.T)).sum().clamp(min=0).sqrt() * self.scale
        factor = (max_norm / norm.clamp(min=1e-30)).clamp(max=1)
        for half in (self.up, self.down):
            half.mul_(factor.sqrt())
        return norm * factor


def _per_picture(weight: Tensor, columns: Tensor) -> Tensor:
    """Multiply each picture's columns (B, in, n) by one matrix (out, in[, 1, 1])."""
    return torch.bmm(weight.flatten(1).expand(len(columns), -1, -1), columns)
