"""LoRA: a low-rank update beside a frozen layer (https://arxiv.org/abs/2106.09685), for Linear and Conv2d layers.

The update of a layer is (alpha / rank) * up @ down. Names and shapes are kohya's, which all readers take: NAME.lora_down.weight
(rank, in[, k, k]), NAME.lora_up.weight (out, rank[, 1, 1]) and NAME.alpha.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prep.options import UserError
from train.adapters import Target

SUFFIXES = (".lora_down.weight", ".lora_up.weight", ".alpha")


class LoRALayer(nn.Module):
    """The update of one layer; it starts as the identity, for up is zero."""

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, alpha: float) -> None:
        super().__init__()
        out_features, *inner = base.weight.shape
        self.down = nn.Parameter(torch.zeros(rank, *inner))
        self.up = nn.Parameter(torch.zeros(out_features, rank, *[1] * (len(inner) - 1)))
        self.alpha = alpha
        # A convolution's stride and padding sit in the down half, so that the 1x1 up half keeps the size.
        self.geometry = {key: getattr(base, key) for key in ("stride", "padding", "dilation")} if isinstance(base, nn.Conv2d) else None

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.down.dtype)  # under autocast torch picks the type itself
        if self.geometry is None:
            hidden = F.linear(F.linear(x, self.down), self.up)
        else:
            hidden = F.conv2d(F.conv2d(x, self.down, **self.geometry), self.up)
        return hidden * (self.alpha / self.down.shape[0])


class LoRANetwork(nn.Module):
    """All layers' updates, attached to the base by forward hooks, so that the base itself is never touched."""

    def __init__(self, targets: Sequence[Target], dim: int, alpha: float, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.multiplier = 1.0
        self.layers = nn.ModuleDict()
        self._parts: dict[str, str] = {}
        self._hooks: list[Any] = []
        for target in targets:
            layer = self._attach(target, dim, alpha)
            # Kaiming-uniform as torch's own Linear; drawn from the run's generator, so that the seed fixes it.
            nn.init.kaiming_uniform_(layer.down, a=math.sqrt(5), generator=generator)

    @classmethod
    def from_state(cls, targets: Sequence[Target], state: Mapping[str, Tensor]) -> LoRANetwork:
        """Build the network that a file holds, with the file's own ranks and alphas; layers it lacks stay plain."""
        network = cls([], 1, 1.0)
        for target in targets:
            down = state.get(f"{target.name}.lora_down.weight")
            if down is not None:
                rank = down.shape[0]
                network._attach(target, rank, _alpha(state, target.name, rank))
        network.load(state)
        return network

    def _attach(self, target: Target, rank: int, alpha: float) -> LoRALayer:
        layer = LoRALayer(target.module, rank, alpha)
        self.layers[target.name] = layer
        self._parts[target.name] = target.part

        def add_update(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + self.multiplier * layer(args[0]).to(output.dtype) if self.multiplier else output

        self._hooks.append(target.module.register_forward_hook(add_update))
        return layer

    def remove(self) -> None:
        """Take the updates off the base, which then computes what it did before."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def parameters_of(self, part: str) -> list[nn.Parameter]:
        """List the trainable tensors of "unet" or "text_encoder"."""
        return [p for name, layer in self.layers.items() if self._parts[name] == part for p in layer.parameters()]

    def state(self) -> dict[str, Tensor]:
        """Return kohya's names -> tensors, float32 on the CPU; copies, so that later steps leave them alone."""
        found = {}
        for name, layer in self.layers.items():
            tensors = (layer.down, layer.up, torch.tensor(layer.alpha))
            found.update({name + suffix: t.detach().to("cpu", torch.float32, copy=True) for suffix, t in zip(SUFFIXES, tensors, strict=True)})
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take weights and alphas from a state; raises UserError that names missing, unknown or misshapen keys."""
        slots = {name + suffix: p for name, layer in self.layers.items() for suffix, p in ((SUFFIXES[0], layer.down), (SUFFIXES[1], layer.up))}
        known = set(slots) | {name + SUFFIXES[2] for name in self.layers}
        faults = [f"missing {key}" for key in slots if key not in state] + [f"unknown {key}" for key in state if key not in known]
        # SD 2.x files hold proj_in and proj_out as (r, C) or (r, C, 1, 1), depending on who wrote them; both are the same matrix.
        faults += [
            f"{key} is {tuple(state[key].shape)}, not {tuple(p.shape)}"
            for key, p in slots.items()
            if key in state and _squeezed(state[key].shape) != _squeezed(p.shape)
        ]
        if faults:
            more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
            raise UserError(f"the LoRA's weights do not fit this base model ({', '.join(faults[:3])}{more}); use the base it was made for")
        with torch.no_grad():
            for key, parameter in slots.items():
                parameter.copy_(state[key].reshape(parameter.shape))
        for name, layer in self.layers.items():
            layer.alpha = _alpha(state, name, layer.down.shape[0])


def _alpha(state: Mapping[str, Tensor], name: str, rank: int) -> float:
    """Read a layer's alpha; without one, or with 0, it is the rank, as all readers take it."""
    return float(state.get(name + SUFFIXES[2], 0.0)) or float(rank)


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape[:2]) + tuple(side for side in shape[2:] if side != 1)
