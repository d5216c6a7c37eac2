"""Entries: the single arguments that files hold, each under the name it has there and the name that sd-scripts has for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from train.imports.outcome import pairs

NETWORK_ARG = "network_args "  # what is before the name of one of network_args
# Arguments that are paths; from the folder of the file that holds them.
PATHS = (
    "vae", "train_data_dir", "reg_data_dir", "network_weights", "base_weights", "output_dir", "logging_dir", "resume", "image_dir",
    "conditioning_data_dir", "in_json", "metadata_file",
)  # fmt: skip
MAYBE_PATHS = ("pretrained_model_name_or_path", "sample_prompts")  # these may also be a hub id, or prompts


@dataclass(frozen=True)
class Entry:
    """One argument: its name and value in the file `where`, the argument of sd-scripts that it is, and its value there.

    With `reason` it is no argument of sd-scripts, and needless for that reason.
    """

    name: str
    value: Any
    where: str
    target: str
    target_value: Any
    reason: str = ""


@dataclass(frozen=True)
class Reading:
    """What files hold: entries, a later one over an earlier, and the tables of a data set's configuration with its file."""

    entries: tuple[Entry, ...] = ()
    dataset: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    folder: Path = Path(".")
    is_run: bool = True  # a run's arguments, not a data set's alone


def placed(name: str, value: Any, folder: Path) -> Any:
    """Make a path absolute that is meant from a file's folder."""
    if isinstance(value, list):
        return [placed(name, one, folder) for one in value]
    if not isinstance(value, str) or not value or name not in (*PATHS, *MAYBE_PATHS):
        return value
    path = folder / value
    if PureWindowsPath(value).drive or "\n" in value or (name in MAYBE_PATHS and not _is_path(value, path)):
        return value
    return str(path.resolve()) if not Path(value).is_absolute() else value


def _is_path(value: str, path: Path) -> bool:
    return value.startswith((".", "/")) or value.endswith((".safetensors", ".ckpt", ".txt", ".toml", ".json")) or (len(value) < 250 and path.exists())


def entries_of(values: Mapping[str, Any] | Iterable[tuple[str, Any]], where: str, folder: Path) -> list[Entry]:
    """List the arguments of a file under sd-scripts' own names; each of network_args is one of its own."""
    found = []
    for name, value in values.items() if isinstance(values, Mapping) else values:
        if name == "network_args" and value:
            args = pairs(value).items()
            found += [Entry(f"{NETWORK_ARG}{key}", text, where, f"{NETWORK_ARG}{key}", text) for key, text in args]
        else:
            found.append(Entry(name, value, where, name, placed(name, value, folder)))
    return found
