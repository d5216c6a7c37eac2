"""`prep new`: start a project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prep.images import find_pictures
from prep.options import PROJECT_FILE, UserError, atomic_write, option
from prep.project import Command, Place

TEMPLATE = """\
# LoRA Atelier project. Every setting of every command can stand here, under its command's name: `prep tag --help`
# lists those of [tag], `train run --help` those of [train].

[project]
name = {name}          # the LoRA file's name
keyword = {keyword}    # the concept word; `prep rare --write` chooses one
class = {class_}       # what the concept is one of
full_name = ""         # the character's own name, to be removed from captions
base = {base}          # pocket, a diffusers folder, or a hub id such as "stable-diffusion-v1-5/stable-diffusion-v1-5"
tagger = {tagger}      # pocket, wd-vit-v3, ..., or a folder

[train]
num_epochs = 10
train_batch_size = 2
learning_rate = 1e-4
"""


@dataclass(frozen=True)
class New(Command):
    """Start a project in ROOT (default: here): write dataset.toml and copy pictures into raw/."""

    name: str = option("", help="Name of the LoRA file; the folder's name if empty.")
    keyword: str = option("", help="The concept word.")
    class_: str = option("1girl", help="What the concept is one of.")
    base: str = option("pocket", help="Base model: pocket, a diffusers folder or a hub id.")
    tagger: str = option("pocket", help="Tagger: a name or a folder.")
    raw: str = option("", help="Folder of pictures to copy into raw/.")

    @classmethod
    def open(cls, root: Path | None) -> Place:
        """A new project's folder may be missing or empty."""
        root = root or Path(".")
        root.mkdir(parents=True, exist_ok=True)
        return Place(root)

    def main(self, place: Place) -> None:
        target = place.root / PROJECT_FILE
        if target.exists():
            raise UserError(f"{target} exists already; edit it, or choose another folder")
        if self.raw and not find_pictures(Path(self.raw), by_content=True):
            raise UserError(f"there are no pictures in {self.raw}; check the path")
        name = self.name or place.root.resolve().name
        raw = place.root / "raw"
        raw.mkdir(exist_ok=True)
        for picture in find_pictures(Path(self.raw), by_content=True) if self.raw else []:
            for file in {picture, picture.with_suffix(".txt"), picture.with_suffix(".caption")}:
                if file.exists() and not (raw / file.name).exists():
                    atomic_write(raw / file.name, file.read_bytes())  # a copy cut off halfway would stay
        values = {"name": name, "keyword": self.keyword, "class_": self.class_, "base": self.base, "tagger": self.tagger}
        atomic_write(target, TEMPLATE.format(**{key: toml_text(value) for key, value in values.items()}))
        print(f"{target} written; put your pictures into {raw} and run `prep run`")


def toml_text(text: str) -> str:
    """Quote a text as a TOML basic string."""
    import tomlkit

    return tomlkit.item(text).as_string()
