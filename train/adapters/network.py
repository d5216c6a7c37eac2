"""The adapters of all layers as one module: attached by forward hooks, so that the base itself is never touched."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from prep.options import UserError, load_object
from train.adapters import ADAPTERS, Target, kind_of
from train.adapters.dropout import Draw
from train.adapters.plan import LayerPlan

# What the width of the text that the UNet reads says about the base: see the families' configurations.
TEXT_WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL"}

STRIDE = 2  # seeds that a layer's draw takes


Act = Callable[[Tensor, Tensor], Tensor]  # a layer's input and what the base gives -> what it gives with its adapter


class Layer(nn.Module, ABC):
    """One layer's adapter. A file holds what `tensors` names; `alpha` may be missing there, and then is the rank."""

    @abstractmethod
    def forward(self, x: Tensor, output: Tensor, multiplier: float, draw: Draw | None) -> Tensor:
        """Return what the layer gives with its adapter, from its input and what the base gives; without a draw nothing is dropped."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return what a file holds of this layer, by suffix."""

    @abstractmethod
    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave; shapes were compared before."""

    def fast(self) -> list[nn.Parameter]:
        """List the parameters whose rate LoRA+ raises (arxiv.org/abs/2402.12354)."""
        return []

    @abstractmethod
    def weight_update(self) -> Tensor:
        """Return the change of the base's weight (out, in[, k, k]) at full strength."""

    @abstractmethod
    def limit(self, max_norm: float) -> Tensor:
        """Scale the update down to a norm of at most `max_norm`; returns the norm it then has."""


@dataclass(frozen=True)
class Group:
    """Parameters with one learning rate: `rate` if it is set, else `factor` times the rate of their part."""

    name: str
    part: str
    parameters: list[nn.Parameter]
    factor: float = 1.0
    rate: float | None = None

    def learning_rate(self, part_rate: float) -> float:
        return self.factor * (part_rate if self.rate is None else self.rate)


