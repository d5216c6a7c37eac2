"""Write the draft: a dataset.toml that says where each line is from, and the account of every argument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tomlkit

from train.imports.outcome import CHANGED, LOST, NEEDLESS, SETTINGS, TAKEN, UNKNOWN, Note
from train.imports.translate import Draft

HEADS = {
    UNKNOWN: "not known to sd-scripts, so nothing is made of it",
    LOST: "cannot be taken over as it is",
    CHANGED: "taken over with a difference",
    NEEDLESS: "needless here",
    TAKEN: "taken over",
}
ORDER = {key: number for number, key in enumerate(SETTINGS)}
JUDGED = "A tenth of the pictures judges the run and is not trained; validation_split = 0 trains all, as sd-scripts does."


def literal(value: Any) -> str:
    """Write a value as TOML has it."""
    return tomlkit.item(value).as_string()


def text_of(draft: Draft, sources: Sequence[str]) -> str:
    """Write the whole file."""
    lines = [f"# Made by `train import` from {', '.join(sources)}.", "", "[project]"]
    lines += _table(draft.project, {})
    if not draft.project.get("keyword"):
        lines.append('keyword = ""  # the concept word, which judging needs; write it here')
    lines += ["", "[train]"]
    ordered = dict(sorted(draft.train.items(), key=lambda item: ORDER[item[0]]))
    lines += _table(ordered, {key: (f"from {name}" if name else "sd-scripts' default") for key, name in draft.origins.items() if name != key})
    if "validation_split" not in draft.train:
        lines.append(f"# {JUDGED}")
    for table in draft.subsets:
        lines += ["", "[[subset]]", *_table(table, {})]
    rest = [f"# {_line(note)}" for kind in (UNKNOWN, LOST, CHANGED) for note in draft.notes if note.outcome.kind == kind]
    return "\n".join([*lines, *(["", "# What is different from there:", *rest] if rest else []), ""])


def _table(values: Mapping[str, Any], comments: Mapping[str, str]) -> list[str]:
    return [f"{key} = {literal(value)}" + (f"  # {comments[key]}" if comments.get(key) else "") for key, value in values.items()]


def _line(note: Note) -> str:
    reason = f": {note.outcome.text}" if note.outcome.text else ""
    return " ".join(f"{note.name} = {note.shown()}{reason}".split())


def account(notes: Sequence[Note], every: bool = False) -> Iterator[str]:
    """Yield the lines of the account, the worst first; what is plainly taken or needless is counted, and listed if `every` is set."""
    for kind, head in HEADS.items():
        found = [note for note in notes if note.outcome.kind == kind]
        if not found:
            continue
        shown = every or kind in (UNKNOWN, LOST, CHANGED)
        yield f"{len(found)} {head}" + (":" if shown else "; --all lists them" if kind == NEEDLESS else "")
        if shown:
            yield from (f"  {_line(note)}" for note in found)
