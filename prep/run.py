"""Run: read a folder, stream its items through steps, write the report; the whole chain is `prep run`."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from prep.imports.step import lies_beside
from prep.item import Item
from prep.options import UserError, atomic_write, load_object, option
from prep.project import Command, Place
from prep.step import Step
from prep.store import Store

T = TypeVar("T")
PAGE = "report.html"
SHARE = "pipelines.shards:share"  # by name: prep does not know pipelines

# The chain, in order: steps over pictures, then commands over the project.
STEPS = (
    "prep.clean:Clean",
    "prep.dedup:Dedup",
    "prep.marks:Marks",
    "prep.subject:Subject",
    "prep.identity:Identity",
    "prep.crop:Crop",
    "prep.tag:Tag",
    "prep.recheck:Recheck",
    "prep.caption:Caption",
    "prep.keyword:Keyword",
    "prep.tokens:Tokens",
)
IMPORT = ("prep.imports.step:Beside",)  # behind the first step, where something lies beside the raw pictures
AFTER = ("prep.regularize:Regularize", "prep.build:Build", "prep.check:Check")


@dataclass
class Report:
    """What became of the pictures: how many were kept, which were set aside and why."""

    kept: int = 0
    aside: list[tuple[str, str, str]] = field(default_factory=list)  # key, reason, detail

    def add(self, item: Item) -> None:
        if item.dropped:
            self.aside.append((item.key, item.dropped, item.detail))
        else:
            self.kept += 1

    def save(self, store: Store) -> None:
        rows = [{"picture": key, "reason": reason, "detail": detail} for key, reason, detail in sorted(self.aside)]
        atomic_write(store.hidden / "report.json", json.dumps({"kept": self.kept, "set_aside": rows}, indent=1, ensure_ascii=False) + "\n")

    def show(self) -> None:
        """Print one line, and a table of what was set aside."""
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        console = Console(stderr=True)
        counts = ", ".join(f"{n} {reason}" for reason, n in sorted(Counter(r for _, r, _ in self.aside).items()))
        console.print(f"{self.kept} pictures kept" + (f", {len(self.aside)} set aside ({counts})" if counts else ""), highlight=False)
        if self.aside:
            table = Table("picture", "set aside because", "detail")
            for row in sorted(self.aside):
                table.add_row(*map(escape, row))  # "[artist] name" is no markup
            console.print(table)


@contextmanager
def bar(title: str, total: int | None = None) -> Iterator[Callable[[float], None]]:
    """Show a bar with rate and time left on a terminal and give the function that moves it; show nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda advance: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total, rate="")

        def move(advance: float) -> None:
            speed = progress.tasks[task].speed
            progress.update(task, advance=advance, rate=f"{speed:.1f}/s" if speed else "")

        yield move


def track(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Pass items through and show on a bar how many there have been."""
    with bar(title, total) as move:
        yield from _moving(items, move, 1)


def _moving(items: Iterable[T], move: Callable[[float], None], by: float) -> Iterator[T]:
    for item in items:
        yield item
        move(by)


def run_steps(place: Place, steps: Sequence[Step]) -> Report:
    """Stream the folder's items through the steps, print and save the report; raises UserError if there is no picture."""
    store = steps[0].store(place)
    items: Iterator[Item] = steps[0].read(place, store)
    first = next(items, None)
    if first is None:
        raise UserError(steps[0].nothing(place))
    items = load_object(SHARE)(chain([first], items), steps[0].part)
    title = steps[0].table() if len(steps) == 1 else f"{steps[0].table()} … {steps[-1].table()}"
    report = Report()
    with bar(title, store.listed) as move:
        # A picture counts half when it is read and half when it is through, so that the bar moves while `dedup` gathers them all.
        stream: Iterable[Item] = _moving(items, move, 0.5)
        for step in steps:
            stream = step(stream, store)
        for item in _moving(stream, move, 0.5):
            report.add(item)
    if not steps[0].part:
        report.save(store)
    report.show()
    if any(step.pictured for step in steps) and not steps[0].part:
        _write_page(store)
    for step in steps:
        step.finish(place, store)
    return report


def _write_page(store: Store) -> None:
    """Write report.html beside the pictures and say where it is."""
    from prep.report import write_report

    page = store.folder / PAGE
    write_report(store.stream(), page, f"What became of the pictures in {store.folder.name}")
    print(f"look at {os.path.relpath(page)}", file=sys.stderr)


@dataclass(frozen=True)
class Run(Command):
    """Do all of it: clean, import, dedup, crop, tag, caption, keyword, tokens, regularize, build, check; goes on where it stopped."""

    regularize: bool = option(True, help="Make the regularization pictures too.")

    def main(self, place: Place) -> None:
        place.need_project("run")
        imports = IMPORT if lies_beside(place.raw) else ()
        steps = [load_object(spec).configured(place) for spec in (*STEPS[:1], *imports, *STEPS[1:])]
        after = [load_object(spec).configured(place) for spec in AFTER if self.regularize or spec != AFTER[0]]
        for command in [*steps, *after]:
            command.ready(place)
        report = run_steps(place, steps)
        if not report.kept:
            raise UserError(f"no picture of {place.raw} is fit for training; see the reasons above")
        for command in after:
            command.main(place)
