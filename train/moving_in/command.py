"""`train import`: what another trainer was told becomes a dataset.toml, and every argument's fate is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from prep.options import PROJECT_FILE, UserError, atomic_write
from train.config import INHERITED, TrainConfig, known_keys
from train.moving_in.moved import SET, UNSUPPORTED, Fate, Moved, plain

TITLES = {SET: "taken over", "needless": "not needed", UNSUPPORTED: "NOT taken over"}


def toml_of(moved: Moved, source: str, keyword: str = "") -> str:
    """Write the settings as a dataset.toml, with what was not taken over as comments below."""
    import tomlkit

    def line(key: str, value: Any) -> str:
        return f"{key} = {tomlkit.item(value).as_string()}"

    settings = dict(moved.settings)
    project = {name: settings.pop(key) for name, key in INHERITED.items() if key in settings}
    lines = [f"# Moved in from {source}. What sd-scripts takes where nothing was said is written out where it is not ours.", "", "[project]"]
    lines += [line(name, value) for name, value in {**project, "keyword": keyword}.items() if value != ""]
    lines += ["", "[train]", *(line(key, settings[key]) for key in known_keys() if key in settings)]
    for subset in moved.subsets:
        lines += ["", "[[subset]]", *(line(key, value) for key, value in subset.items())]
    left = [fate.line for fate in moved.fates if fate.kind == UNSUPPORTED]
    if left:
        lines += ["", "# Not taken over:", *(f"# {text}" for fate in left for text in fate.splitlines())]
    return "\n".join(lines) + "\n"


def show(fates: list[Fate]) -> None:
    """Print what became of each argument, what was not taken over last."""
    for kind, title in TITLES.items():
        lines = [fate.line for fate in fates if fate.kind == kind]
        if lines:
            click.echo(f"{title} ({len(lines)}):")
            for text in lines:
                click.echo(f"  {text}")


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", default=".", show_default=True, type=click.Path(path_type=Path, file_okay=False), help="The project folder to write to.")
@click.option("--keyword", default="", help="The concept word, which sd-scripts has no argument for.")
@click.option("--link/--no-link", default=True, show_default=True, help="Put the pictures into OUT/tree, as hard links where that can be.")
@click.option("--force", is_flag=True, help="Write over a dataset.toml that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print what became of each argument as JSON.")
def import_command(files: tuple[Path, ...], out: Path, keyword: str, link: bool, force: bool, as_json: bool) -> None:
    """Turn sd-scripts' settings in FILES into OUT/dataset.toml.

    FILES are a training TOML, a dataset TOML, a text or script with the arguments of train_network.py, or the JSON file that kohya_ss saves;
    several are read together, later ones over earlier ones. Every argument is taken over, not needed, or named with the reason.
    """
    import tomllib

    from train.moving_in.convert import convert
    from train.moving_in.read import read_all
    from train.moving_in.sources import link as link_pictures

    target = out / PROJECT_FILE
    if target.exists() and not force:
        raise UserError(f"{target} exists already; give --force to write over it, or another folder as --out")
    moved = convert(read_all(files), files[0].resolve().parent)
    text = toml_of(moved, ", ".join(file.name for file in files), keyword)
    try:
        TrainConfig.load(tomllib.loads(text), {})
        fault = ""
    except UserError as error:
        fault = str(error)
    atomic_write(target, text)
    there = [source for source in moved.sources if source.path.is_dir()]
    count = link_pictures(there, out / "tree") if link else 0
    if as_json:
        click.echo(
            json.dumps([{"argument": fate.argument, "value": plain(fate.value), "kind": fate.kind, "words": fate.words} for fate in moved.fates])
        )
    else:
        show(moved.fates)
    click.echo(f"{target} written" + (f", {count} pictures linked into {out / 'tree'}" if count else ""), err=as_json)
    for source in moved.sources:
        if not source.path.is_dir():
            click.echo(f"{source.path} is not there; put its pictures into {out / 'tree' / source.folder}", err=as_json)
    if fault:
        raise UserError(f"{target} is written, but its settings cannot stand together: {fault}")
