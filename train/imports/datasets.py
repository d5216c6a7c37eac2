"""A data set's configuration (`--dataset_config`): [general], [[datasets]] and their subsets, as [train] and [[subset]]."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prep.options import UserError
from prep.tree import folder_name, parse_folder_name
from train.imports.data_rules import RULES, folder_of
from train.imports.entries import Entry, Reading, placed
from train.imports.outcome import CHANGED, LOST, TAKEN, UNKNOWN, Arguments, Note, Outcome, boolean
from train.subsets import OWN

ALIASES = {"batch_size": "train_batch_size", "dataset_repeats": "num_repeats"}
FALLING = (*OWN, "num_repeats", "class_tokens")  # what a subset takes from its data set, or from [general], if it has none of its own


@dataclass
class Folders:
    """The tree that the subsets make: its path, its [[subset]] tables, and which folder of pictures becomes which folder of it."""

    tree: str = ""
    tables: list[dict[str, Any]] = field(default_factory=list)
    sources: list[tuple[Path, str]] = field(default_factory=list)  # (folder of pictures, folder in the tree)
    names: list[str] = field(default_factory=list)  # all folders in the tree
    notes: list[Note] = field(default_factory=list)


@dataclass(frozen=True)
class _Run:
    """What holds for the whole run: the settings of [train], its arguments, and the file that is read."""

    train: Mapping[str, Any]
    arguments: Arguments
    where: str


def checked(reading: Reading) -> list[Mapping[str, Any]]:
    """Return the [[datasets]] tables; raises UserError if the file has another shape."""
    found = reading.dataset.get("datasets", [])
    if not isinstance(found, list) or not all(isinstance(table, Mapping) for table in found):
        raise UserError(f"{reading.where}: datasets is no list of tables; write each as [[datasets]]")
    for table in found:
        subsets = table.get("subsets", [])
        if not isinstance(subsets, list) or not all(isinstance(subset, Mapping) for subset in subsets):
            raise UserError(f"{reading.where}: subsets is no list of tables; write each as [[datasets.subsets]]")
    if not isinstance(reading.dataset.get("general", {}), Mapping):
        raise UserError(f"{reading.where}: general is no table; write it as [general]")
    return found


def run_entries(reading: Reading) -> tuple[list[Entry], list[Note]]:
    """List what [general] and the first data set say of the whole run, over its arguments; and of the others what a run cannot follow."""
    if not reading.dataset:
        return [], []
    tables = checked(reading)
    known = {key for key in reading.dataset if key not in ("general", "datasets")}
    general = {**{key: reading.dataset[key] for key in known}, **reading.dataset.get("general", {})}
    entries = [_entry("general", key, value, reading) for key, value in general.items() if key not in FALLING or key in OWN]
    first = tables[0] if tables else {}
    entries += [_entry("datasets 1", key, value, reading) for key, value in first.items() if key not in ("subsets", *FALLING)]
    notes = [Note(f"general {key}", value, reading.where, Outcome(TAKEN)) for key, value in general.items() if key in FALLING and key not in OWN]
    for number, table in enumerate(tables, 1):
        for key, value in table.items():
            if key in FALLING:
                notes.append(Note(f"datasets {number} {key}", value, reading.where, Outcome(TAKEN)))
            elif number > 1 and key != "subsets":
                same = first.get(key, general.get(key)) == value
                outcome = Outcome(TAKEN) if same else Outcome(LOST, text=f"a run has one {key}, and it is that of the first of the datasets")
                notes.append(Note(f"datasets {number} {key}", value, reading.where, outcome))
    return entries, notes


def _entry(place: str, key: str, value: Any, reading: Reading) -> Entry:
    return Entry(f"{place} {key}", value, reading.where, ALIASES.get(key, key), placed(key, value, reading.folder))


def read_folders(reading: Reading, train: Mapping[str, Any], arguments: Arguments) -> Folders:
    """Make the [[subset]] tables; `train` holds what [train] says, which is not said again."""
    found, run = Folders(), _Run(train, arguments, reading.where)
    general = {ALIASES.get(key, key): value for key, value in reading.dataset.get("general", {}).items()}
    number = 0
    subsets = []
    for table in checked(reading):
        falling = {key: value for key, value in {**general, **table}.items() if key in FALLING}
        for subset in table.get("subsets", []):
            number += 1
            subsets.append((number, {ALIASES.get(key, key): value for key, value in subset.items()}, falling))
    seen: set[str] = set()
    dirs = [placed("image_dir", str(subset.get("image_dir", "")), reading.folder) for _, subset, _ in subsets]
    if "" in dirs:
        raise UserError(f"{reading.where}: a subset has no image_dir; give the folder of its pictures (metadata_file alone is not read)")
    found.tree = _common_tree([(directory, boolean(subset.get("is_reg"))) for directory, (_, subset, _) in zip(dirs, subsets, strict=True)])
    for directory, (number, subset, falling) in zip(dirs, subsets, strict=True):
        if directory in seen:
            found.notes += [Note(f"subset {number} {key}", v, reading.where, Outcome(LOST, text=_again(directory))) for key, v in subset.items()]
            continue
        seen.add(directory)
        values = {**falling, **{key: value for key, value in subset.items() if value is not None}}
        name = _add(found, values, directory, run)
        found.notes += list(_notes(number, subset, name, bool(found.tree), run))
    return found


def _again(directory: str) -> str:
    return f"{folder_of(directory).name} is another subset already, and a folder is read once"


def _common_tree(dirs: Sequence[tuple[str, bool]]) -> str:
    """Return the tree if every folder is one of its img/N_concept or reg/N_class; else nothing."""
    trees = set()
    for directory, is_reg in dirs:
        folder = folder_of(directory)
        fits = folder.parent.name == ("reg" if is_reg else "img") and parse_folder_name(folder.name)
        trees.add(str(folder.parent.parent) if fits else "")
    return trees.pop() if len(trees) == 1 else ""


def _add(found: Folders, values: Mapping[str, Any], directory: str, run: _Run) -> str:
    """Add one subset: its folder in the tree, whose name is returned, and what is different there."""
    side = "reg" if boolean(values.get("is_reg")) else "img"
    repeats, words = _repeats(values, run), str(values.get("class_tokens") or "")
    folder = folder_of(directory).name if found.tree else _new_name(found, side, repeats, words, directory)
    table: dict[str, Any] = {"image_dir": f"{side}/{folder}"}
    parsed = parse_folder_name(folder)
    if parsed and parsed[0] != repeats:
        table["num_repeats"] = repeats
    if words and parsed and parsed[1] != words:
        table["class_tokens"] = words
    for key, value in values.items():
        rule = RULES.get(key) if key in OWN else None
        if rule:
            made = rule(value, run.arguments).settings
            table |= {name: made[name] for name in made if made[name] != run.train.get(name)}
    if not found.tree:
        found.sources.append((Path(directory), f"{side}/{folder}"))
    found.names.append(f"{side}/{folder}")
    if len(table) > 1:
        found.tables.append(table)
    return f"{side}/{folder}"


def _repeats(values: Mapping[str, Any], run: _Run) -> int:
    found = values.get("num_repeats") or 1
    if not isinstance(found, int) or found < 1:
        raise UserError(f"{run.where}: num_repeats = {found!r} is no number of times; write a whole number over 0")
    return found


def _new_name(found: Folders, side: str, repeats: int, words: str, directory: str) -> str:
    """Name a folder of the tree for pictures that lie elsewhere."""
    own = folder_of(directory).name
    parsed = parse_folder_name(own)
    concept = words or (parsed[1] if parsed else own) or "concept"
    taken = {name for _, name in found.sources}
    count, name = 1, folder_name(repeats, concept)
    while f"{side}/{name}" in taken:
        count += 1
        name = folder_name(repeats, f"{concept} {count}")
    return name


def _notes(number: int, subset: Mapping[str, Any], folder: str, is_tree: bool, run: _Run) -> Iterator[Note]:
    for key, value in subset.items():
        if key == "image_dir":
            text = "" if is_tree else f"put its pictures into tree/{folder}, or import again with --tree"
            outcome = Outcome(TAKEN if is_tree else CHANGED, text=text)
        elif key in ("num_repeats", "is_reg", "class_tokens"):
            outcome = Outcome(TAKEN)
        elif key in RULES:
            outcome = RULES[key](value, run.arguments)
        else:
            near = difflib.get_close_matches(key, [*RULES, "image_dir", "num_repeats", "is_reg", "class_tokens"], 1)
            outcome = Outcome(UNKNOWN, text=f"did you mean {near[0]}?" if near else "sd-scripts' subsets have no such setting")
        yield Note(f"subset {number} {key}", value, run.where, outcome)


def first_words(folders: Folders) -> str:
    """Return the words of the first folder of the concept, without its number."""
    first = next((name for name in folders.names if name.startswith("img/")), "")
    return re.sub(r"^img/\d+_", "", first)
