"""Make the tree out of folders of pictures that lie elsewhere: links where the disk takes them, copies else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from prep.captions import caption_path
from prep.images import find_pictures
from prep.options import UserError


def make_tree(sources: Sequence[tuple[Path, str]], tree: Path) -> int:
    """Put the pictures of each folder, with their captions, into its place in `tree`; return how many.

    Nothing that is there is replaced, and the folders themselves stay as they are. Raises UserError before anything is written if a
    folder holds no pictures, or a place in the tree is taken.
    """
    found = {}
    for folder, name in sources:
        found[name] = find_pictures(folder) if folder.is_dir() else []
        if not found[name]:
            raise UserError(f"there are no pictures in {folder}; check the path, or import without --tree")
        if (tree / name).exists():
            raise UserError(f"{tree / name} exists already; choose another --tree")
    for name, pictures in found.items():
        (tree / name).mkdir(parents=True)
        for picture in pictures:
            for file in (picture, _caption(picture)):
                if file.exists():
                    _place(file, tree / name / file.name)
    return sum(len(pictures) for pictures in found.values())


def _caption(picture: Path) -> Path:
    """Return a picture's caption file, of the two that are read the one that is there."""
    other = picture.with_suffix(".caption")
    return other if other.exists() and not caption_path(picture).exists() else caption_path(picture)


def _place(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
