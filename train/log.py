"""What a run tells while it trains: a bar on a terminal, and one JSON line a step for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from prep.options import UserError, atomic_write

T = TypeVar("T")


class StepLog:
    """Write NAME.jsonl, and to TensorBoard if there is a folder for it, and move the bar; quiet when stderr is not a terminal."""

    def __init__(self, path: Path, total: int, done: int = 0, board: Path | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        # A resumed run repeats the steps after its state; their lines, and one cut short by a kill, go.
        atomic_write(path, "".join(line + "\n" for line in kept_lines(path, done)))
        self.file = path.open("a", encoding="utf-8", newline="\n")
        self.board = _board(board, done) if board else None
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed_text]}"))
        self.bar = Progress(
            *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console, disable=not console.is_terminal
        )
        self.task = self.bar.add_task("training", total=total, completed=done, speed_text="")

    def __enter__(self) -> StepLog:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        self.file.close()
        if self.board:
            self.board.close()

    def write(self, record: Mapping[str, Any], mean_loss: float) -> None:
        """Add a step's line and show the mean loss, the rate and the time left."""
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        if self.board:
            for name, value in record.items():
                if isinstance(value, float):
                    self.board.add_scalar(name, value, record["step"])
        speed = self.bar.tasks[self.task].speed
        self.bar.update(self.task, advance=1, description=f"loss {mean_loss:.4f}", speed_text=f"{speed:.2f} steps/s" if speed else "")


def _board(folder: Path, done: int) -> Any:
    """Open TensorBoard's log; the steps after `done`, which are to come again, are hidden from an earlier part of the run."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("TensorBoard is not installed; run `pip install tensorboard`, or leave log_with away") from None
    return SummaryWriter(folder, purge_step=done + 1)


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
