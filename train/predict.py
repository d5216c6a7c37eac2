"""The peak memory of a step, predicted from shapes before anything is on the device.

    peak = weights + trained + optimizer + step

*weights*: the frozen base on the device, each layer in the type that it is held in; of swapped blocks the buffers (train/swap.py).
*trained*: what is trained, in float32, and its running mean if there is one. *optimizer*: what the set optimizer keeps, found by one step of
it on a weight of each shape. These three are exact, but for optimizers that keep less of a weight that begins at 0. *step*: the most that
activations, gradients and what is computed on the way take at once. It is found by a step on a copy of the model whose tensors have shapes,
types and lifetimes but no memory (torch's FakeTensorMode), on the largest bucket, with gradients that wait for the next batch if several are
gathered. It knows of no scratch memory inside an operation and of no dropout masks.

On a CUDA device HEADROOM is added for the scratch memory of cuBLAS and cuDNN and for gaps between tensors.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from train.adapters.build import build_network
from train.families.sd import Conditioning
from train.full import full_network
from train.memory import checkpoint_gradients, hold_base, placed_parts
from train.memory_config import MemoryConfig
from train.optimizers import optimizer_maker
from train.stored import Stored, store
from train.swap import chosen, pool_bytes

if TYPE_CHECKING:
    from train.config import TrainConfig
    from train.families.sd import Model
    from train.runtime import Runtime

HEADROOM = (1.1, 300e6)  # device type "cuda": factor, and bytes on top
LOST_PRECISION = 8  # bytes a trained number takes in an optimizer that cannot be tried out here: two of float32


@dataclass(frozen=True)
class Shape:
    """What a step computes with: pictures of a batch, (width, height) of the largest bucket in pixels, batches that are gathered, and whether
    captions are encoded in the step."""

    batch: int
    size: tuple[int, int]
    gathered: int
    encoders_run: bool


@dataclass(frozen=True)
class Need:
    """Bytes on the device at the peak of a step."""

    weights: int
    trained: int
    optimizer: int
    step: int
    reads_base: bool = False  # the network computes with the base's weights, which then must be as they are

    def total(self, device_type: str) -> float:
        """Return all of it, with headroom on a CUDA device."""
        plain = self.weights + self.trained + self.optimizer + self.step
        return plain * HEADROOM[0] + HEADROOM[1] if device_type == "cuda" else plain


class Meter(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make while they live; `peak` is the most at once. What `ignoring` names is not counted."""

    def __init__(self, ignoring: Any = ()) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, int] = {}
        for tensor in ignoring:
            self._known[tensor.untyped_storage()._cdata] = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return found

    def _note(self, storage: Any) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known[key] = storage.nbytes()
            self.live += self._known[key]
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.live -= self._known.pop(key, 0)


def predict(config: TrainConfig, runtime: Runtime, model: Model, shape: Shape) -> Need:
    """Predict the peak of a step with these settings; `model` may lie anywhere and is not touched. Raises UserError as `hold_base` does."""
    memory, meta = config.memory, torch.device("meta")
    twin = _twin(model)
    parts = placed_parts(twin, shape.encoders_run)
    if not config.network.full:
        hold_base(MemoryConfig(memory.base_precision), runtime, twin, parts[1:], meta)
        for block in chosen(twin.unet, memory.blocks_to_swap):  # which the twin computes as if they were at hand
            for layer in block.layers:
                store(layer)
        runtime.place(*parts, device=meta)
    if config.output.gradient_checkpointing:
        checkpoint_gradients(twin, config.network.train_text_encoder)
    network: Any = None if config.network.full else build_network(config.network, twin, torch.Generator())
    with FakeTensorMode(allow_non_fake_inputs=True):
        for part in [*parts, *([network] if network else [])]:
            _imagined(part, runtime.device)
        network = network or full_network(config, twin)
        trained = [p for p in network.parameters() if p.requires_grad]
        own = {id(p) for p in trained}
        frozen = sum(tensor.nbytes for part in parts for tensor in held_tensors(part) if id(tensor) not in own)
        step = _step(config, runtime, twin, shape, trained)
        blocks = chosen(twin.unet, memory.blocks_to_swap)
        swapped = sum(layer.weight.nbytes for block in blocks for layer in block.layers)
        sizes = Counter(tuple(p.shape) for p in trained)
        reads = config.network.full or any(kind_reads(layer) for layer in network.layers.values())
    size = sum(4 * torch.Size(s).numel() * count for s, count in sizes.items())
    return Need(
        frozen - swapped + pool_bytes([block.size for block in blocks]),
        size * (2 if config.output.ema_decay else 1),
        _optimizer_bytes(config, sizes),
        step,
        reads,
    )


