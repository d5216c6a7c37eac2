"""Why a step's loss or gradient is no number: the data, the base, the LoRA's own weights, or an overflow, named with picture, module and advice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from train.learning import RUNAWAY, advised_rate, relative_norms, set_rate
from train.replay import broken_gradient, first_break, forward, highest_output, in_float32, named_parts

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from train.dataset import Batch
    from train.state import Job, TrainState

# Measured: latents of 41 pocket drawings reach 4.4 (their deviation is about 1, as Stable Diffusion scales them too).
HIGHEST_LATENT = 100.0
RECENT = 20  # steps whose course of the loss is told
SHOWN = 3  # pictures that are named


def why(group: Sequence[Batch], job: Job, state: TrainState) -> str:
    """Say in the end of a sentence why a step with these batches is not finite; the weights must be those from before it.

    Only this process's batches are looked at. Whatever is told first is enough: what comes later follows from it.
    """
    import torch

    try:
        for check in CHECKS:
            found = check(group, job, state)
            if found:
                return f": {found}"
    except torch.OutOfMemoryError:  # float32 needs twice the memory of the step itself
        pass
    captions = "; ".join(caption for batch in group for caption in batch.captions)
    other = ", or look at what the other processes say" if job.runtime.processes.count > 1 else ""
    advice = "look at its pictures, lower learning_rate" + (', or set mixed_precision = "no"' if job.runtime.dtype else "")
    return f", in the batch captioned {captions!r}; computed again it is finite or does not fit the memory: {advice}{other}"


def _in_data(group: Sequence[Batch], job: Job, state: TrainState) -> str:
    """Look at what the pictures and captions became before any module sees it."""
    for batch in group:
        text = batch.text
        values: list[tuple[str, Any, str]] = [
            ("latents", batch.latent_mean, "its VAE overflowed (in fp16?) or the file in .atelier is broken; set another vae, or delete .atelier"),
            ("latents' deviation", batch.latent_std, "its VAE overflowed (in fp16?) or the file in .atelier is broken; delete .atelier"),
            ("loss mask", batch.mask, "save the picture's transparency anew"),
            ("weighted caption", batch.token_weights, "mend the weights in its caption"),
            ("caption's encoding", text and text.states, "the base's text encoder is broken, or .atelier is; delete .atelier"),
            ("caption's encoding", text and text.pooled, "the base's text encoder is broken, or .atelier is; delete .atelier"),
        ]
        for what, tensor, advice in values:
            if tensor is not None and (names := _pictures(batch, job, lambda row: not bool(row.isfinite().all()), tensor)):
                return f"the {what} of {names} hold{'' if what == 'latents' else 's'} numbers that are not finite: {advice}"
        if names := _pictures(batch, job, lambda row: float(row.abs().max()) > HIGHEST_LATENT, batch.latent_mean):
            highest = float(batch.latent_mean.abs().max())
            return f"the latents of {names} reach {highest:.3g}, where 5 is usual: the file in .atelier or the base's VAE is broken; delete .atelier"
    return ""


def _in_base(group: Sequence[Batch], job: Job, state: TrainState) -> str:
    """Look for weights of the base that are not finite."""
    if job.config.network.full and state.step:
        return ""  # its weights are those that are trained
    for part, module in named_parts(job):
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                whose = "" if not job.config.network.base_weights else " or one of base_weights"
                return f"the base's weight {part}.{name} is not finite: the base model{whose} is broken; fetch {job.model.path} anew"
    return ""


def _in_network(group: Sequence[Batch], job: Job, state: TrainState) -> str:
    """Look for weights of the LoRA that are not finite, or that outgrew the base's."""
    norms = relative_norms(job, state.network)
    broken = [name for name, layer in state.network.layers.items() if not all(bool(p.isfinite().all()) for p in layer.parameters())]
    worst = max(norms, key=lambda name: norms[name], default="")
    if not broken and norms.get(worst, 0.0) <= RUNAWAY:
        return ""
    fact = f"{broken[0]} holds numbers that are not finite" if broken else f"the update of {worst} is {norms[worst]:.3g} times the base's weights"
    return f"{fact}{loss_course(state)}; learning_rate {set_rate(job):g} is too high, try {advised_rate(job):g}"


