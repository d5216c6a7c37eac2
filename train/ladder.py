"""The memory ladder (`fit = true`): the lightest way to hold a run that fits the device, and the next one down if it did not.

A rung takes what the settings ask for anyway and adds to it. Rungs that leave the result as it is come before those that round the base.
"""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prep.options import UserError

if TYPE_CHECKING:
    from train.config import TrainConfig
    from train.dataset import TrainingSet
    from train.families.sd import Model
    from train.predict import Need, Shape
    from train.runtime import Runtime

UNITS = {"MB": 1e6, "GB": 1e9, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Rung:
    """One way to hold a run: what it adds to the settings."""

    words: str
    checkpointing: bool = False
    swapped: float = 0.0  # share of the UNet's blocks
    precision: str = ""  # of the base, where the settings leave it open

    def applied(self, config: TrainConfig, blocks: int) -> TrainConfig:
        """Return the settings with this rung's added, on a UNet of so many blocks."""
        memory, output = config.memory, config.output
        precision = self.precision if self.precision and memory.base_precision == "auto" else memory.base_precision
        swapped = max(memory.blocks_to_swap, round(self.swapped * blocks))
        return dataclasses.replace(
            config,
            output=dataclasses.replace(output, gradient_checkpointing=output.gradient_checkpointing or self.checkpointing),
            memory=dataclasses.replace(memory, base_precision=precision, blocks_to_swap=swapped),
        )

    @property
    def moves_base(self) -> bool:
        """Whether the base's weights are not at hand, so that only a plain LoRA can be trained."""
        return bool(self.swapped or self.precision)


RUNGS = (
    Rung("as set"),
    Rung("gradient_checkpointing", True),
    Rung("gradient_checkpointing, a third of the blocks swapped", True, 1 / 3),
    Rung("gradient_checkpointing, all blocks swapped", True, 1.0),
    Rung("gradient_checkpointing, all blocks swapped, base in int8", True, 1.0, "int8"),
    Rung("gradient_checkpointing, all blocks swapped, base in nf4", True, 1.0, "nf4"),
)


@dataclass
class Ladder:
    """The rungs that a run can take, each with its settings and what it is predicted to need, and the one that it is on."""

    rungs: list[tuple[Rung, TrainConfig, Need]]
    limit: float  # bytes
    device_type: str
    at: int = 0

    @property
    def config(self) -> TrainConfig:
        """The settings of the rung that the run is on."""
        return self.rungs[self.at][1]

    def total(self, number: int) -> float:
        """Return the bytes that a rung is predicted to need."""
        return self.rungs[number][2].total(self.device_type)

    def choose(self) -> None:
        """Take the first rung that fits; raises UserError if none does."""
        fitting = [number for number in range(len(self.rungs)) if self.total(number) <= self.limit]
        if not fitting:
            least = min(map(self.total, range(len(self.rungs))))
            raise UserError(
                f"a step needs {least / 1e9:.3g} GB at least, and {self.limit / 1e9:.3g} GB are free; lower train_batch_size or resolution"
            )
        self.at = fitting[0]

    def lower(self, held: str = "") -> bool:
        """Take the next rung that needs less than this one, for a base that is held in a precision; False if there is none."""
        from train.precisions import can_follow

        for number in range(self.at + 1, len(self.rungs)):
            if self.total(number) < self.total(self.at) and can_follow(held, precision_of(self.rungs[number][1])):
                self.at = number
                return True
        return False

    def table(self) -> str:
        """Return the rungs with their bytes in lines, the chosen one marked."""
        lines = [f"predicted peak of a step, of {self.limit / 1e9:.3g} GB that are free (weights + trained + optimizer + activations and gradients):"]
        for number, (rung, _, need) in enumerate(self.rungs):
            parts = " + ".join(f"{part / 1e9:.3g}" for part in (need.weights, need.trained, need.optimizer, need.step))
            lines.append(f" {'>' if number == self.at else ' '} {self.total(number) / 1e9:6.3g} GB  {rung.words} ({parts})")
        return "\n".join(lines)


def fitted(config: TrainConfig, runtime: Runtime, model: Model, data: TrainingSet) -> Ladder | None:
    """Predict each rung, print the table and take the first that fits; None without `fit`.

    Raises UserError if none fits, or nobody can say how much memory is free.
    """
    if not config.memory.fit:
        return None
    from train.memory import held_in
    from train.precisions import can_follow
    from train.predict import Shape
    from train.swap import blocks_of

    size = max((picture.bucket for picture in data.pictures), key=lambda bucket: bucket[0] * bucket[1])
    shape = Shape(config.data.train_batch_size, size, config.optimizer.gradient_accumulation_steps, data.text is None)
    blocks, rungs = len(blocks_of(model.unet)), list[Any]()
    seen: dict[Any, Need] = {}
    held, kind = held_in(model), runtime.device.type
    print("predicting the memory of a step")
    for rung in RUNGS:
        if rung.moves_base and rungs and rungs[0][2].reads_base:
            break
        own = rung.applied(config, blocks)
        if not can_follow(held, precision_of(own)):  # a run before on the same base came so far down
            continue
        key = (own.output.gradient_checkpointing, own.memory)
        if key not in seen:
            seen[key] = need = foreseen(own, runtime, model, shape)
            if not rungs or need.total(kind) < rungs[-1][2].total(kind):  # a few small blocks may be less than the buffers for swapping
                rungs.append((rung, own, need))
    limit = float(-runtime.processes.greatest(-int(free_bytes(config, runtime)))[0])  # the least of all processes
    ladder = Ladder(rungs, limit, kind)
    ladder.choose()
    print(ladder.table())
    return ladder


def foreseen(config: TrainConfig, runtime: Runtime, model: Model, shape: Shape) -> Need:
    """Predict a step on the device; if torch cannot imagine some operation there, say so and predict as the processor would compute it."""
    import torch

    from train.predict import predict

    try:
        return predict(config, runtime, model, shape)
    except (RuntimeError, NotImplementedError) as error:  # what torch raises for an operation without shapes of its own
        if runtime.device.type == "cpu":
            raise
        print(f"predicted as the processor would compute it, since torch cannot tell of the {runtime.device.type} ({str(error).splitlines()[0]})")
        return predict(config, dataclasses.replace(runtime, device=torch.device("cpu"), scaler=None), model, shape)


def free_bytes(config: TrainConfig, runtime: Runtime) -> float:
    """Return how much memory a run may take: what memory_limit says, else what the device has free and what this process holds of it.

    Raises UserError if the system does not say.
    """
    if config.memory.memory_limit:
        return parse_bytes(config.memory.memory_limit)
    import torch

    if runtime.device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(runtime.device)[0] + torch.cuda.memory_reserved(runtime.device)
    if runtime.device.type == "mps":
        return float(torch.mps.recommended_max_memory())
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # Windows, macOS
        raise UserError('this system does not say how much memory is free; set memory_limit, such as "6GB"') from None


def parse_bytes(text: str) -> float:
    """Read "6GB", "7.5 GiB" or "800MB"; raises UserError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([MG]i?B)\s*", text, re.IGNORECASE)
    if not found or not float(found[1]):
        raise UserError(f'memory_limit is {text!r}; write it as "6GB", "7.5 GiB" or "800MB"')
    return float(found[1]) * UNITS[found[2].upper()]


def precision_of(config: TrainConfig) -> str:
    """Return the precision that settings hold the base in, "" for that of the computation."""
    return "" if config.memory.base_precision == "auto" else config.memory.base_precision


def hold(config: TrainConfig, ladder: Ladder | None, runtime: Runtime, model: Model, encoders_run: bool) -> TrainConfig:
    """Hold a run as its rung says, or a lower one if there is no memory for that, or as set where there is no ladder; returns the settings then.

    Raises ShortError.
    """
    from train.memory import make_room
    from train.shortage import ShortError, placed

    place = "while the base was moved to the device"
    if ladder is None:
        with placed(place, "set fit = true, or close what else uses its memory, and run again"):
            make_room(config, runtime, model, encoders_run)
        return config
    if not _held(ladder, runtime, model, encoders_run) and not go_down(ladder, runtime, model, encoders_run):
        raise ShortError(place, "close what else uses its memory, and run again")
    return ladder.config


def go_down(ladder: Ladder, runtime: Runtime, model: Model, encoders_run: bool) -> bool:
    """Hold the run as the next lower rung says that there is memory for, in place; False if there is none."""
    from train.memory import held_in

    while ladder.lower(held_in(model)):
        if _held(ladder, runtime, model, encoders_run):
            print(f"going on with: {ladder.rungs[ladder.at][0].words}, {ladder.total(ladder.at) / 1e9:.3g} GB predicted")
            return True
    return False


def _held(ladder: Ladder, runtime: Runtime, model: Model, encoders_run: bool) -> bool:
    """Hold the run as its rung says, in place; False if there is no memory for that."""
    from train.memory import make_room
    from train.shortage import empty_caches, is_shortage

    empty_caches()
    try:
        make_room(ladder.config, runtime, model, encoders_run, further=True)
    except RuntimeError as error:
        if not is_shortage(error):
            raise
        return False
    return True