def kind_reads(layer: Any) -> bool:
    """Say whether an adapter's layer computes with the base's weight."""
    from train.adapters import ADAPTERS, kind_of

    kind = kind_of(f".{suffix}" for suffix in layer.tensors())
    return kind is None or ADAPTERS[kind].reads_base


def held_tensors(part: nn.Module) -> Iterator[Tensor]:
    """Yield what a part of the model keeps in memory: weights, buffers, and the scales of layers in fewer bits."""
    yield from part.parameters()
    yield from part.buffers()
    for layer in part.modules():
        if isinstance(layer, Stored) and layer.scale is not None:
            yield layer.scale


def _twin(model: Model) -> Model:
    """Make a model of the same shapes and types on the meta device."""
    with torch.device("meta"):
        encoders: list[Any] = [type(encoder)(encoder.config) for encoder in model.text_encoders]
        unet: Any = type(model.unet)(model.unet.config)
    for own, other in zip((unet, *encoders), (model.unet, *model.text_encoders), strict=True):
        types = {name: p.dtype for name, p in other.named_parameters() if p.is_floating_point()}
        for name, parameter in own.requires_grad_(False).eval().named_parameters():
            parameter.data = parameter.data.to(types.get(name, parameter.dtype))
    facts = {"vae": model.vae, "scheduler_config": model.scheduler_config}
    return type(model)(model.family, model.path, unet=unet, text_encoders=encoders, **facts)


def _imagined(module: nn.Module, device: torch.device) -> None:
    """Give a module tensors of its own shapes and types on a device; to be called where tensors have no memory."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                made = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                part._parameters[name] = nn.Parameter(made, requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
        if isinstance(part, Stored) and part.scale is not None:
            part.scale = torch.empty(part.scale.shape, dtype=part.scale.dtype, device=device)


@contextmanager
def _ignored(model: Model, trained: list[nn.Parameter]) -> Iterator[Meter]:
    parts = (model.unet, *model.text_encoders)
    with Meter([*(tensor for part in parts for tensor in held_tensors(part)), *trained]) as meter:
        yield meter


def _step(config: TrainConfig, runtime: Runtime, twin: Model, shape: Shape, trained: list[nn.Parameter]) -> int:
    """Take a forward and a backward pass, two if batches are gathered, and return the most bytes that were there at once."""
    width, height = (side // twin.vae_scale for side in shape.size)
    latents = torch.zeros(shape.batch, twin.unet.config.in_channels, height, width, device=runtime.device)
    timesteps = torch.zeros(shape.batch, dtype=torch.long, device=runtime.device)
    sizes = torch.zeros(shape.batch, 6, device=runtime.device)
    with _ignored(twin, trained) as meter:
        for _ in range(min(2, shape.gathered)):
            with runtime.autocast():
                prediction = twin.denoise(latents, timesteps, _told(config, twin, shape, sizes))
            (prediction.float() - latents).square().mean().backward()
            del prediction
        return meter.peak


def _told(config: TrainConfig, twin: Model, shape: Shape, sizes: Tensor) -> Conditioning:
    """Return what the UNet is told, from the text encoders where they run in the step."""
    chunks, encoders = config.model.max_token_length // 75, twin.text_encoders
    if shape.encoders_run:
        ids = torch.zeros(shape.batch, *((len(encoders),) if len(encoders) > 1 else ()), chunks, 77, dtype=torch.long, device=sizes.device)
        return twin.conditioning(ids, config.model.clip_skip, sizes)
    states = torch.zeros(shape.batch, 75 * chunks + 2, twin.unet.config.cross_attention_dim, device=sizes.device)
    if len(encoders) == 1:
        return Conditioning(states)
    return Conditioning(states, torch.zeros(shape.batch, encoders[-1].config.projection_dim, device=sizes.device), sizes)


def _optimizer_bytes(config: TrainConfig, sizes: Counter[tuple[int, ...]]) -> int:
    """Return what the optimizer keeps for weights of these shapes, counted on one of each."""
    total, make = 0, optimizer_maker(config.optimizer)
    for size, count in sizes.items():
        weight = nn.Parameter(torch.ones(size))  # some keep nothing of one that begins at 0, others do
        weight.grad = torch.full(size, 1e-3)
        try:
            optimizer = make([{"params": [weight], "lr": 0.0}])
            optimizer.step()
        except (RuntimeError, NotImplementedError, AttributeError):  # one that computes on a GPU only
            total += LOST_PRECISION * weight.numel() * count
            continue
        total += count * sum(value.nbytes for value in optimizer.state[weight].values() if isinstance(value, Tensor))
    return total
