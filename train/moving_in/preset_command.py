"""`train preset`: settings to begin with, each with its reason, printed or written into dataset.toml."""

from __future__ import annotations

from pathlib import Path

import click

from prep.options import PROJECT_FILE, UserError, atomic_write
from train.config import TrainConfig, known_keys
from train.moving_in.presets import Choice, names, preset

NOT_RUN = "None of the presets was run on a card of its size: the memory is worked out, not measured."


def table_of(name: str) -> list[Choice]:
    """Return a preset's choices that this version has settings for, in the order of the settings."""
    order = known_keys()
    return sorted((choice for choice in preset(name) if choice.key in order), key=lambda choice: order.index(choice.key))


@click.command("preset")
@click.argument("name", required=False, default="")
@click.argument("root", required=False, default=".", type=click.Path(path_type=Path))
@click.option("--write", is_flag=True, help="Write the settings into ROOT/dataset.toml; what is set there already is replaced.")
def preset_command(name: str, root: Path, write: bool) -> None:
    """Print the settings of a preset with the reason of each, such as character-sdxl-12gb; without NAME, list all presets."""
    if not name:
        for known in names():
            click.echo(known)
        return
    if name not in list(names()):
        raise UserError(f"there is no preset {name!r}; it is KIND-FAMILY-MEMORY, and `train preset` lists all")
    choices = table_of(name)
    if write:
        _write(root / PROJECT_FILE, name, choices)
        return
    click.echo(f"# {name}. {NOT_RUN}\n[train]")
    for line in lines_of(choices):
        click.echo(line)


def lines_of(choices: list[Choice]) -> list[str]:
    """Write each choice as a line of TOML, the reasons one below the other."""
    import tomlkit

    pairs = [f"{choice.key} = {tomlkit.item(choice.value).as_string()}" for choice in choices]
    width = max(map(len, pairs))
    return [f"{pair:{width}}  # {choice.why}" for pair, choice in zip(pairs, choices, strict=True)]


def _write(path: Path, name: str, choices: list[Choice]) -> None:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"no {PROJECT_FILE} in {path.parent.resolve()}; start a project with `prep new`") from None
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}; mend that line") from None
    table = document.setdefault("train", tomlkit.table())
    for choice in choices:
        table[choice.key] = tomlkit.item(choice.value).comment(choice.why)
    TrainConfig.load(document.unwrap(), {})
    atomic_write(path, tomlkit.dumps(document))
    click.echo(f"{path}: {len(choices)} settings of {name} written. {NOT_RUN}")
