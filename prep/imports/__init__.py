"""Imports: the table of what may lie beside a raw picture and say what it shows, and where the tags from it are kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prep.options import atomic_write, load_object

FOLDER = "imported"  # in a hidden folder: KEY.json = category -> tags, in Danbooru's spelling

Tags = dict[str, list[str]]

# Words by which sites and programs name a category -> ours. Those of Grabber's tokens are all here.
CATEGORIES = {
    "general": "general",
    "character": "character",
    "characters": "character",
    "copyright": "copyright",
    "series": "copyright",
    "parody": "copyright",
    "artist": "artist",
    "circle": "artist",
    "studio": "artist",
    "meta": "meta",
    "metadata": "meta",
    "medium": "meta",
    "model": "character",  # whom a photograph shows
    "species": "general",
    "photo_set": "meta",
    "rating": "rating",
}
RATINGS = {
    "g": "general", "general": "general", "safe": "general", "s": "sensitive", "sensitive": "sensitive",
    "q": "questionable", "questionable": "questionable", "e": "explicit", "explicit": "explicit",
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What lay beside a picture: tags by category, or a person's caption."""

    file: Path
    tags: Mapping[str, list[str]] = field(default_factory=dict)
    caption: str = ""


@dataclass(frozen=True)
class Asked:
    """What a reader is told: what stands between tags ("" = find out), and a metadata file for the whole folder."""

    separator: str = ""
    metadata: Path | None = None


Reader = Callable[[Path, Asked], Found | None]


@dataclass(frozen=True)
class Kind:
    """A kind of import: what it is, and its reader, which takes the raw picture's path."""

    description: str
    reader: str

    def read(self, source: Path, asked: Asked) -> Found | None:
        """Read what lies beside a picture; None if there is nothing of this kind; raises UserError if it cannot be understood."""
        found: Found | None = load_object(self.reader)(source, asked)
        return found


# The first that finds something counts: what says the kinds of its tags goes before what does not, and what was asked for in a
# prompt comes last, because a picture need not show it.
KINDS: dict[str, Kind] = {
    "danbooru": Kind("a post as Danbooru's API gives it, PICTURE.json", "prep.imports.posts:read_danbooru"),
    "gallery-dl": Kind("metadata of gallery-dl, PICTURE.EXT.json", "prep.imports.posts:read_gallery_dl"),
    "kohya": Kind("a metadata file of kohya's scripts in the folder, or --metadata", "prep.imports.kohya:read"),
    "grabber": Kind("a log of Grabber, PICTURE.txt", "prep.imports.grabber:read"),
    "text": Kind("a caption, PICTURE.txt or PICTURE.caption", "prep.imports.text:read"),
    "parameters": Kind("the prompt that a generated picture holds", "prep.imports.parameters:read"),
}


def beside(source: Path, *suffixes: str) -> list[Path]:
    """List the files that belong to a picture by name: STEM.SUFFIX and STEM.EXT.SUFFIX, for each suffix such as ".json"."""
    names = [name for suffix in suffixes for name in (source.with_suffix(suffix), source.with_name(source.name + suffix))]
    return [path for path in names if path.is_file()]


def underscored(tag: str) -> str:
    """Write a tag as Danbooru does; an escaped bracket is a bracket."""
    return "_".join(tag.replace("\\(", "(").replace("\\)", ")").split())


def tidy(tags: Mapping[str, list[str]]) -> Tags:
    """Bring tags into Danbooru's spelling, each once, without commas and empty ones."""
    found: Tags = {}
    for category, names in tags.items():
        spelled = dict.fromkeys(underscored(name.replace(",", " ")) for name in names)
        if kept := [name for name in spelled if name]:
            found[category] = kept
    return found


def keep(hidden: Path, key: str, tags: Mapping[str, list[str]]) -> None:
    """Keep a picture's imported tags in its folder's hidden one; without tags what was kept goes."""
    path = hidden / FOLDER / f"{key}.json"
    text = json.dumps(tags, indent=1, ensure_ascii=False) + "\n"
    if not tags:
        path.unlink(missing_ok=True)
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        atomic_write(path, text)


def any_kept(hidden: Path) -> bool:
    """Say whether any picture of the folder has imported tags."""
    return os.path.isdir(hidden / FOLDER) and any(name.endswith(".json") for name in os.listdir(hidden / FOLDER))


def kept(hidden: Path, key: str) -> Tags:
    """Return a picture's imported tags, category -> tags."""
    try:
        with open(f"{hidden}/{FOLDER}/{key}.json", "rb") as file:
            tags: Tags = json.loads(file.read())
            return tags
    except FileNotFoundError:
        return {}
