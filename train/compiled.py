"""Whether the model's blocks are compiled (train/regions.py): as set, or on a CUDA card by a short measurement that is kept for later runs."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.options import UserError, atomic_write
from train.cache import key_of
from train.runtime import StoppedError

if TYPE_CHECKING:
    from train.regions import Regions
    from train.state import Job, TrainState

PLAIN, COMPILED, GRAPHS = WAYS = ("plain", "compiled", "CUDA graphs")
# What torch.compile calls them under auto, and under max on a CUDA card.
MODES = {COMPILED: "default", GRAPHS: "reduce-overhead"}
THOROUGH = {COMPILED: "max-autotune-no-cudagraphs", GRAPHS: "max-autotune"}
FILE = "compiled.json"  # in the cache's folder
TIMED = 5  # passes of a way that are timed
FIRST = {COMPILED: 1, GRAPHS: 3}  # passes until a way is built: CUDA graphs run once, then record, then replay
# Seconds under which a run is not worth a measurement. Not measured on a GPU: half a minute of compiling is won back in 150 s by a fifth less time.
SHORTEST = 150.0
HOW = {PLAIN: "as they are", COMPILED: "compiled", GRAPHS: "compiled, by CUDA graphs"}
CANNOT = "for 8-bit or swapped weights, module_dropout and other adapters than lora cannot be"


@dataclass(frozen=True)
class Timing:
    """Seconds that a way takes until it is built, and then for a batch, forward and backward."""

    build: float
    seconds: float


@dataclass(frozen=True)
class Choice:
    """How blocks compute, and the sentence that says why; empty where nobody asked."""

    way: str
    words: str = ""


@contextmanager
def compiled(job: Job, state: TrainState) -> Iterator[Choice]:
    """Let the model's blocks train compiled inside, if the settings want it and it pays.

    Raises UserError if compile = "max" and torch cannot compile here.
    """
    setting = job.config.output.compile
    if setting == "off" or (setting == "auto" and job.runtime.device.type != "cuda"):
        yield Choice(PLAIN)
        return
    regions = regions_of(job, state)
    try:
        choice = _thoroughly(regions, job, state) if setting == "max" else _agreed(regions, job, state)
        if choice.words:
            print(choice.words)
        state.regions = regions
        yield choice
    finally:
        regions.remove()
        state.regions = None


def regions_of(job: Job, state: TrainState) -> Regions:
    """Gather the blocks that a step runs through."""
    from train.memory import placed_parts
    from train.regions import Regions

    return Regions(placed_parts(job.model, job.data.text is None), state.network, varying=len(shapes_of(job)) > 1)


def shapes_of(job: Job) -> set[tuple[int, Any]]:
    """Return the sizes of an epoch's batches: pictures, and their size in pixels."""
    return {(len(batch), job.data.pictures[batch[0]].bucket) for batch in job.data.plan.batches(0)}


def _thoroughly(regions: Regions, job: Job, state: TrainState) -> Choice:
    """Compile without measuring, on a CUDA card with all that torch can do."""
    import torch

    if not regions.twins:
        return Choice(PLAIN, f"nothing is compiled, {CANNOT}")
    cuda = job.runtime.device.type == "cuda"
    way = GRAPHS if cuda and GRAPHS in ways_of(regions) else COMPILED
    regions.use(THOROUGH[way] if cuda else MODES[way], way == GRAPHS)
    print(f"compiling {len(regions.twins)} blocks")
    began = time.monotonic()
    try:
        one_pass(regions, job, state)
    except torch.OutOfMemoryError:
        pass  # the first step will say so
    except Exception as error:
        package = "triton (triton-windows on Windows)" if cuda else "a C++ compiler such as g++"
        words = f'compile = "max", but torch cannot compile here ({cause_of(error)}); install {package}, or set compile = "off"'
        raise UserError(words) from error
    left = f"; {regions.left} are not, {CANNOT}" if regions.left else ""
    return Choice(way, f"{len(regions.twins)} blocks are compiled, in {time.monotonic() - began:.0f} s{left}")


def _agreed(regions: Regions, job: Job, state: TrainState) -> Choice:
    """Let the first process choose for all, and all compute its way."""
    processes = job.runtime.processes
    choice = _measured(regions, job, state) if processes.first and regions.twins else Choice(PLAIN)
    way = WAYS[processes.greatest(WAYS.index(choice.way))[0]]
    _use(regions, way)
    return Choice(way, choice.words)


def _use(regions: Regions, way: str) -> None:
    regions.remove()
    if way != PLAIN:
        regions.use(MODES[way], way == GRAPHS)


