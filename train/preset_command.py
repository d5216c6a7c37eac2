"""`train preset`: settings to start from, each with its reason, printed or written into dataset.toml."""

from __future__ import annotations

from pathlib import Path

import click
import tomlkit

from prep.options import PROJECT_FILE, UserError, atomic_write, read_settings
from train.config import TrainConfig
from train.presets import PRESETS, Preset, find_preset


@click.command("preset")
@click.argument("name", default="")
@click.argument("root", default=".", type=click.Path(path_type=Path))
@click.option("--write", is_flag=True, help="Put the settings into [train] of ROOT/dataset.toml; others there stay as they are.")
def preset_command(name: str, root: Path, write: bool) -> None:
    """Print the settings of the preset NAME with a reason beside each, such as character-sdxl-12gb; without NAME list all."""
    if not name:
        for preset in PRESETS.values():
            click.echo(f"{preset.name:22} {preset.description}")
        return
    preset = find_preset(name)
    if not write:
        click.echo(lines_of(preset))
        return
    for line in put(preset, root):
        click.echo(line)


def lines_of(preset: Preset) -> str:
    """Write a preset as a [train] table."""
    lines = [f"{choice.key} = {tomlkit.item(choice.value).as_string()}  # {choice.reason}" for choice in preset.choices]
    return "\n".join([f"# Preset {preset.name}: {preset.description}", "[train]", *lines])


def put(preset: Preset, root: Path) -> list[str]:
    """Write a preset into ROOT/dataset.toml and return what to say, with each value that was another before.

    Raises UserError, and writes nothing, if the other settings there cannot stand beside it.
    """
    read_settings(root)  # its sentence for a file that is missing or broken
    path = root / PROJECT_FILE
    document = tomlkit.parse(path.read_text(encoding="utf-8-sig"))
    if not isinstance(document.setdefault("train", tomlkit.table()), tomlkit.items.Table):
        raise UserError(f"{path}: train is no table; write it as [train] with its settings below")
    table, said = document["train"], []
    for choice in preset.choices:
        before = table.get(choice.key)
        if before is not None and before != choice.value:
            said.append(f"{choice.key} was {before}")
        value = tomlkit.item(choice.value)
        value.comment(choice.reason)
        table[choice.key] = value
    TrainConfig.load(document.unwrap(), {})
    atomic_write(path, tomlkit.dumps(document))
    return [*said, f"{len(preset.choices)} settings of {preset.name} are in {path}"]
