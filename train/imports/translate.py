"""From what files hold to a dataset.toml: every entry gets its outcome, and the settings are made to stand together."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prep.options import UserError
from train.config import TrainConfig
from train.imports import data_rules, network_rules, optimizer_rules, run_rules
from train.imports.datasets import Folders, first_words, read_folders, run_entries
from train.imports.entries import NETWORK_ARG, Entry, Reading
from train.imports.outcome import LOST, NEEDLESS, SETTINGS, TAKEN, UNKNOWN, Arguments, Note, Outcome, Rule
from train.imports.settle import conflicts, defaults
from train.imports.shell import LAUNCHER

RULES: dict[str, Rule] = {**run_rules.RULES, **data_rules.RULES, **network_rules.RULES, **optimizer_rules.RULES}
OTHER_MODELS = ("flux1_", "sd3_", "lumina_", "hunyuan_", "anima_", "chroma_")
WITH_TREE = "import again with --tree"  # what a note says of pictures that lie elsewhere
UNSET: tuple[Any, ...] = (None, "", "None")


@dataclass
class Draft:
    """The new file: its tables, where each setting is from, and the account of every argument."""

    project: dict[str, str] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)  # setting -> the argument it is from, or "" for a default of sd-scripts
    subsets: list[dict[str, Any]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    sources: list[tuple[Path, str]] = field(default_factory=list)  # folders of pictures that lie outside a tree, and their place in it

    def placed(self) -> None:
        """Take note that the pictures are in the tree now."""
        self.notes = [
            dataclasses.replace(note, outcome=dataclasses.replace(note.outcome, kind=TAKEN, text="")) if WITH_TREE in note.outcome.text else note
            for note in self.notes
        ]

    def settings(self) -> dict[str, Any]:
        """Return the parsed dataset.toml that the draft is."""
        found: dict[str, Any] = {"project": self.project, "train": self.train}
        return {**found, "subset": self.subsets} if self.subsets else found


def translate(readings: Sequence[Reading], out: Path) -> Draft:
    """Make the draft of files, later ones over earlier; `out` is the folder of the new file.

    Raises UserError if a file is of a model that is not trained here, or what it says cannot be trained at all.
    """
    draft, entries = Draft(), [entry for reading in readings for entry in reading.entries]
    for reading in readings:
        more, notes = run_entries(reading)
        entries += more
        draft.notes += notes
    entries = [dataclasses.replace(entry, target=_full_name(entry.target)) for entry in entries]
    arguments = gathered(entries, out)
    for position, entry in enumerate(entries):
        over = next((other for other in entries[position + 1 :] if _wins(other, entry)), None)
        outcome = Outcome(NEEDLESS, text=f"{over.where} says {over.value!r} later") if over else outcome_of(entry, arguments)
        _apply(draft, entry, outcome)
    is_run = any(reading.is_run for reading in readings)
    _settle(draft, arguments, is_run)
    _take_folders(draft, readings, arguments)
    _check(draft)
    return draft


def gathered(entries: Iterable[Entry], out: Path) -> Arguments:
    """Put the entries together as sd-scripts' arguments, the last one of a name winning."""
    values: dict[str, Any] = {}
    args: dict[str, str] = {}
    for entry in entries:
        if entry.reason or entry.target_value in UNSET:
            continue
        if entry.target.startswith(NETWORK_ARG):
            args[entry.target.removeprefix(NETWORK_ARG)] = str(entry.target_value)
        else:
            values[entry.target] = entry.target_value
    if args:
        values["network_args"] = [f"{key}={value}" for key, value in args.items()]
    return Arguments(values, str(values.get("script", "")), out)


def _full_name(target: str) -> str:
    """Complete a name that was cut short, as argparse does, if it can be one only."""
    if target in RULES or not target or target.startswith((NETWORK_ARG, LAUNCHER, *OTHER_MODELS)):
        return target
    meant = [name for name in RULES if name.startswith(target)]
    return meant[0] if len(meant) == 1 and len(target) > 3 else target


def _wins(other: Entry, entry: Entry) -> bool:
    same = other.target == entry.target and not other.reason and not entry.reason
    return same and other.target_value not in UNSET and (other.where, other.target) != ("", "")


