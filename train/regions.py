"""The model's blocks compiled one by one, so that one graph serves all blocks of a shape.

A block with its adapters is compiled as a twin: the same module with the same weights, but each layer that has an adapter is an Adapted one, which
holds both. The hooks by which a network acts otherwise (train/adapters/network.py) differ from block to block, so that each block would be compiled
for itself. Weights are inputs of a graph: whatever changes their numbers, a step or a loaded state, changes nothing of it.

Only training passes are compiled. Judging and sampling, which compute at other sizes, without gradients and at times without the network, are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from train.adapters.dropout import Draw, Dropouts
from train.adapters.lora import LoRALayer
from train.adapters.network import STRIDE
from train.modules.blocks import Recomputed
from train.stored import Stored

if TYPE_CHECKING:
    from train.adapters.network import Network

BACKEND = "inductor"
# Graphs that torch.compile may hold of all blocks: SDXL with its text encoders has some 30 kinds of them, some with and without a gradient
# of the input, and a batch of 1 is compiled apart.
MOST_GRAPHS = 256


SCHEMA = "(Tensor hidden, Tensor seed, float value, float rank, int axis) -> Tensor"


@torch.library.custom_op("atelier::dropout_factor", mutates_args=(), schema=SCHEMA)
def dropout_factor(hidden: Tensor, seed: Tensor, value: float, rank: float, axis: int) -> Tensor:
    """Draw what an adapter's dropout multiplies `hidden` by, with a seed () int64 that a graph reads and does not hold."""
    return Draw(int(seed)).factor(hidden, Dropouts(value, rank), axis).contiguous()


@dropout_factor.register_fake
def _(hidden: Tensor, seed: Tensor, value: float, rank: float, axis: int) -> Tensor:
    return torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device)


class TracedDraw:
    """A Draw whose seed is a tensor () int64 on the CPU, so that another seed is no other graph."""

    def __init__(self, seed: Tensor) -> None:
        self.seed = seed

    def skips(self, share: float) -> bool:
        """Never: layers that are left out as a whole are not compiled."""
        return False

    def thin(self, hidden: Tensor, dropouts: Dropouts, axis: int) -> Tensor:
        """Leave out values and ranks as Draw does."""
        factor: Tensor = torch.ops.atelier.dropout_factor(hidden.detach(), self.seed, dropouts.value, dropouts.rank, axis)
        return hidden * factor


class Adapted(nn.Module):
    """A layer of the base and its adapter in one."""

    def __init__(self, base: nn.Module, layer: LoRALayer, draw: TracedDraw | None) -> None:
        super().__init__()
        self.base, self.layer, self.draw = base, layer, draw

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x, self.base.forward(x), 1.0, self.draw)  # past the hooks of the base's layer, which would add the adapter again
        return out


def twin_of(module: Any, adapted: Mapping[nn.Module, Adapted]) -> Any:
    """Return a module with the same weights in which `adapted` take the place of the layers that they hold; itself if it has none of them."""
    if module in adapted:
        return adapted[module]
    parts = {name: None if part is None else twin_of(part, adapted) for name, part in module._modules.items()}
    if all(parts[name] is part for name, part in module._modules.items()):
        return module
    kind: Any = type(module)
    twin = kind.__new__(kind)
    twin.__dict__.update({**module.__dict__, "_modules": parts})
    return twin


def forward_of(block: Any, *args: Any) -> Any:
    """Compute a block; this is the function that is compiled, and the block one of its arguments."""
    return block.forward(*args)


@dataclass(frozen=True)
class Region:
    """A block that computes compiled wherever that is what it would compute otherwise."""

    block: Recomputed
    twin: Any
    compute: Callable[..., Any]
    regions: Regions

    def __call__(self, *args: Any) -> Any:
        if self.regions.ready():
            return self.compute(self.twin, *args)
        return nn.Module.__call__(self.block, *args)


class Regions:
    """The blocks of a model's parts that can be compiled, as the network acts on them; `left` counts those that cannot.

    `varying` says that batches differ in size: graphs then hold for any. Without it there is one for each size.
    """

    def __init__(self, parts: Iterable[nn.Module], network: Network, varying: bool) -> None:
        self.network, self.varying = network, varying
        self.draws = any(getattr(layer, "dropouts", None) for layer in network.layers.values())
        self._seeds = torch.zeros(len(network.layers), dtype=torch.int64)
        self._seed: int | None = None
        self._settings = ExitStack()
        self._marks_steps = False
        layers: dict[nn.Module, nn.Module] = {network.target(name).module: layer for name, layer in network.layers.items()}
        blocks = [block for part in parts for block in part.modules() if isinstance(block, Recomputed)]
        fitting = [block for block in blocks if compilable(block, layers)]
        self.left = len(blocks) - len(fitting)
        adapted = self._adapted(layers)
        self.twins: dict[Recomputed, Any] = {block: twin_of(block, adapted) for block in fitting}

    def _adapted(self, layers: Mapping[nn.Module, nn.Module]) -> dict[nn.Module, Adapted]:
        found = {}
        for (base, layer), seed in zip(layers.items(), self._seeds, strict=True):
            if isinstance(layer, LoRALayer):
                found[base] = Adapted(base, layer, TracedDraw(seed) if layer.dropouts else None)
        return found

    def use(self, mode: str, graphs: bool = False) -> None:
        """Compile the blocks, when they are next computed, in a mode of torch.compile; `graphs` says that it makes CUDA graphs."""
        self.remove()
        compute = torch.compile(forward_of, backend=BACKEND, mode=mode if BACKEND == "inductor" else None, dynamic=self.varying)
        for patch in _settings():
            self._settings.enter_context(patch)
        self._marks_steps = graphs
        for block, twin in self.twins.items():
            block.compiled = Region(block, twin, compute, self)

    def remove(self) -> None:
        """Let all blocks compute as they are."""
        self._settings.close()
        self._marks_steps = False
        for block in self.twins:
            block.compiled = None

    def ready(self) -> bool:
        """Whether a block is to train with the whole network now; the seeds of its dropouts are then this batch's."""
        network = self.network
        if not (torch.is_grad_enabled() and network.attached and network.multiplier == 1 and (network.seed is not None or not self.draws)):
            return False
        if self.draws and network.seed != self._seed:
            assert network.seed is not None
            self._seed = network.seed
            self._seeds.copy_(network.seed + STRIDE * torch.arange(len(self._seeds)))
        return True

    def begin_step(self) -> None:
        """Say that what CUDA graphs gave in the step before is not needed any more: batches that are gathered are one step."""
        if self._marks_steps:
            torch.compiler.cudagraph_mark_step_begin()


def compilable(block: nn.Module, layers: Mapping[nn.Module, nn.Module]) -> bool:
    """Say whether a block can be compiled: its weights are at hand, and its adapters are LoRAs of which none is left out as a whole."""
    if any(isinstance(module, Stored) for module in block.modules()):
        return False
    found = [layers[module] for module in block.modules() if module in layers]
    return all(type(layer) is LoRALayer and not layer.dropouts.module for layer in found)


def _settings() -> Iterator[Any]:
    """Yield the settings of torch.compile that blocks want: room for all their graphs, and no guess that two sides that are equal always are."""
    import torch._dynamo
    import torch.fx.experimental._config

    yield torch._dynamo.config.patch(cache_size_limit=MOST_GRAPHS, accumulated_cache_size_limit=MOST_GRAPHS)
    yield torch.fx.experimental._config.patch(use_duck_shape=False)
