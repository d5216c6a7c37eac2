"""Check: read the tree as trainers do, say what would go wrong, and do the sum of steps beforehand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prep.captions import read_caption
from prep.clip_bpe import CHUNK, LENGTHS, count
from prep.options import UserError, option
from prep.project import Command, Place
from prep.tree import Folder, read_manifest, read_tree, regularization_use, validate
from prep.tree_rules import Finding


@dataclass(frozen=True)
class Check(Command):
    """Check a tree as trainers read it, and print how many steps it gives; exit code 1 if there are errors."""

    keyword: str = option("", "-k", help="The concept word; it must be in every image caption and in no regularization caption.")
    json: bool = option(False, help="Print the findings as JSON.")

    def main(self, place: Place) -> None:
        root = tree_of(place)
        found = validate(root, self.keyword or str(read_manifest(root).get("keyword", "")))
        errors = [finding for finding in found if finding.level == "error"]
        folders = _folders(root)
        found += list(_too_short(root, folders, _train_setting(place, "max_token_length", CHUNK)))
        sums = epoch(folders, _train_setting(place, "train_batch_size", 1), _train_setting(place, "num_epochs", 10)) if folders else {}
        if self.json:
            rows = [{"level": f.level, "path": _shown(f.path, root), "message": f.message} for f in found]
            print(json.dumps({"tree": str(root), "findings": rows, "steps": sums}, indent=1, ensure_ascii=False))
        else:
            show(root, found, sums)
        if errors:
            raise UserError(f"{root} has {len(errors)} error{'s' * (len(errors) > 1)}; mend what is named above, then run `prep check` again")


def tree_of(place: Place) -> Path:
    """Return the tree that is meant: the project's, or the folder itself, or the folder tree in it."""
    bare = not place.is_project and ((place.root / "img").is_dir() or not place.tree.is_dir())
    return place.root if bare else place.tree


def _folders(root: Path) -> list[Folder]:
    try:
        return read_tree(root)
    except UserError:  # `validate` has said why
        return []


def _train_setting(place: Place, key: str, default: int) -> int:
    """Read a number that [train] sets; a bad one is `train run`'s to refuse."""
    value = place.settings.get("train", {}).get(key, default)
    return value if isinstance(value, int) and value > 0 else default


def epoch(folders: Iterable[Folder], batch_size: int, epochs: int) -> dict[str, Any]:
    """Do the sum of an epoch as sd-scripts does it and as `train run` does it.

    Both see each picture `repeats` times and as many regularization samples again. sd-scripts takes those from the front of the
    folder and mixes them freely; ours takes all in turn, each batch holding both. More than one bucket may add a step for each.
    """
    folders = list(folders)
    samples, reg_samples, unused = regularization_use(folders)
    ours = samples if reg_samples else 0
    steps = math.ceil((samples + reg_samples) / batch_size)
    our_steps = math.ceil((samples + ours) / batch_size)
    return {
        "pictures": sum(len(folder.pictures) for folder in folders if not folder.is_reg),
        "samples": samples,
        "reg_pictures": sum(len(folder.pictures) for folder in folders if folder.is_reg),
        "sd_scripts": {"reg_samples": reg_samples, "reg_unused": unused, "steps_per_epoch": steps, "steps": steps * epochs},
        "ours": {"reg_samples": ours, "reg_unused": 0, "steps_per_epoch": our_steps, "steps": our_steps * epochs},
        "train_batch_size": batch_size,
        "num_epochs": epochs,
    }


def _too_short(root: Path, folders: Iterable[Folder], length: int) -> Iterator[Finding]:
    """Warn if the configured max_token_length cuts captions that a longer one would hold."""
    longest = max((count(text) for folder in folders for path in folder.pictures if (text := _text(path))), default=0)
    need = next((size for size in LENGTHS if longest <= size), None)
    if need and need > length:
        yield Finding("warning", root, f"the longest caption has {longest} tokens and max_token_length is {length}; set it to {need} under [train]")


def _text(picture: Path) -> str | None:
    try:
        return read_caption(picture)
    except UserError:  # named among the findings already
        return None


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root and path.is_relative_to(root) else root.name


def show(root: Path, found: list[Finding], sums: dict[str, Any]) -> None:
    """Print the findings, one block per sentence with the files it holds for, errors first; then the sum of steps."""
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    groups: dict[tuple[str, str], list[str]] = {}
    for finding in sorted(found, key=lambda finding: finding.level):  # "error" sorts before "warning"
        groups.setdefault((finding.level, finding.message), []).append(_shown(finding.path, root))
    for (level, message), paths in groups.items():
        console.print(f"{level}: {message}", style="red" if level == "error" else "yellow", markup=False)
        for path in paths[:10]:
            console.print(f"    {path}", markup=False)
        if len(paths) > 10:
            console.print(f"    and {len(paths) - 10} more")
    if not found:
        console.print(f"{root} is in order", style="green", markup=False)
    if sums:
        _show_sums(sums)


def _show_sums(sums: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    batch, epochs = f"steps (batch {sums['train_batch_size']})", f"steps in {sums['num_epochs']} epochs"
    table = Table("an epoch", "samples", "reg samples", "reg unused", batch, epochs)
    for name, title in (("ours", "train run"), ("sd_scripts", "sd-scripts")):
        row = sums[name]
        table.add_row(title, str(sums["samples"]), str(row["reg_samples"]), str(row["reg_unused"]), str(row["steps_per_epoch"]), str(row["steps"]))
    Console(stderr=True).print(table)
