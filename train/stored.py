"""Frozen layers whose weight is not at hand: held in fewer bits (train/precisions.py), or waiting in the CPU's memory (train/swap.py).

Such a layer makes its weight in the type of the computation for its own forward pass, and again for its backward pass: autograd keeps
neither the weight nor a copy of it, so what is not in use takes no memory. What a LoRA adds to its output is not touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.modules.blocks import Conv2d, Linear
from train.precisions import PRECISIONS

if TYPE_CHECKING:
    from train.swap import Block


class Stored:
    """What StoredLinear and StoredConv2d have in common.

    `weight` holds what a precision keeps, bytes or whole numbers, or the numbers as they are, then `scale` is None. No cast of the whole model
    touches the former, and nothing moves the weight of a layer whose `block` is swapped.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    kind: str = ""  # a key of PRECISIONS, or "" for numbers as they are
    scale: Tensor | None = None
    shape: torch.Size | None = None  # of the weight that `dense` makes, where `weight` is held in fewer bits
    block: Block | None = None

    def dense(self, dtype: torch.dtype) -> Tensor:
        """Return the weight (out, in[, k, k]) as numbers of a type, which fetches its block first."""
        if self.block is not None:
            self.block.need()
        weight = self.weight.detach()
        if self.scale is None:
            return weight.to(dtype)
        assert self.shape is not None
        # fp16 has too few small numbers for some scales
        wide = torch.float32 if dtype == torch.float16 else dtype
        numbers = PRECISIONS[self.kind].restored(weight, self.scale, wide).to(dtype)
        return numbers.flatten()[: self.shape.numel()].view(self.shape)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return what the layer gives for an input."""
        raise NotImplementedError

    def input_gradient(self, shape: torch.Size, gradient: Tensor, weight: Tensor) -> Tensor:
        """Return the gradient of an input of this shape."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        given: Tensor = _Product.apply(x.to(dtype), self)
        return given

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Move or cast as a module does, but for a swapped weight; the scale goes where the rest goes."""
        weight = self.weight
        swapped = self.block is not None
        found = super()._apply(lambda tensor: tensor if swapped and tensor is weight else fn(tensor), recurse)  # type: ignore[misc]
        if self.scale is not None and not swapped:
            self.scale = fn(self.scale.view(torch.uint8)).view(self.scale.dtype)  # as bytes, which are moved and not cast
        return found


class StoredLinear(Stored, nn.Linear):
    """A linear layer, (..., in) -> (..., out)."""

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))

    def input_gradient(self, shape: torch.Size, gradient: Tensor, weight: Tensor) -> Tensor:
        return gradient @ weight


class StoredConv2d(Stored, nn.Conv2d):
    """A convolution padded with zeros, (B, in, h, w) -> (B, out, h', w')."""

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def input_gradient(self, shape: torch.Size, gradient: Tensor, weight: Tensor) -> Tensor:
        return torch.nn.grad.conv2d_input(list(shape), weight, gradient, self.stride, self.padding, self.dilation, self.groups)  # type: ignore[arg-type]


class _Product(torch.autograd.Function):
    """The product of an input and a layer's weight; only the layer is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any) -> Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        given: Tensor = layer.product(x, layer.dense(x.dtype))
        return given

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None]:
        (gradient,) = gradients
        if not ctx.needs_input_grad[0]:
            return None, None
        return ctx.layer.input_gradient(ctx.shape, gradient, ctx.layer.dense(gradient.dtype)), None


CLASSES: dict[type, type] = {nn.Linear: StoredLinear, Linear: StoredLinear, nn.Conv2d: StoredConv2d, Conv2d: StoredConv2d}


def layers_of(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield (path, layer) of the layers that can be stored; those of other classes, and convolutions that pad otherwise, stay as they are."""
    for path, layer in module.named_modules():
        plain = type(layer) in CLASSES and getattr(layer, "padding_mode", "zeros") == "zeros" and not isinstance(getattr(layer, "padding", 0), str)
        if plain or isinstance(layer, Stored):
            yield path, layer


def store(layer: Any, kind: str = "", device: torch.device | None = None) -> None:
    """Let a layer make its weight each time, in place; `kind` says in which precision it is held from now on, "" leaves its numbers.

    The layer keeps its identity, name and hooks. Rounding is done on `device`, where the weight stays. What is held in 8 bits may be rounded
    further.
    """
    if not isinstance(layer, Stored):
        layer.__class__ = CLASSES[type(layer)]
    if kind and layer.kind != kind:
        weight = layer.dense(torch.float32) if layer.kind else layer.weight.detach()
        raw, layer.scale = PRECISIONS[kind].rounded(weight.to(device))
        layer.weight, layer.kind, layer.shape = nn.Parameter(raw, requires_grad=False), kind, weight.shape


def base_weight(module: Any) -> Tensor:
    """Return a layer's weight in float32, however it is held."""
    return module.dense(torch.float32) if isinstance(module, Stored) else module.weight.detach().float()


def base_shape(module: Any) -> torch.Size:
    """Return the shape (out, in[, k, k]) of a layer's weight, however it is held."""
    shape = module.shape if isinstance(module, Stored) else None
    return module.weight.shape if shape is None else shape
