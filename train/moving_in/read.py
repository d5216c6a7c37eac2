"""Reading what other trainers were told: TOML files, an argument list, or what kohya_ss saved as JSON; all become arguments of sd-scripts."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prep.options import UserError
from train.moving_in.gui import from_gui

# Flags of the launcher that stand before the script in a command line, with those that take a value.
SCRIPT = re.compile(r"[\w./\\:-]*train[\w-]*\.py")


@dataclass
class Told:
    """What was read: arguments by name, data sets with their subsets, and what of it is known to have no counterpart."""

    arguments: dict[str, Any] = field(default_factory=dict)
    subsets: list[dict[str, Any]] = field(default_factory=list)  # of a dataset TOML, the settings of their data set filled in
    general: dict[str, Any] = field(default_factory=dict)  # that hold in all subsets
    left: dict[str, str] = field(default_factory=dict)  # name = value -> reason


def read_all(paths: Sequence[Path]) -> Told:
    """Read several files, later ones over earlier ones; raises UserError if one is none of the forms."""
    told = Told()
    for path in paths:
        read_one(path, told)
    for name, key in (("config_file", "a training TOML"), ("dataset_config", "a dataset TOML")):
        more = told.arguments.pop(name, None)
        if more:
            found = next((place for place in (Path(more), paths[0].parent / more) if place.is_file()), None)
            if found is None:
                told.left[f"{name} = {more}"] = f"{key} that is not there; give it to `train import` as well"
            else:
                typed = dict(told.arguments)
                read_one(found, told)
                told.arguments.update(typed)  # what was typed wins over the file
    return told


def read_one(path: Path, told: Told) -> None:
    """Add what one file says; raises UserError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); give a TOML file, a JSON file or a list of arguments") from None
    suffix = path.suffix.lower()
    if suffix == ".json" or text.lstrip().startswith("{"):
        _add_json(path, text, told)
    elif suffix == ".toml":
        try:
            _add_toml(tomllib.loads(text), told)
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{path} is not valid TOML ({error}); mend that line") from None
    else:
        told.arguments.update(from_words(words_of(text)))


def _add_json(path: Path, text: str, told: Told) -> None:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}); save the settings in kohya_ss again") from None
    if not isinstance(found, Mapping):
        raise UserError(f"{path} holds no settings; give the JSON file that kohya_ss saves")
    if "datasets" in found:  # a dataset configuration may be JSON too
        _add_toml(found, told)
        return
    arguments, left, additional = from_gui(found)
    told.arguments.update(arguments)
    told.arguments.update(from_words(words_of(additional)))
    told.left.update(left)


def _add_toml(table: Mapping[str, Any], told: Told) -> None:
    """Add a training TOML, whose sections mean nothing, or a dataset TOML."""
    if "datasets" not in table:
        for key, value in table.items():
            told.arguments.update(value if isinstance(value, Mapping) else {key: value})
        return
    told.general.update(table.get("general", {}))
    sets = table["datasets"]
    if not isinstance(sets, list):
        raise UserError("datasets is not a list of tables; write each as [[datasets]]")
    for one in sets:
        shared = {key: value for key, value in one.items() if key != "subsets"}
        told.subsets += [{**shared, **subset} for subset in one.get("subsets", [])]
    for key, value in table.items():
        if key not in ("general", "datasets"):
            told.left[f"{key} = {value}"] = "a dataset TOML has [general] and [[datasets]] only"


def words_of(text: str) -> list[str]:
    """Split a command line or script into words; comments, line ends and what stands before the script's name go."""
    lines = [re.sub(r"\s[\\^`]\s*$", " ", re.sub(r"(^|\s)(#|REM\s|::).*$", " ", line)) for line in text.splitlines()]
    line = " ".join(lines)
    found = SCRIPT.search(line)
    line = line[found.end() :] if found else line
    line = line.lstrip("\"' ") if found else line
    try:
        return shlex.split(line.replace("\\", "\\\\"))  # paths of Windows keep their backslashes
    except ValueError as error:
        raise UserError(f"the arguments cannot be read ({error}); close every quotation mark") from None


def from_words(words: Sequence[str]) -> dict[str, Any]:
    """Read --name=value, --name value value and --name."""
    found: dict[str, Any] = {}
    name = ""
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            found[name] = value if equals else True
        elif name:
            before = found[name]
            found[name] = word if before is True else [*(before if isinstance(before, list) else [before]), word]
        elif word.strip():
            raise UserError(f"{word!r} is no argument; give a file of --name=value, as after the script's name in a command line")
    return found
