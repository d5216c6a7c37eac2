"""`train bench`: how long a step of these settings takes, where the time goes, and how near it is to the bare bound (train/bare.py)."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prep.options import parameters, read_settings
from train.cli import given_settings
from train.compiled import HOW
from train.config import SECTIONS, TrainConfig
from train.prefetch import ahead
from train.runtime import Runtime

if TYPE_CHECKING:
    import torch

    from train.dataset import Batch
    from train.state import Job, TrainState

STAGES = ("data", "text_encoder", "unet", "backward", "optimizer")  # the forward passes, then the rest of a step


@dataclass
class Watch:
    """Seconds spent in each stage; a GPU is waited for at each mark, which is why stages are timed in steps of their own."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def now(self) -> float:
        """Return the clock when all that was asked of the device is done."""
        import torch

        if self.device.type in ("cuda", "mps"):
            getattr(torch, self.device.type).synchronize()
        return time.perf_counter()

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count what happens inside towards a stage."""
        began = self.now()
        yield
        self.seconds[stage] += self.now() - began

    @contextlib.contextmanager
    def on(self, module: Any, stage: str) -> Iterator[None]:
        """Count a module's forward passes towards a stage."""
        began: list[float] = []

        def end(*_: Any) -> None:
            self.seconds[stage] += self.now() - began.pop()

        hooks = [module.register_forward_pre_hook(lambda *_: began.append(self.now())), module.register_forward_hook(end)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@dataclass
class TimedRuntime(Runtime):
    """A runtime whose backward pass and update are timed."""

    watch: Watch | None = None

    def backward(self, loss: Any) -> float:
        assert self.watch
        with self.watch.timed("backward"):
            return super().backward(loss)

    def update(self, *args: Any) -> float:
        assert self.watch
        with self.watch.timed("optimizer"):
            return super().update(*args)


def bench(config: TrainConfig, steps: int) -> dict[str, Any]:
    """Take steps of a run in turns with bare ones, then some to see where the time goes; nothing is saved but encoded pictures.

    Raises UserError as `run` does.
    """
    from train.compiled import compiled
    from train.processes import Processes
    from train.run import checked_tree, open_base, prepare, start

    checked_tree(config.data)
    runtime, model = open_base(config, Processes())
    job = prepare(config, runtime, model, {})
    state = start(job, None)
    with compiled(job, state) as choice:
        return {"device": runtime.description, "steps": steps, "blocks": choice.way, **_figures(job, state, steps)}


def _figures(job: Job, state: TrainState, steps: int) -> dict[str, Any]:
    """Take the steps; returns what they took."""
    from train.run import groups_from, take_step

    runtime, watch = job.runtime, Watch(job.runtime.device)
    with contextlib.closing(ahead([runtime.pinned(batch) for batch in group] for group in groups_from(job, 0, 0))) as groups:
        _forget_peak(runtime.device)
        take_step(next(groups), job, state)  # the first one makes the optimizer's moments, and is slower
        peak = _peak(runtime.device)
        own, bare, pictures = _in_turns(job, state, watch, list(itertools.islice(groups, steps)))
        stages = _stages(job, state, groups, steps)
    return {
        "seconds_per_step": statistics.median(own),
        "bare_seconds_per_step": statistics.median(bare),
        "share_of_bound": statistics.median(other / one for one, other in zip(own, bare, strict=True)),
        "pictures_per_second": pictures / sum(own),
        "peak_bytes": peak,
        "peak_of": "the GPU" if runtime.device.type == "cuda" else "the process, with reading the base",
        "seconds": stages,
    }


def _in_turns(job: Job, state: TrainState, watch: Watch, groups: Sequence[Sequence[Batch]]) -> tuple[list[float], list[float], int]:
    """Take a step and a bare one of each group; returns the seconds of both, and how many pictures there were."""
    from train.bare import BareStep
    from train.run import take_step

    step = BareStep(job, state)
    own, bare, pictures = [], [], 0
    with step.attached():
        step(*step.inputs(groups[0][0]))  # makes the moments
    for group in groups:
        began = watch.now()
        take_step(group, job, state)
        own.append(watch.now() - began)
        inputs = [step.inputs(batch) for batch in group]
        with step.attached():
            began = watch.now()
            for one in inputs:
                step(*one)
            bare.append(watch.now() - began)
        pictures += sum(len(batch.captions) for batch in group)
    return own, bare, pictures


def _stages(job: Job, state: TrainState, groups: Iterator[list[Batch]], steps: int) -> dict[str, float]:
    """Return the mean seconds that a step spends in each stage, and the rest."""
    from train.run import take_step

    watch = Watch(job.runtime.device)
    values = {f.name: getattr(job.runtime, f.name) for f in dataclasses.fields(job.runtime)}
    timed = dataclasses.replace(job, runtime=TimedRuntime(**values, watch=watch))
    with contextlib.ExitStack() as hooks:
        hooks.enter_context(watch.on(job.model.unet, "unet"))
        for encoder in job.model.text_encoders:
            hooks.enter_context(watch.on(encoder, "text_encoder"))
        began = watch.now()
        for _ in range(steps):
            with watch.timed("data"):
                group = next(groups)
            take_step(group, timed, state)
        whole = watch.now() - began
    seconds = {stage: spent / steps for stage, spent in watch.seconds.items()}
    return {**seconds, "rest": whole / steps - sum(seconds.values())}


def _forget_peak(device: torch.device) -> None:
    """Let a GPU's peak begin here, without what encoded the pictures."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int | None:
    """Return the most bytes that were in use at once: on a GPU, else in the process; None where the system does not say."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # kilobytes but on macOS


def show(found: dict[str, Any]) -> None:
    """Print the figures of a bench in lines."""
    step = found["seconds_per_step"]
    click.echo(f"{step:.4g} s a step (median of {found['steps']}), {found['pictures_per_second']:.4g} pictures a second")
    click.echo(f"{found['share_of_bound']:.0%} of the bare bound: forward, backward and optimizer alone take {found['bare_seconds_per_step']:.4g} s")
    click.echo(f"blocks are computed {HOW[found['blocks']]}")
    if found["peak_bytes"]:
        click.echo(f"{found['peak_bytes'] / 1e9:.3g} GB of memory at most, of {found['peak_of']}")
    whole = sum(found["seconds"].values())
    click.echo("the time goes to " + ", ".join(f"{stage.replace('_', ' ')} {spent / whole:.1%}" for stage, spent in found["seconds"].items()))


def _bench(root: Path, steps: int, as_json: bool, **_: Any) -> None:
    config = TrainConfig.load(read_settings(root), given_settings(click.get_current_context())).at(root)
    with contextlib.redirect_stdout(sys.stderr):  # what a run says of itself; the figures alone are the output
        found = bench(config, steps)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        show(found)


bench_command = click.Command(
    "bench",
    params=[
        click.Argument(["root"], default=".", type=click.Path(path_type=Path)),
        click.Option(["--steps"], type=click.IntRange(min=1), default=10, show_default=True, help="Steps that are timed, each way."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print the figures as JSON."),
        *(parameter for section in SECTIONS.values() for parameter in parameters(section)),
    ],
    callback=_bench,
    help="Time the steps of the project in ROOT (default: here) with its own settings; trains nothing that is kept.",
)