class Network(nn.Module):
    """All layers' adapters. `multiplier` is how strongly they act; `plus` is LoRA+'s ratio by part."""

    def __init__(self) -> None:
        super().__init__()
        self.multiplier = 1.0
        self.plus: Mapping[str, float] = {}
        self.layers = nn.ModuleDict()
        self._targets: dict[str, Target] = {}
        self._plans: dict[str, LayerPlan] = {}
        self._acts: dict[str, Act] = {}
        self._hooks: list[Any] = []
        self.seed: int | None = None  # of the dropouts of this batch; None drops nothing

    @classmethod
    def from_state(cls, targets: Sequence[Target], state: Mapping[str, Tensor]) -> Self:
        """Build the network that a file holds, with its own kinds, ranks and alphas; layers it lacks stay plain.

        Raises UserError if the file holds layers or shapes that the targets do not have.
        """
        network, held = cls(), by_layer(state)
        for target in targets:
            tensors = held.get(target.name)
            kind = tensors and kind_of(f".{suffix}" for suffix in tensors)
            if tensors and kind:
                network.attach(target, load_object(ADAPTERS[kind].layer).from_tensors(target.module, tensors, kind))
        network.load(state)
        return network

    def attach(self, target: Target, layer: Layer, plan: LayerPlan | None = None) -> None:
        """Let a layer's adapter act from now on."""
        number = len(self.layers)
        self.layers[target.name] = layer
        self._targets[target.name] = target
        self._plans[target.name] = plan or LayerPlan(0, 0.0)

        def act(x: Tensor, output: Tensor) -> Tensor:
            if not self.multiplier:
                return output
            draw = None if self.seed is None or not torch.is_grad_enabled() else Draw(self.seed + STRIDE * number)
            changed: Tensor = layer(x, output, self.multiplier, draw)
            return changed

        self._acts[target.name] = act
        self._hook(target.name)

    def _hook(self, name: str) -> None:
        act = self._acts[name]
        self._hooks.append(self._targets[name].module.register_forward_hook(lambda module, args, output: act(args[0], output)))

    def acting(self) -> dict[str, tuple[nn.Module, Act]]:
        """Return the base's layer and what its adapter makes of input and output, by name."""
        return {name: (self._targets[name].module, act) for name, act in self._acts.items()}

    @property
    def attached(self) -> bool:
        """Whether the adapters act on the base, or there are none."""
        return bool(self._hooks) or not self._acts

    def put_back(self) -> None:
        """Let the adapters act again after `remove`."""
        for name in self._acts if not self._hooks else ():
            self._hook(name)

    def set_plan(self, name: str, plan: LayerPlan) -> None:
        """Let a layer have another learning rate."""
        self._plans[name] = plan

    def target(self, name: str) -> Target:
        """Return the layer of the base that an adapter sits on."""
        return self._targets[name]

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let the base be without the adapters, hooks and all, inside."""
        self.remove()
        try:
            yield
        finally:
            self.put_back()

    def remove(self) -> None:
        """Take the adapters off the base, which then computes what it did before."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def draw_dropout(self, generator: torch.Generator) -> None:
        """Draw what the dropouts of the next batch leave out; to be called before each, and nothing is dropped before the first.

        One seed is drawn for all layers, so that a forward pass that is repeated for gradient checkpointing drops the same. Without
        dropout nothing is drawn, and where no gradient is asked for, as for sample pictures, nothing is dropped.
        """
        if any(getattr(layer, "dropouts", None) for layer in self.layers.values()):
            self.seed = int(torch.randint(2**62, (1,), generator=generator))

    def parameters_of(self, part: str) -> list[nn.Parameter]:
        """List the trainable tensors of "unet" or "text_encoder"."""
        return [p for name, layer in self.layers.items() if self._targets[name].part == part for p in layer.parameters()]

    def groups(self) -> list[Group]:
        """Group the parameters by learning rate, the UNet's first; a network of plain settings has one group a part."""
        found: dict[str, Group] = {}
        for part in ("unet", "text_encoder"):
            for name, layer in self.layers.items():
                if self._targets[name].part == part:
                    fast = set(map(id, layer.fast())) if self.plus.get(part, 1.0) != 1 else set()  # type: ignore[operator]
                    for parameter in layer.parameters():
                        group = self._group(part, self._plans[name], id(parameter) in fast)
                        found.setdefault(group.name, group).parameters.append(parameter)
        return list(found.values())

    def _group(self, part: str, plan: LayerPlan, fast: bool) -> Group:
        factor = plan.factor * (self.plus[part] if fast else 1.0)
        name = part + (f"_x{plan.factor:g}" if plan.factor != 1 else "") + (f"_at_{plan.rate:g}" if plan.rate is not None else "")
        return Group(name + ("_up" if fast else ""), part, [], factor, plan.rate)

    @torch.no_grad()
    def limit_norms(self, max_norm: float) -> dict[str, float]:
        """Scale each layer's update down to a norm of at most `max_norm`; returns how many had that norm, and the mean and highest norm."""
        norms = torch.stack([layer.limit(max_norm) for layer in self.layers.values()])  # type: ignore[operator]
        return {"norms_limited": int((norms >= max_norm * (1 - 1e-4)).sum()), "norm_mean": float(norms.mean()), "norm_max": float(norms.max())}

    def state(self) -> dict[str, Tensor]:
        """Return kohya's names -> tensors, float32 on the CPU; copies, so that later steps leave them alone."""
        pairs = ((name, suffix, t) for name, layer in self.layers.items() for suffix, t in layer.tensors().items())  # type: ignore[operator]
        return {f"{name}.{suffix}": tensor.detach().to("cpu", torch.float32, copy=True).contiguous() for name, suffix, tensor in pairs}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take weights and alphas from a state; raises UserError that names missing, unknown or misshapen keys."""
        slots = {f"{name}.{suffix}": t for name, layer in self.layers.items() for suffix, t in layer.tensors().items()}  # type: ignore[operator]
        faults = [f"missing {key}" for key in slots if key not in state and not key.endswith(".alpha")]
        faults += [f"unknown {key}" for key in state if key not in slots and not (key.endswith(".alpha") and key[:-6] in self.layers)]
        # SD 2.x files hold proj_in and proj_out as (r, C) or (r, C, 1, 1), depending on who wrote them; both are the same matrix.
        faults += [
            f"{key} is {tuple(state[key].shape)}, not {tuple(slot.shape)}"
            for key, slot in slots.items()
            if key in state and squeezed(state[key].shape) != squeezed(slot.shape)
        ]
        if faults:
            more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
            raise UserError(f"the LoRA's weights do not fit this base model ({', '.join(faults[:3])}{more}); use the base it was made for")
        for name, tensors in by_layer(state).items():
            self.layers[name].take(tensors)  # type: ignore[operator]


def by_layer(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Sort a state by layer: name -> suffix -> tensor."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        name, _, suffix = key.partition(".")
        found.setdefault(name, {})[suffix] = tensor
    return found


def check_family(state: Mapping[str, Tensor], targets: Sequence[Target], what: str) -> None:
    """Raise UserError if a LoRA is for another family than the base of these targets: the text that its UNet reads has another width."""
    widths = {t.module.in_features for t in targets if t.name.endswith("attn2_to_k")}
    found = {tensor.shape[1] for key, tensor in state.items() if key.endswith("attn2_to_k.lora_down.weight")}
    names = {target.name for target in targets}
    if found and widths and found != widths:
        made, base = (TEXT_WIDTHS.get(next(iter(some)), f"a base with text {next(iter(some))} wide") for some in (found, widths))
        raise UserError(f"{what} is a LoRA for {made}, but this base model is {base}; give a LoRA of the same family")
    if not any(key.partition(".")[0] in names for key in state):
        raise UserError(f"{what} holds no layer of this base model ({next(iter(state))} first); give a LoRA of the same family")


def squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """Leave out the sides of 1 behind the first two: a matrix and a 1x1 convolution hold the same."""
    return tuple(shape[:2]) + tuple(side for side in shape[2:] if side != 1)
