"""Where a command works (a project or a bare folder) and what every command is: a settings dataclass with `main`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import click

from prep.options import PROJECT_FILE, UserError, build, given_values, option, parameters, read_settings, settings_of, unknown_keys

TABLES = (
    "project",
    "clean",
    "import",
    "dedup",
    "marks",
    "subject",
    "identity",
    "crop",
    "tag",
    "recheck",
    "describe",
    "caption",
    "stats",
    "keyword",
    "rare",
    "tokens",
    "regularize",
    "stock",
    "build",
    "check",
    "export",
    "review",
    "train",
)


@dataclass(frozen=True)
class ProjectSettings:
    """The [project] table of dataset.toml: the facts that several commands need."""

    name: str = option("", help="Name of the LoRA file; the keyword if empty.")
    keyword: str = option("", help="The concept word, first in every caption; `prep rare` proposes some.")
    class_: str = option("", help="What the concept is one of, such as 'man' or '1girl, solo'.")
    full_name: str = option("", help="The character's own name, removed from captions.")
    base: str = option("pocket", help="Base model: pocket, a diffusers folder or a hub id.")
    tagger: str = option("pocket", help="Tagger: a name that `prep tag --help` lists, or a folder.")
    raw: str = option("raw", help="Folder of raw pictures, never changed.")
    work: str = option("work", help="Folder of cleaned pictures and captions.")
    reg: str = option("reg", help="Folder of regularization pictures.")
    tree: str = option("tree", help="Folder of the tree that the trainer reads.")


@dataclass(frozen=True)
class Place:
    """The folder a command works in: a project (it holds dataset.toml) or a bare folder of pictures."""

    root: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_project: bool = False

    @classmethod
    def open(cls, root: Path | None) -> Place:
        """Find out what `root` is; without one it must be a project in the current folder."""
        if root is not None and not root.is_dir():
            raise UserError(f"there is no folder {root}; check the path")
        if root is not None and not (root / PROJECT_FILE).exists():
            return cls(root)
        root = root or Path(".")
        settings = read_settings(root)
        _check_tables(settings)
        return cls(root, settings, True)

    def need_project(self, command: str) -> None:
        """Raise UserError unless this is a project."""
        if not self.is_project:
            raise UserError(f"`prep {command}` works on a project, and {self.root} holds no {PROJECT_FILE}; start one with `prep new`")

    @property
    def project(self) -> ProjectSettings:
        return build(ProjectSettings, [("[project]", self.settings.get("project", {}))])

    @property
    def raw(self) -> Path:
        return self.root / self.project.raw

    @property
    def work(self) -> Path:
        """The folder whose pictures the middle steps work on: work/ in a project, the folder itself else."""
        return self.root / self.project.work if self.is_project else self.root

    @property
    def reg(self) -> Path:
        return self.root / self.project.reg

    @property
    def tree(self) -> Path:
        return self.root / self.project.tree


def _check_tables(settings: Mapping[str, Any]) -> None:
    faults = unknown_keys(PROJECT_FILE, settings, TABLES)
    faults += [f"{PROJECT_FILE}: {name} must be a table [{name}]" for name, value in settings.items() if not isinstance(value, dict)]
    if isinstance(settings.get("project"), dict):
        faults += unknown_keys("[project]", settings["project"], [s.key for s in settings_of(ProjectSettings)])
    if faults:
        raise UserError("; ".join(faults))


class Command:
    """A row of the `prep` group: a frozen dataclass whose fields are its options and whose docstring is its help."""

    def ready(self, place: Place) -> None:
        """Raise UserError for what is sure to be missing, so that a chain says it before hours of work and not after."""

    def main(self, place: Place) -> None:
        """Do the whole job of the command in `place`."""
        raise UserError(f"{type(self).__name__} cannot be run by itself")

    @classmethod
    def open(cls, root: Path | None) -> Place:
        """Find the place that the command is to work in."""
        return Place.open(root)

    @classmethod
    def table(cls) -> str:
        return cls.__name__.lower()

    @classmethod
    def configured(cls, place: Place, given: Mapping[str, Any] | None = None) -> Self:
        """Fill the fields: defaults, then [project], then the command's own table, then what was typed."""
        own = place.settings.get(cls.table(), {})
        faults = unknown_keys(f"[{cls.table()}]", own, [s.key for s in settings_of(cls)])
        shared = {k: v for k, v in place.settings.get("project", {}).items() if v != ""}
        try:
            made = build(cls, [("[project]", shared), (f"[{cls.table()}]", own)], given)
        except UserError as error:
            faults.append(str(error))
        if faults:
            raise UserError("; ".join(faults))
        return made

    @classmethod
    def command(cls, name: str) -> click.Command:
        """Make the Click command: [ROOT] and one option per field."""
        root = click.Argument(["root"], required=False, type=click.Path(path_type=Path))

        def callback(root: Path | None, **_: Any) -> None:
            place = cls.open(root)
            cls.configured(place, given_values(click.get_current_context(), cls)).main(place)

        return click.Command(name, params=[root, *parameters(cls)], callback=callback, help=cls.__doc__)
