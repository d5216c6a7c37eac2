"""`train sweep`: which settings are best for these pictures, in one run; a table, a picture and the lines for dataset.toml."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prep.options import parameters, read_settings
from train.cli import given_settings
from train.config import SECTIONS
from train.runtime import StoppedError

if TYPE_CHECKING:
    from train.sweep_runs import Entry


def _sweep(root: Path, vary: Sequence[str], strategy: str, at_once: int, as_json: bool, **_: Any) -> None:
    from train.sweep import recommended, settings_of_sweep, sweep

    ctx = click.get_current_context()
    settings = settings_of_sweep(read_settings(root), given_settings(ctx), root, vary)
    try:
        entries = sweep(settings, strategy, at_once)
    except StoppedError as stop:
        click.echo("stopped; all is saved, and `train sweep` with the same values goes on", err=True)
        ctx.exit(stop.exit_code)
    if as_json:
        click.echo(json.dumps([entry.record() for entry in entries], indent=1))
        return
    show(entries)
    click.echo(f"best for these pictures; write it under [train]:\n{recommended(entries[0])}")


def show(entries: Sequence[Entry]) -> None:
    """Print the table, the best setting first."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", *entries[0].setting.values, "loss", "+-", "needs keyword", "bleed", "steps", title="held-out loss as a share of the base's")
    for place, entry in enumerate(entries, 1):
        best = entry.best
        loss = "broke" if entry.broken else f"{best.loss:.4f}"
        numbers = (loss, f"{best.band:.4f}", f"{best.needs_keyword:.3f}", f"{best.bleed:.3f}", f"{entry.steps} of {entry.whole}")
        table.add_row(str(place), *map(str, entry.setting.values.values()), *numbers)
    Console().print(table)


sweep_command = click.Command(
    "sweep",
    params=[
        click.Argument(["root"], default=".", type=click.Path(path_type=Path)),
        click.Option(["--vary"], multiple=True, required=True, metavar="KEY=V1,V2,...", help="A setting and its values; several make a grid."),
        click.Option(
            ["--strategy"],
            type=click.Choice(["halving", "grid"]),
            default="halving",
            show_default=True,
            help="After a quarter and after half of the steps only the better half goes on, or all do to the end.",
        ),
        click.Option(
            ["--at-once"],
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="So many settings that see the same batches are trained in one pass of the base; 0: all on a GPU, as its memory allows, else one.",
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="Print the table as JSON."),
        *(parameter for section in SECTIONS.values() for parameter in parameters(section)),
    ],
    callback=_sweep,
    help="Train the project in ROOT with many settings on one loaded base, judge them by their best epochs, and say which is best.",
)
