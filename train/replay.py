"""A step replayed to find where it broke: the same noise and timesteps, with hooks that stop at the first output that is not finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from train.step import training_step

if TYPE_CHECKING:
    from torch import Tensor, nn

    from train.dataset import Batch
    from train.state import Job, TrainState


@dataclass(frozen=True)
class Break:
    """The first module whose output is not finite, the samples of the batch that this is so for, and what went into it at most."""

    module: str
    samples: tuple[int, ...]
    highest_input: float
    by_network: bool  # the base's own output is finite: the adapter broke it


class _BrokenError(Exception):
    """Ends a replay at its first break."""

    def __init__(self, found: Break) -> None:
        super().__init__(found.module)
        self.found = found


def forward(batch: Batch, job: Job, state: TrainState, full: bool) -> Tensor:
    """Compute a batch's loss as the step did, `full` in float32, else in the run's precision."""
    state.generator.manual_seed(batch.seed)
    state.network.draw_dropout(state.generator)
    with nullcontext() if full else job.runtime.autocast():
        return training_step(job.runtime.moved(batch), job.model, job.schedule, job.config, state.generator)


def first_break(batch: Batch, job: Job, state: TrainState, full: bool) -> Break | None:
    """Replay the forward pass of a batch; None if all modules give finite numbers. Samples do not touch each other, so one pass tells them apart."""
    with _hooks(job, _stop_at_break(len(batch.captions))):
        try:
            forward(batch, job, state, full)
        except _BrokenError as broken:
            return broken.found
    return None


def highest_output(batch: Batch, job: Job, state: TrainState, module: str) -> float:
    """Return the highest absolute value that a module gives in float32, 0 if it is not reached."""
    highest = [0.0]

    def note(name: str, _: Any, __: Any, output: Any) -> None:
        if name == module:
            highest.append(max((float(tensor.detach().abs().max()) for tensor in _tensors(output)), default=0.0))

    with _hooks(job, note):
        forward(batch, job, state, full=True)
    return max(highest)


def broken_gradient(batch: Batch, job: Job, state: TrainState) -> tuple[str, tuple[int, ...]] | None:
    """Replay forward and backward in float32; returns the first layer of the network whose gradient is not finite, and the samples it is from."""
    layer = _broken_layer(batch, job, state)
    if layer is None:
        return None
    samples = range(len(batch.captions))
    # One sample at a time counts, the others' losses are worth nothing: the noise stays what it was.
    alone = [replace(batch, weight=batch.weight * (batch.weight.new_tensor([float(n == sample) for n in samples]))) for sample in samples]
    return layer, tuple(sample for sample in samples if _broken_layer(alone[sample], job, state))


def _broken_layer(batch: Batch, job: Job, state: TrainState) -> str | None:
    state.optimizer.zero_grad(set_to_none=True)
    forward(batch, job, state, full=True).backward()
    found = next((n for n, p in state.network.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())), None)
    state.optimizer.zero_grad(set_to_none=True)
    return found and found.removeprefix("layers.").rpartition(".")[0]


@contextmanager
def in_float32(job: Job) -> Iterator[None]:
    """Hold the base in float32 meanwhile; there and back is exact."""
    import torch

    modules = (job.model.unet, *job.model.text_encoders)
    own = [(tensor, tensor.dtype) for module in modules for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()]
    try:
        for module in modules:
            torch.nn.Module.to(module, dtype=torch.float32)
        yield
    finally:
        for tensor, dtype in own:  # on a processor only some of them were in half precision
            tensor.data = tensor.data.to(dtype)


def named_parts(job: Job) -> list[tuple[str, Any]]:
    """List the modules that a step runs through, under their names in a base folder."""
    encoders = [(f"text_encoder{f'_{n}' if n > 1 else ''}", encoder) for n, encoder in enumerate(job.model.text_encoders, 1)]
    return [*encoders, ("unet", job.model.unet)]


@contextmanager
def _hooks(job: Job, hook: Any) -> Iterator[None]:
    """Call hook(name, module, inputs, output) after every module; those inside another come before it."""
    handles = []
    for part, root in named_parts(job):
        for path, module in root.named_modules():
            name = f"{part}.{path}" if path else part
            handles.append(module.register_forward_hook(lambda module, args, output, name=name: hook(name, module, args, output)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _stop_at_break(size: int) -> Any:
    def check(name: str, module: nn.Module, args: Any, output: Any) -> None:
        for tensor in _tensors(output):
            if not bool(tensor.isfinite().all()):
                own = not hasattr(module, "weight") or not all(bool(found.isfinite().all()) for found in _tensors(module.forward(*args)))
                highest = max((float(found.detach().abs().max()) for found in _tensors(args)), default=0.0)
                raise _BrokenError(Break(name, _samples(tensor, size), highest, by_network=not own))

    return check


def _samples(tensor: Tensor, size: int) -> tuple[int, ...]:
    """Say which samples of a batch are not finite; a caption may take several rows."""
    fine = tensor.isfinite().flatten(1).all(1) if tensor.ndim > 1 else tensor.isfinite().flatten()
    if len(fine) % size:
        return tuple(range(size))
    return tuple(int(index) for index in (~fine.view(size, -1).all(1)).nonzero().flatten())


def _tensors(found: Any) -> list[Tensor]:
    """List the tensors of numbers in what a module takes or gives."""
    if hasattr(found, "is_floating_point"):
        return [found] if found.is_floating_point() else []
    values: Sequence[Any] = list(found.values()) if isinstance(found, Mapping) else found if isinstance(found, (tuple, list)) else ()
    return [tensor for value in values for tensor in _tensors(value)]
