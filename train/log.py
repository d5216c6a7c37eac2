"""What a run tells while it trains: a bar on a terminal, one JSON line a step for machines, and a board that others draw."""

from __future__ import annotations

import importlib.util
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from prep.options import UserError, atomic_write

if TYPE_CHECKING:
    from train.config import TrainConfig

T = TypeVar("T")


class Board(Protocol):
    """Where the numbers of a run are drawn as curves."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a step's numbers."""

    def close(self) -> None:
        """Let go of files and connections."""


class StepLog:
    """Write NAME.jsonl, and to a board if there is one, and move the bar, if `shown`; quiet when stderr is not a terminal."""

    def __init__(self, path: Path, total: int, done: int = 0, board: Board | None = None, shown: bool = True) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        # A resumed run repeats the steps after its state; their lines, and one cut short by a kill, go.
        try:
            atomic_write(path, "".join(line + "\n" for line in kept_lines(path, done)))
            self.file = path.open("a", encoding="utf-8", newline="\n")
        except OSError as error:
            raise _unwritten(path, error) from error
        self.path, self.board = path, board
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed_text]}"))
        self.bar = Progress(
            *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console, disable=not (shown and console.is_terminal)
        )
        self.task = self.bar.add_task("training", total=total, completed=done, speed_text="")

    def __enter__(self) -> StepLog:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        with suppress(OSError):  # a full disk, which `write` has told; closing tries once more to write what is left
            self.file.close()
        if self.board:
            self.board.close()

    def write(self, record: Mapping[str, Any], mean_loss: float) -> None:
        """Add a step's line and show the mean loss, the rate and the time left; raises UserError if the disk is full."""
        try:
            self.file.write(json.dumps(record) + "\n")
            self.file.flush()
        except OSError as error:
            raise _unwritten(self.path, error) from error
        if self.board:
            self.board.write(record)
        speed = self.bar.tasks[self.task].speed
        self.bar.update(self.task, advance=1, description=f"loss {mean_loss:.4f}", speed_text=f"{speed:.2f} steps/s" if speed else "")


def _unwritten(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path} ({error.strerror}); make room and run again, training goes on from the last saved state")


class TensorBoard:
    """Event files in OUTPUT/tensorboard/NAME."""

    def __init__(self, config: TrainConfig, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # The steps after `done`, which are to come again, are hidden from an earlier part of the run.
        self.writer = SummaryWriter(config.output.output_dir / "tensorboard" / config.output.output_name, purge_step=done + 1)

    def write(self, record: Mapping[str, Any]) -> None:
        for name, value in record.items():
            if isinstance(value, float):
                self.writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of W&B, which a resumed run goes on with; its files lie in OUTPUT/wandb.

    The settings that it shows are those that change the result: paths, which tell of the machine, stay here.
    """

    def __init__(self, config: TrainConfig, done: int) -> None:
        import wandb

        from train.config import FREE

        output = config.output
        settings = {key: value for key, value in config.flat().items() if key not in FREE}
        run_id = _run_id(output.output_dir / "wandb" / f"{output.output_name}.id", done)
        try:
            self.run = wandb.init(
                project=output.log_tracker_name, name=output.output_name, id=run_id, resume="allow", dir=str(output.output_dir), config=settings
            )
        except wandb.Error as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise UserError(f"W&B did not start ({reason}); run `wandb login`, set WANDB_MODE=offline, or leave log_with away") from None
        # W&B drops what comes again under a step that it has; by a metric of our own the repeated steps of a resumed run fall on the old ones.
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def write(self, record: Mapping[str, Any]) -> None:
        self.run.log({name: value for name, value in record.items() if value is not None})

    def close(self) -> None:
        self.run.finish()


# The setting log_with, which is the package's name too -> what draws.
BOARDS: dict[str, type[TensorBoard] | type[WeightsAndBiases]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def missing(log_with: str) -> bool:
    """Say whether the package of a board is not installed."""
    found = importlib.util.find_spec(log_with)
    return found is None or found.origin is None  # a mere folder of that name, which W&B leaves where it ran, has none


def open_board(config: TrainConfig, done: int) -> Board | None:
    """Open the board that log_with names, None if it names none; `done` steps of an earlier part are on it."""
    return BOARDS[config.output.log_with](config, done) if config.output.log_with else None


def _run_id(path: Path, done: int) -> str:
    """Return the id that a run of W&B began under, or a new one where there is nothing to go on with."""
    if not (done and path.exists()):
        atomic_write(path, uuid.uuid4().hex)
    return path.read_text(encoding="utf-8").strip()


def track(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Pass items through and show a bar with rate and time left on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        yield from bar.track(items, total=total, description=title)


def kept_lines(path: Path, done: int) -> list[str]:
    """List the whole lines of a log whose step is at most `done`."""
    lines = path.read_text(encoding="utf-8").splitlines() if done and path.exists() else []
    kept = []
    for line in lines:
        try:
            if json.loads(line)["step"] <= done:
                kept.append(line)
        except (ValueError, TypeError, KeyError):  # a line that a kill cut short
            continue
    return kept
