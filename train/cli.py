"""The `train` command: one row per command, imported when asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from prep.options import LazyGroup, given_values, parameters, read_settings
from train.config import SECTIONS, TrainConfig
from train.run import run
from train.runtime import StoppedError

COMMANDS = {
    "run": "train.cli:run_command",
    "sweep": "train.sweep_command:sweep_command",
    "bench": "train.bench:bench_command",
    "report": "train.report:report_command",
    "import": "train.imports.command:import_command",
    "preset": "train.preset_command:preset_command",
    "control": "train.control:control_command",
    "sample": "train.tools.sample:sample",
    "grid": "train.tools.grid:grid",
    "watch": "train.watch:watch_command",
    "info": "train.tools.info:info",
    "check": "train.tools.check:check",
    "merge": "train.tools.merge:merge",
    "resize": "train.tools.resize:resize",
    "extract": "train.tools.extract:extract",
    "convert": "train.tools.convert:convert",
}


PATHS = ("base", "vae", "sample_prompts", "network_weights")  # settings that are a path or something else


@click.group(cls=LazyGroup, table=COMMANDS)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="lora-atelier")
def main(debug: bool) -> None:
    """Train a LoRA from a checked tree, and look into LoRA files."""


def _run(root: Path, restart: bool, **_: Any) -> None:
    ctx = click.get_current_context()
    try:
        run(TrainConfig.load(read_settings(root), given_settings(ctx)).at(root), restart)
    except StoppedError as stop:
        click.echo(str(stop), err=True)
        ctx.exit(stop.exit_code)


def given_settings(ctx: click.Context) -> dict[str, Any]:
    """List the settings that were typed, by their field."""
    return {key: _from_here(key, value) for section in SECTIONS.values() for key, value in given_values(ctx, section).items()}


def _from_here(key: str, value: Any) -> Any:
    """Make a typed path absolute: it is meant from the current folder, while one in dataset.toml is meant from ROOT."""
    if isinstance(value, Path):
        return value.resolve()
    return str(Path(value).resolve()) if key in PATHS and value and Path(value).exists() else value


run_command = click.Command(
    "run",
    params=[
        click.Argument(["root"], default=".", type=click.Path(path_type=Path)),
        click.Option(["--restart"], is_flag=True, help="Forget the saved state and begin anew."),
        *(parameter for section in SECTIONS.values() for parameter in parameters(section)),
    ],
    callback=_run,
    help="Train the LoRA of the project in ROOT (default: here), whose dataset.toml holds the settings; goes on where it was stopped.",
)