def _measured(regions: Regions, job: Job, state: TrainState) -> Choice:
    """Choose by what was measured before for such a run, or now."""
    import torch

    left = (job.steps - state.step) * job.config.optimizer.gradient_accumulation_steps
    shelf, key = Shelf.of(job), key_of(facts_of(job))
    timings = shelf.timings(key)
    if timings is not None:
        way = best(timings, left)
        return Choice(way, described(way, timings))
    try:
        plain = timed(PLAIN, regions, job, state)
    except torch.OutOfMemoryError:  # the first step will say so
        return Choice(PLAIN)
    if left * plain.seconds < SHORTEST:
        return Choice(PLAIN, "nothing is compiled: the run is too short for it to pay")
    timings = {PLAIN: plain, **_timed_compiled(regions, job, state)}
    if set(timings) == {PLAIN, *ways_of(regions)}:  # one that failed may be had when what it lacks is installed
        shelf.keep(key, timings)
    way = best({name: Timing(0.0, timing.seconds) for name, timing in timings.items()}, left)  # all are built by now
    if way != GRAPHS and GRAPHS in timings:
        torch.compiler.reset()  # gives the graphs' memory back; code that is compiled again comes from torch's own cache
    return Choice(way, described(way, timings))


def _timed_compiled(regions: Regions, job: Job, state: TrainState) -> dict[str, Timing]:
    """Measure the ways to compile, and say of each that fails why."""
    found = {}
    print("measuring whether compiling pays; this run alone waits for it, later ones of its kind do not")
    for way in ways_of(regions):
        try:
            found[way] = timed(way, regions, job, state)
        except Exception as error:  # compilers fail in many ways, and then the run does without
            print(f"{way} cannot be had here: {cause_of(error)}")
        finally:
            regions.remove()
    return found


def ways_of(regions: Regions) -> tuple[str, ...]:
    """List the ways to compile: a CUDA graph cannot hold the generators of dropouts, which are seeded anew in each batch."""
    return (COMPILED,) if regions.draws else (COMPILED, GRAPHS)


def best(timings: Mapping[str, Timing], batches: int) -> str:
    """Return the way that is first done with so many batches, what it takes to build it included."""
    return min(timings, key=lambda way: timings[way].build + batches * timings[way].seconds)


def described(way: str, timings: Mapping[str, Timing]) -> str:
    """Say in a sentence what was chosen, with the measured seconds of a batch."""
    shown = ", ".join(f"{name} {timing.seconds:.3g}" for name, timing in timings.items())
    return f"blocks are computed {HOW[way]} (seconds a batch: {shown})"


def timed(way: str, regions: Regions, job: Job, state: TrainState) -> Timing:
    """Measure a way on the first batch: until it is built, and the median pass after that."""
    _use(regions, way)
    began = _now(job)
    for _ in range(FIRST.get(way, 1)):
        one_pass(regions, job, state)
    build, spent = _now(job) - began, []
    for _ in range(TIMED):
        began = _now(job)
        one_pass(regions, job, state)
        spent.append(_now(job) - began)
    return Timing(build if way != PLAIN else 0.0, statistics.median(spent))


def _now(job: Job) -> float:
    """Return the clock when all that was asked of the device is done."""
    import torch

    if job.runtime.device.type == "cuda":
        torch.cuda.synchronize(job.runtime.device)
    return time.perf_counter()


def one_pass(regions: Regions, job: Job, state: TrainState) -> None:
    """Compute the first batch forward and backward as a step does, and forget it."""
    from train.replay import forward

    regions.begin_step()
    batch = next(job.data.batches(state.epoch))
    try:
        forward(batch, job, state, full=False).backward()
    finally:
        state.optimizer.zero_grad(set_to_none=True)


def cause_of(error: BaseException) -> str:
    """Return the first line of what an error began with; raises that again if it does not come from compiling, whose errors may hold any other."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, UserError | StoppedError):
        raise error
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")


def facts_of(job: Job) -> list[Any]:
    """List what timings depend on: card, torch, the base's shape, batches, precision, adapter and what is kept in memory."""
    import torch

    config, runtime = job.config, job.runtime
    name = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else runtime.device.type
    shape = (sorted(job.model.unet.config.items()), sorted(shapes_of(job)), config.model.max_token_length, job.data.text is None)
    return [name, torch.__version__, shape, runtime.precision, config.output.gradient_checkpointing, config.network, config.memory]


@dataclass(frozen=True)
class Shelf:
    """What was measured, in a JSON file by the facts it depends on; without a path nothing is kept."""

    path: Path | None

    @classmethod
    def of(cls, job: Job) -> Shelf:
        """Return that of a project, which lies where its encoded pictures do."""
        from train.dataset import CACHE

        data = job.config.data
        return cls(data.tree.parent / CACHE / FILE if data.cache_latents_to_disk else None)

    def timings(self, key: str) -> dict[str, Timing] | None:
        """Return what was measured under a key; None if nothing was."""
        try:
            return {way: Timing(**found) for way, found in self._read()[key].items()}
        except (KeyError, TypeError, AttributeError):
            return None

    def keep(self, key: str, timings: Mapping[str, Timing]) -> None:
        """Write down what was measured."""
        if self.path is not None:
            found = {**self._read(), key: {way: asdict(timing) for way, timing in timings.items()}}
            with suppress(OSError):  # then it is measured again
                atomic_write(self.path, json.dumps(found, indent=1) + "\n")

    def _read(self) -> dict[str, Any]:
        """Read the file; one that is missing or broken holds nothing."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8")) if self.path else {}
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
