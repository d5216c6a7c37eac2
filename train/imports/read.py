"""Read a file of sd-scripts or its GUI, whatever it is: training TOML, dataset TOML, form, or command line."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prep.options import UserError
from train.imports.entries import Reading, entries_of
from train.imports.gui import is_gui, read_gui
from train.imports.shell import read_command

NESTED = ("config_file", "dataset_config")  # arguments that name further files
DEEPEST = 4  # files that name each other in a ring would never end


def read_source(source: str) -> list[Reading]:
    """Read a file, or arguments that were typed as one text; further files that it names come before it, since its own word wins."""
    path = Path(source)
    if len(source) < 1000 and "\n" not in source and path.is_file():
        return read_path(path)
    if re.match(r"--[\w-]+$", source):
        raise UserError(f"there is no option {source}; `train import --help` lists them")
    if "--" in source:
        return _with_nested(Reading(tuple(entries_of(read_command(source), "the arguments", Path.cwd()))), Path.cwd(), 0)
    raise UserError(f"there is no file {source}; give a TOML, JSON or script file, or the arguments in quotes")


def read_path(path: Path, depth: int = 0) -> list[Reading]:
    """Read one file by what it holds."""
    if depth > DEEPEST:
        raise UserError(f"{path} names files that name each other; give them one by one")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text; give a TOML, JSON or script file") from None
    folder, where = path.parent.resolve(), path.name
    if path.suffix.lower() == ".json" or text.lstrip().startswith("{"):
        return _with_nested(_json(text, where, folder), folder, depth)
    if path.suffix.lower() == ".toml":
        return _with_nested(_toml(text, where, folder), folder, depth)
    found = read_command(text)
    if not found:
        raise UserError(f"{path} holds no arguments; give a TOML or JSON file, or a script with a line such as train_network.py --network_dim=32")
    return _with_nested(Reading(tuple(entries_of(found, where, folder)), where=where, folder=folder), folder, depth)


def _json(text: str, where: str, folder: Path) -> Reading:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not valid JSON: {error}; save it again in the GUI") from None
    if not isinstance(values, Mapping):
        raise UserError(f"{where} holds no settings; give a configuration that the GUI saved")
    if "datasets" in values:
        return Reading((), values, where, folder, is_run=False)
    entries = read_gui(values, where, folder) if is_gui(values) else entries_of(values, where, folder)
    return Reading(tuple(entries), where=where, folder=folder)


def _toml(text: str, where: str, folder: Path) -> Reading:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where} is not valid TOML: {error}; mend that line (paths stand in 'single quotes', or with /)") from None
    if "datasets" in values:
        return Reading((), values, where, folder, is_run=False)
    return Reading(tuple(entries_of(_flat(values), where, folder)), where=where, folder=folder)


def _flat(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """List the arguments whatever tables they stand in, as sd-scripts reads them."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += value.items() if isinstance(value, Mapping) else [(name, value)]
    return found


def _with_nested(reading: Reading, folder: Path, depth: int) -> list[Reading]:
    """Read the files that a file names as well; one that is not there is an error, since what it says would be lost."""
    found: list[Reading] = []
    script = any(entry.target == "script" for entry in reading.entries)
    for entry in reading.entries:
        if entry.target not in NESTED or not entry.value:
            continue
        if entry.target == "config_file" and not script and reading.where.endswith((".toml", ".json")):
            continue  # a configuration that names itself
        named = str(entry.value).replace("\\", "/")
        places = [folder / named, folder / f"{named}.toml", folder / Path(named).name]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise UserError(
                f"{reading.where or 'the arguments'}: there is no file {entry.value}, which {entry.name} names; put it beside, or take it out"
            )
        found += read_path(path, depth + 1)
    return [*found, reading]
