"""Subsets: parts of a project with settings of their own, which get folders of their own and stand in the tree's dataset.toml."""

from __future__ import annotations

import dataclasses
import fnmatch
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prep.options import PROJECT_FILE, UserError, build, load_object, option, settings_of, unknown_keys
from prep.project import Place
from prep.tree import Folder

# The trainer's own reading of [[subset]] tables, by name, as everything of train's: what it refuses is refused here.
READER, APPLIED, SETTINGS = "train.subsets:read_subsets", "train.subsets:with_subsets", "train.config:DataConfig"
TABLE = "subset"


@dataclass(frozen=True)
class Part:
    """A [[build.subset]] table of a project's dataset.toml: which of its pictures are meant, and what is different for them."""

    number: int  # its place among the tables, from 1
    pictures: str = option("", help="Names of the pictures, by commas, * for any letters, such as side-*; empty = all.")
    name: str = option("", help="What their folder is called behind the concept; empty = subset and a number.")
    is_reg: bool = option(False, help="Pictures of the class are meant.")
    num_repeats: int | None = option(None, help="How often an epoch shows each of them; empty = as the others.", min=1, max=10_000)
    own: tuple[tuple[str, Any], ...] = ()  # setting of the trainer -> its value for these pictures

    def holds(self, name: str) -> bool:
        """Tell whether a picture of this name, with or without its suffix, is meant; case counts."""
        patterns = [word.strip() for word in self.pictures.split(",") if word.strip()]
        forms = (name, Path(name).stem)
        return not patterns or any(fnmatch.fnmatchcase(form, pattern) for pattern in patterns for form in forms)

    @property
    def suffix(self) -> str:
        """What tells its folder from that of the other pictures of the concept."""
        return f" {self.name or f'subset {self.number}'}" if self.name or self.pictures.strip() else ""

    def table(self, folder: str, repeats: int) -> dict[str, Any]:
        """Return the [[subset]] table of one of its folders, such as "img/10_mira 1girl"."""
        return {"image_dir": folder, "num_repeats": repeats, **({"is_reg": True} if self.is_reg else {}), **dict(self.own)}


def read_parts(place: Place) -> tuple[Part, ...]:
    """Read a project's [[build.subset]] tables; raises one UserError with all faults."""
    tables = place.settings.get("build", {}).get(TABLE, [])
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise UserError(f"{PROJECT_FILE}: subset under [build] is not a list of tables; write each as [[build.subset]] with its settings below")
    parts, faults = [], []
    for number, table in enumerate(tables, 1):
        try:
            parts.append(_read(number, table))
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("; ".join(faults))
    return tuple(parts)


def _read(number: int, table: Mapping[str, Any]) -> Part:
    where, fields = f"[[build.subset]] {number}", [setting.key for setting in settings_of(Part)]
    own = {key: value for key, value in table.items() if key not in fields}
    faults = unknown_keys(where, own, [*fields, *load_object("train.subsets:OWN")])
    if not faults:
        try:
            load_object(READER)([{"image_dir": "img", **own}], load_object(SETTINGS))
        except UserError as error:
            faults.append(str(error).replace("[[subset]] 1", where))
    if faults:
        raise UserError("; ".join(faults))
    part = build(Part, [(where, table)], {"number": number})
    return dataclasses.replace(part, own=tuple(sorted(own.items())))


def part_of(parts: Sequence[Part], name: str, is_reg: bool) -> Part | None:
    """Return the first part that a picture belongs to."""
    return next((part for part in parts if part.is_reg is is_reg and part.holds(name)), None)


def subset_text(tables: Sequence[Mapping[str, Any]]) -> str:
    """Write the dataset.toml of a tree."""
    import tomlkit

    document = tomlkit.document()
    document.add(tomlkit.comment("Written by `prep build` from [[build.subset]] of the project; edit it there."))
    document.add(TABLE, tomlkit.item([dict(table) for table in tables]))
    return tomlkit.dumps(document)


def is_of_a_tree(path: Path) -> bool:
    """Tell whether a dataset.toml is that of a tree, which holds subsets, and not a project's."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    return list(found) == [TABLE] and isinstance(found[TABLE], list)


@dataclass(frozen=True)
class Adapted:
    """A folder of a tree as `train run` has it, and which settings are its own."""

    folder: Folder
    own: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def adapted(root: Path, folders: Iterable[Folder]) -> list[Adapted]:
    """Apply ROOT/dataset.toml to the folders of a tree, in order; raises UserError that says what the trainer would refuse."""
    folders, path = list(folders), root / PROJECT_FILE
    if not path.is_file():
        return [Adapted(folder) for folder in folders]
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path} is not valid TOML: {error}; mend that line, or run `prep build` again") from None
    faults = unknown_keys(str(path), found, [TABLE])
    if faults:
        raise UserError("; ".join(faults))
    settings = load_object(SETTINGS)
    subsets = load_object(READER)(found.get(TABLE, []), settings)
    pairs = load_object(APPLIED)(folders, settings(subsets=subsets))
    own = {folder.path: dict(subset.own) for subset in subsets for folder in folders if subset.is_of(folder)}
    return [Adapted(folder, own.get(folder.path, {})) for folder, _ in pairs]
