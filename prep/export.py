"""Export: write the checked tree as another trainer's data set."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from prep.exports import EXPORTS, Source, exporter
from prep.options import UserError, given_values, load_object, option
from prep.project import Command, Place
from prep.subsets import adapted
from prep.tree import read_manifest, read_tree

MADE_BY = ".lora-atelier"  # marks a folder that an export may replace
TRAIN_SETTINGS = "train.config:TrainConfig"  # by name: prep does not know train


@dataclass(frozen=True)
class Export(Command):
    """Write the tree as another trainer's data set: its own configuration file, with the pictures linked where it wants them elsewhere."""

    out: str = option("", help="Folder to write to (default: export/FORMAT in the project).")
    name: str = option("", help="Name of the LoRA, where the format has a place for it.")

    def write(self, place: Place, kind: str) -> None:
        """Write one format; what an earlier export left is replaced, and nothing else."""
        place.need_project("export")
        project = place.project
        own = adapted(place.tree, read_tree(place.tree))
        folders = tuple(one.folder for one in own)
        train = load_object(TRAIN_SETTINGS).load(place.settings, {}).flat()
        facts = read_manifest(place.tree)
        source = Source(
            folders,
            keyword=facts.get("keyword", project.keyword),
            class_=facts.get("class", project.class_),
            name=self.name or project.name or project.keyword or "lora",
            settings=train,
            own={one.folder.path: one.own for one in own},
        )
        out = Path(self.out) if self.out else place.root / "export" / kind
        _empty(out)
        exporter(kind)(source, out)
        pictures = sum(len(folder.pictures) for folder in folders)
        click.echo(f"{out}: {EXPORTS[kind].description}, {pictures} pictures in {len(folders)} folders")

    @classmethod
    def command(cls, name: str) -> click.Command:
        """Make the command with the format as its first argument."""
        command = super().command(name)
        command.params.insert(0, click.Argument(["kind"], metavar="FORMAT", type=click.Choice(list(EXPORTS))))
        rows = "\n".join(f"  {kind}: {row.description}" for kind, row in EXPORTS.items())
        command.help = f"{cls.__doc__}\n\n\b\nFormats:\n{rows}"

        def callback(kind: str, root: Path | None, **_: Any) -> None:
            place = cls.open(root)
            cls.configured(place, given_values(click.get_current_context(), cls)).write(place, kind)

        command.callback = callback
        return command


def _empty(out: Path) -> None:
    """Make the folder, empty; raises UserError if it holds what no export wrote."""
    if out.exists() and any(out.iterdir()):
        if not (out / MADE_BY).is_file():
            raise UserError(f"{out} holds files that no export wrote and would be replaced; give another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MADE_BY).write_text("`prep export` replaces this folder when it is run again.\n", encoding="utf-8")