def outcome_of(entry: Entry, arguments: Arguments) -> Outcome:
    """Say what becomes of one entry; a value that cannot stand in our setting is lost with the reason."""
    if entry.reason:
        return Outcome(NEEDLESS, text=entry.reason)
    try:
        if entry.target.startswith(NETWORK_ARG):
            key = entry.target.removeprefix(NETWORK_ARG)
            return network_rules.network_arg(key, str(entry.target_value), arguments) or _unknown(
                key, (*network_rules.NETWORK_ARGS, *network_rules.OWN)
            )
        if entry.target.startswith(LAUNCHER):
            return Outcome(NEEDLESS, text="an argument of the launcher, which is given to it again (docs/train.md, several GPUs)")
        if entry.target.startswith(OTHER_MODELS):
            return Outcome(NEEDLESS, text="only models that are not trained here read it")
        rule = RULES.get(entry.target)
        outcome = rule(entry.target_value, arguments) if rule else _unknown(entry.target, RULES)
        for key, value in outcome.settings.items():
            SETTINGS[key].read(value)
        return outcome
    except UserError as error:
        if entry.target in ("script", "network_module"):
            raise
        return Outcome(LOST, text=str(error), readable=False)
    except (ValueError, TypeError):
        return Outcome(LOST, text=f"{entry.value!r} cannot be read", readable=False)


def _unknown(name: str, known: Iterable[str]) -> Outcome:
    near = difflib.get_close_matches(name, list(known), 1)
    return Outcome(UNKNOWN, text=f"did you mean {near[0]}?" if near else "sd-scripts' trainers of LoRAs have no such argument")


def _apply(draft: Draft, entry: Entry, outcome: Outcome) -> None:
    draft.notes.append(Note(entry.name, entry.value, entry.where, outcome))
    draft.project |= outcome.project
    for key, value in outcome.settings.items():
        draft.train[key] = value
        draft.origins[key] = entry.name


def _settle(draft: Draft, arguments: Arguments, is_run: bool) -> None:
    """Write sd-scripts' defaults out, and leave out what cannot stand beside the rest."""
    for key, value in defaults(draft.train, arguments, is_run).items():
        draft.train[key] = value
        draft.origins[key] = "optimizer_type" if key == "optimizer_args" else ""
    for key, reason in list(conflicts(draft.train)):
        value, origin = draft.train.pop(key), draft.origins.pop(key)
        if origin:
            place = next((i for i, note in enumerate(draft.notes) if note.name == origin and note.outcome.settings), None)
            if place is not None:
                draft.notes[place] = dataclasses.replace(draft.notes[place], outcome=Outcome(LOST, text=f"{key} = {value!r} is left out: {reason}"))


def _take_folders(draft: Draft, readings: Sequence[Reading], arguments: Arguments) -> None:
    """Find the tree, its [[subset]] tables, and the keyword that its first folder names."""
    folders = Folders()
    for reading in readings:
        if reading.dataset:
            folders = read_folders(reading, draft.train, arguments)
            draft.notes += folders.notes
            draft.subsets, draft.sources = folders.tables, folders.sources
            draft.project["tree"] = arguments.path(folders.tree) if folders.tree else "tree"
    words = first_words(folders)
    if not draft.sources and not words:
        for name, side in data_rules.SIDES.items():
            place = Path(str(arguments.get(name) or "/nowhere"))
            inside = sorted(path for path in place.glob("[0-9]*_*") if path.is_dir())
            words = words or (inside[0].name.partition("_")[2] if inside and side == "img" else "")
            if draft.project.get("tree") == "tree":
                draft.sources += [(path, f"{side}/{path.name}") for path in inside]
    keyword, _, rest = words.strip().partition(" ")
    if keyword:
        draft.project |= {"keyword": keyword, "class": rest.strip()} if rest.strip() else {"keyword": keyword}


def _check(draft: Draft) -> None:
    try:
        TrainConfig.load(draft.settings(), {})
    except UserError as error:
        raise UserError(f"these settings cannot stand together: {error}; mend that in the file and import it again") from None


def counts(notes: Sequence[Note]) -> dict[str, int]:
    """Count the arguments by what became of them; those that are not set are not among them."""
    return {kind: sum(note.outcome.kind == kind for note in notes) for kind in (TAKEN, "changed", NEEDLESS, LOST, UNKNOWN)}
