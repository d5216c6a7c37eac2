"""Stock: class pictures that were drawn once and serve every project, a folder in the user's cache with one file for each recipe."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prep.digests import sha256_file
from prep.options import UserError, load_object, option
from prep.project import Command, Place
from prep.swap import link

Recipe = Mapping[str, Any]  # all that a picture depends on: base, prompt, seed, size and settings, as JSON values
EMBEDDED = "train.families:EMBEDDED"  # name -> "module:PATH" of base models that come with the project; prep does not know train
MOST = 40  # rows that `prep stock` prints


def cache_folder() -> Path:
    """Return the user's cache folder of this project; $LORA_ATELIER_CACHE overrules the system's place for such things."""
    own = os.environ.get("LORA_ATELIER_CACHE")
    if own:
        return Path(own)
    home = Path.home()
    places = {"win32": home / "AppData/Local", "darwin": home / "Library/Caches"}
    return Path(os.environ.get("XDG_CACHE_HOME") or places.get(sys.platform, home / ".cache")) / "lora-atelier"


@dataclass(frozen=True)
class Shelf:
    """The stock's folder: XX/HASH.png with its recipe in XX/HASH.json, written last; both may be deleted at any time."""

    folder: Path

    @classmethod
    def open(cls) -> Shelf:
        return cls(cache_folder() / "stock")

    def _picture(self, recipe: Recipe) -> Path:
        name = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}.png"

    def has(self, recipe: Recipe) -> bool:
        """Tell whether there seems to be a picture of a recipe."""
        return self._picture(recipe).with_suffix(".json").exists()

    def take(self, recipe: Recipe, target: Path) -> bool:
        """Link the picture of a recipe to `target`, or copy it; False if there is none, or it is not as it was put here."""
        picture = self._picture(recipe)
        try:
            known = json.loads(picture.with_suffix(".json").read_bytes())
            if known["sha256"] != sha256_file(picture):
                raise ValueError("edited in the folder of some project, whose file it is too")
        except (OSError, ValueError, KeyError, TypeError):
            _remove(picture)
            return False
        place_at(picture, target)
        return True

    def put(self, recipe: Recipe, source: Path) -> None:
        """Keep a picture that was drawn by a recipe; a full disk or a cache that cannot be written is no fault of the project's."""
        picture = self._picture(recipe)
        try:
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.with_suffix(".json").unlink(missing_ok=True)
            place_at(source, picture)
            text = json.dumps({**recipe, "sha256": sha256_file(picture)}, ensure_ascii=False) + "\n"
            picture.with_suffix(".json").write_text(text, encoding="utf-8")  # half a recipe is none, so this need not be done with care
        except OSError:
            _remove(picture)

    def recipes(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield each picture with its recipe, in no order; what is damaged is passed over."""
        for path in self.folder.glob("??/*.json"):
            try:
                recipe = dict(json.loads(path.read_bytes()))
            except (OSError, ValueError, TypeError):
                continue
            if path.with_suffix(".png").is_file():
                yield path.with_suffix(".png"), recipe


def _remove(picture: Path) -> None:
    """Delete a picture and its recipe, the recipe first; what cannot be deleted stays."""
    for path in (picture.with_suffix(".json"), picture):
        with suppress(OSError):
            path.unlink()


def place_at(source: Path, target: Path) -> None:
    """Put a picture at another place, whole or not at all: as a hard link, or as a copy where the file system has none."""
    beside = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    beside.unlink(missing_ok=True)
    try:
        if not link(source, beside):
            shutil.copyfile(source, beside)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)  # two names of one file: replacing one by the other leaves both


def local_base(base: str) -> Path | None:
    """Return where a base model lies if it is on this disk; None for a hub id, which is not fetched for the asking."""
    embedded = load_object(EMBEDDED)
    path = Path(load_object(embedded[base])) if base in embedded else Path(base).expanduser()
    return path if base and path.exists() else None


def base_identity(base: str) -> str:
    """Say which base model a name means now: a hub id as it is, a folder or file by the names, sizes and times of its files."""
    path = local_base(base)
    if path is None:
        return base
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    facts = [(file.relative_to(path).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return f"{base}@{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Stock(Command):
    """List the class pictures that `prep regularize` keeps for all projects, or remove some; projects keep theirs."""

    remove: str = option("", help="Remove the pictures of this prompt; * stands for any letters, so '*' empties the stock.")

    @classmethod
    def open(cls, root: Path | None) -> Place:
        """The stock belongs to no project."""
        return Place(root or Path("."))

    def main(self, place: Place) -> None:
        shelf = Shelf.open()
        rows = list(shelf.recipes())
        if self.remove:
            gone = [path for path, recipe in rows if fnmatch.fnmatchcase(str(recipe.get("prompt")), self.remove.replace("[", "[[]"))]
            if not gone:
                raise UserError(f"no picture in {shelf.folder} has the prompt {self.remove!r}; `prep stock` lists those there are")
            for path in gone:
                _remove(path)
            print(f"{len(gone)} pictures removed from {shelf.folder}; projects that use them keep them")
            return
        counts = Counter((str(recipe.get("base")).partition("@")[0], str(recipe.get("prompt"))) for _, recipe in rows)
        for (base, prompt), number in counts.most_common(MOST):
            print(f"{number:6}  {base}  {prompt}")
        if len(counts) > MOST:
            print(f"   and {len(counts) - MOST} more prompts")
        size = sum(path.stat().st_size for path, _ in rows)
        print(f"{len(rows)} pictures, {size / 2**20:.0f} MiB, in {shelf.folder}")