def loss_course(state: TrainState) -> str:
    """Say how the loss went in the last steps; nothing if it did not rise."""
    recent = state.losses[-RECENT:]
    if len(recent) < 2 or recent[-1] <= recent[0]:
        return ""
    return f", and the loss rose from {recent[0]:.3g} to {recent[-1]:.3g} in the last {len(recent)} steps"


def _in_forward(group: Sequence[Batch], job: Job, state: TrainState) -> str:
    """Replay the forward pass in the run's precision, then in float32."""
    for batch in group:
        found = first_break(batch, job, state, full=False)
        with in_float32(job):
            again = first_break(batch, job, state, full=True) if job.runtime.dtype else found
            if again:
                who, names = "the LoRA's part of " if again.by_network else "", _named([batch.pictures[n] for n in again.samples], job)
                advice = (
                    f"lower learning_rate, {set_rate(job):g}"
                    if again.by_network or job.config.network.full
                    else "the base or its weights are out of range, try another"
                )
                return f"{who}{again.module} is the first that is not finite, for {names} (its input reaches {again.highest_input:.3g}): {advice}"
            if found:
                highest, names = highest_output(batch, job, state, found.module), _named([batch.pictures[n] for n in found.samples], job)
                return f"finite in float32, but {overflowed(job, found.module, highest)}, for {names}; {_other_precision(job)}"
            loss = forward(batch, job, state, full=True).item()
        if loss - loss != 0:  # not finite
            return f"all modules give finite numbers, only the loss is {loss}: the prediction is too far off; lower learning_rate, {set_rate(job):g}"
    return ""


def _in_backward(group: Sequence[Batch], job: Job, state: TrainState) -> str:
    """Replay the backward pass in float32."""
    for batch in group:
        with in_float32(job):
            found = broken_gradient(batch, job, state)
        if found:
            names = _named([batch.pictures[n] for n in found[1]] or batch.pictures, job)
            return f"the gradient of {found[0]} is not finite in float32 either, for {names}; lower learning_rate, {set_rate(job):g}"
    if job.runtime.dtype and job.runtime.processes.count == 1:
        return f"finite in float32, but {job.runtime.precision} overflowed in the backward pass; {_other_precision(job)}"
    return ""


CHECKS: tuple[Callable[[Sequence[Batch], Job, TrainState], str], ...] = (_in_data, _in_base, _in_network, _in_forward, _in_backward)


def overflowed(job: Job, module: str, highest: float) -> str:
    """Say that a module gives more than the run's precision can hold; or, where it does not, that it came to no number inside."""
    import torch

    limit = torch.finfo(job.runtime.dtype or torch.float32).max
    beyond = f"{highest:.3g}, and it ends at {limit:.6g}" if highest > limit else f"{highest:.3g}, and more on the way"
    return f"{job.runtime.precision} overflowed in {module} (up to {beyond})"


def _other_precision(job: Job) -> str:
    return 'set mixed_precision = "bf16" or "no"' if job.runtime.precision == "fp16" else 'set mixed_precision = "no"'


def _pictures(batch: Batch, job: Job, wrong: Callable[[Tensor], bool], tensor: Tensor) -> str:
    """Name the pictures whose row of a tensor is wrong."""
    return _named([path for path, row in zip(batch.pictures, tensor, strict=True) if wrong(row)], job)


def _named(paths: Sequence[Path], job: Job) -> str:
    """Name pictures by their places in the tree."""
    names = list(dict.fromkeys(_places(paths, job)))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _places(paths: Sequence[Path], job: Job) -> Iterator[str]:
    tree = job.config.data.tree
    for path in paths:
        yield path.relative_to(tree).as_posix() if path.is_relative_to(tree) else path.as_posix()
