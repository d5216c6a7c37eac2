"""`train bench`: how fast the user's own settings train here, how near that is to what the machine can do, and where the time goes."""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prep.options import parameters, read_settings
from train.cli import given_settings
from train.config import SECTIONS, TrainConfig
from train.processes import Processes
from train.run import checked_tree, open_base, prepare, start, take_step

if TYPE_CHECKING:
    from train.dataset import Batch
    from train.state import Job, TrainState

WARM_UP = 2  # steps that are not counted: the first ones fill caches and choose kernels
PARTS = ("data", "text encoder", "UNet forward", "backward", "optimizer")


@dataclass(frozen=True)
class Figures:
    """What was measured; times are medians in seconds, bytes are the process's, on a CUDA card those that torch holds there."""

    step: float
    bare: float
    share_of_bare: float  # the median over the pairs, which took turns
    pictures_per_second: float
    peak_memory: int | None
    parts: dict[str, float]  # shares of a step; the rest is the trainer's own


def measure(config: TrainConfig, steps: int) -> Figures:
    """Load, encode and train as `train run` would, a few steps that are thrown away; nothing but .atelier is written."""
    checked_tree(config.data)
    runtime, model = open_base(config, Processes())
    job = prepare(config, runtime, model, {})
    state = start(job, None)
    groups = _groups(job)
    _reset_peak(job)
    for _ in range(WARM_UP):
        _ours(groups, job, state)
    peak = peak_memory(job)
    pairs = list(itertools.islice(_pairs(groups, job, state), steps))
    own, bare = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    share = statistics.median(bare / own for own, bare in pairs)
    samples = config.data.train_batch_size * config.optimizer.gradient_accumulation_steps
    return Figures(own, bare, share, samples / own, peak, _parts(groups, job, state, max(1, steps // 2)))


def _groups(job: Job) -> Iterator[list[Batch]]:
    """Yield the batches of one step after the other, without end."""
    size = job.config.optimizer.gradient_accumulation_steps
    for epoch in itertools.count():
        batches = job.data.batches(epoch)
        while group := list(itertools.islice(batches, size)):
            if len(group) == size or job.data.batches_per_epoch < size:
                yield group


def _ours(groups: Iterator[list[Batch]], job: Job, state: TrainState) -> None:
    loss, _, _ = take_step(next(groups), job, state)
    state.advance(job.data.batches_a_step, job.data.batches_per_epoch, loss)
    state.step = min(state.step, job.steps - 1)


def _pairs(groups: Iterator[list[Batch]], job: Job, state: TrainState) -> Iterator[tuple[float, float]]:
    """Yield the seconds of a step of ours and of a bare one, in turns, so that both see the same load of the machine."""
    from train.bare import BareLoRA, bare_step

    network, config = state.network, job.config
    layers = [module for module, _ in network.acting().values()]
    lora = None if config.network.full else BareLoRA(layers, config.network.network_dim, config.network.network_alpha)
    batches = next(groups)
    step = bare_step(job.model, batches, lora.parameters if lora else state.parameters, job.runtime, config.model.clip_skip)
    for first in itertools.count():
        own = _seconds(job, lambda: _ours(groups, job, state))
        with _bare(network, lora):
            bare = _seconds(job, step)
        if first:  # the bare step warms up as well
            yield own, bare


@contextmanager
def _bare(network: Any, lora: Any) -> Iterator[None]:
    """Let the least LoRA act in place of the run's network; a full fine-tune's is its own."""
    if lora is None:
        yield
        return
    network.remove()
    try:
        with lora.acting():
            yield
    finally:
        network.put_back()


def _seconds(job: Job, work: Callable[[], object]) -> float:
    _wait(job)
    began = time.perf_counter()
    work()
    _wait(job)
    return time.perf_counter() - began


def _wait(job: Job) -> None:
    """Let a GPU finish what it was given."""
    import torch

    if job.runtime.device.type == "cuda":
        torch.cuda.synchronize(job.runtime.device)
    elif job.runtime.device.type == "mps":
        torch.mps.synchronize()


def _parts(groups: Iterator[list[Batch]], job: Job, state: TrainState, steps: int) -> dict[str, float]:
    """Say which share of a step each of its parts takes; a GPU is waited for around each, so these steps themselves are slower."""
    spent = dict.fromkeys(PARTS, 0.0)

    def watched(part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result: list[Any] = []
            spent[part] += _seconds(job, lambda: result.append(work(*args, **kwargs)))
            return result[0]

        return wrapped

    places = {"text encoder": (job.model, "conditioning"), "UNet forward": (job.model, "denoise"), "backward": (job.runtime, "backward")}
    places["optimizer"] = (job.runtime, "update")
    data = iter(watched("data", lambda: next(groups)), None)
    for part, (owner, name) in places.items():
        setattr(owner, name, watched(part, getattr(owner, name)))
    try:
        whole = sum(_seconds(job, lambda: _ours(data, job, state)) for _ in range(steps))  # type: ignore[arg-type]
    finally:
        for owner, name in places.values():
            delattr(owner, name)
    return {part: seconds / whole for part, seconds in spent.items()}


def _reset_peak(job: Job) -> None:
    import torch

    if job.runtime.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(job.runtime.device)


def peak_memory(job: Job) -> int | None:
    """Return the most bytes that torch held on the CUDA card, elsewhere those of the process since its start; None where no one counts them."""
    import torch

    if job.runtime.device.type == "cuda":
        return torch.cuda.max_memory_allocated(job.runtime.device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def described(figures: Figures, steps: int) -> str:
    """Say the figures in four lines."""
    peak = "not known here" if figures.peak_memory is None else f"{figures.peak_memory / 1e9:.2f} GB"
    rest = 1 - sum(figures.parts.values())
    parts = ", ".join(f"{part} {share:.1%}" for part, share in {**figures.parts, "rest": rest}.items())
    return (
        f"a step takes {figures.step:.3g} s (median of {steps}), {figures.pictures_per_second:.3g} pictures a second\n"
        f"bare forward, backward and optimizer of the same layers: {figures.bare:.3g} s; a step reaches {figures.share_of_bare:.0%} of that speed\n"
        f"peak memory: {peak}\n"
        f"where the time goes: {parts}"
    )


def _bench(root: Path, steps: int, as_json: bool, **_: Any) -> None:
    config = TrainConfig.load(read_settings(root), given_settings(click.get_current_context())).at(root)
    quiet: AbstractContextManager[Any] = redirect_stdout(sys.stderr) if as_json else nullcontext()
    with quiet:
        figures = measure(config, steps)
    click.echo(json.dumps(asdict(figures), indent=1) if as_json else described(figures, steps))


bench_command = click.Command(
    "bench",
    params=[
        click.Argument(["root"], default=".", type=click.Path(path_type=Path)),
        click.Option(["--steps"], type=click.IntRange(min=1), default=10, show_default=True, help="Steps that are measured."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print the figures as JSON."),
        *(parameter for section in SECTIONS.values() for parameter in parameters(section)),
    ],
    callback=_bench,
    help="Measure how fast the project in ROOT trains with its settings: step time, share of the bare bound, memory, where the time goes.",
)
