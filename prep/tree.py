"""The N_concept folder tree, the contract between prep and train: names and reading; prep.publish writes it.

tree/img/10_sks 1girl/*.png + *.txt     tree/reg/1_1girl/*.png + *.txt     tree/manifest.json
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.images import find_pictures
from prep.options import UserError

if TYPE_CHECKING:
    from prep.tree_rules import Finding

MANIFEST = "manifest.json"
CAPTION_SUFFIXES = frozenset({".txt", ".caption"})
SIDES = ("img", "reg")  # pictures of the concept, pictures of its class

_NAME = re.compile(r"([0-9]+)_(.*)", re.DOTALL)
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]+')  # what Windows refuses in a file name


def parse_folder_name(name: str) -> tuple[int, str] | None:
    """Read "10_sks 1girl" as (10, "sks 1girl"); None if it is not N_concept with N >= 1, which trainers pass over."""
    match = _NAME.fullmatch(name)
    if not match:
        return None
    repeats, concept = int(match[1]), match[2].strip()
    return (repeats, concept) if repeats >= 1 and concept else None


def folder_name(repeats: int, concept: str) -> str:
    """Write N_concept so that every file system takes it; characters that Windows refuses become spaces."""
    safe = " ".join(_UNSAFE.sub(" ", unicodedata.normalize("NFC", concept)).split())
    while len(safe.encode("utf-8", "replace")) > 200:  # 255 bytes is the usual limit
        safe = safe[:-1]
    safe = safe.strip(" .")  # Windows drops them from the end
    if repeats < 1 or not safe:
        raise UserError(f"{repeats}_{concept!r} cannot name a folder; give at least 1 repeat and a concept of letters")
    return f"{repeats}_{safe}"


def same_name(name: str) -> str:
    """Fold a file name as case-insensitive and Unicode-normalising file systems do: equal results would be one file."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


@dataclass(frozen=True)
class Folder:
    """One usable N_concept folder; `pictures` are sorted, `is_reg` says on which side it lies."""

    path: Path
    repeats: int
    concept: str
    is_reg: bool
    pictures: tuple[Path, ...]

    @property
    def samples(self) -> int:
        return self.repeats * len(self.pictures)


def subfolders(side: Path) -> list[Path]:
    """List the visible folders in a folder, sorted by name; none if it does not exist."""
    return sorted((path for path in side.glob("[!.]*") if path.is_dir()), key=lambda path: path.name)


def _folders(root: Path) -> Iterator[Folder]:
    for side in SIDES:
        for path in subfolders(root / side):
            parsed = parse_folder_name(path.name)
            pictures = tuple(find_pictures(path)) if parsed else ()
            if parsed and pictures:
                yield Folder(path, *parsed, side == "reg", pictures)


def read_tree(root: Path) -> list[Folder]:
    """Read the folders that hold pictures, img before reg, by name; raises UserError if none of the concept is usable."""
    recover(root)
    folders = list(_folders(root))
    if any(not folder.is_reg for folder in folders):
        return folders
    raise UserError(why_unusable(root))


def why_unusable(root: Path) -> str:
    """Guess which common slip made a tree unreadable, and say what to do."""
    if not root.is_dir():
        return f"there is no tree {root}; `prep build` makes it"
    place = root.resolve()
    for side in (place, place.parent):  # the folder of pictures itself was named, or the one above it
        if side.name in SIDES:
            return f"{root} is inside a tree; give the folder that holds {side.name}, {side.parent}"
    if any(parse_folder_name(path.name) for path in subfolders(root)):
        return f"{root} holds N_concept folders directly; move them into {root / 'img'}"
    return f"{root} holds no img/N_concept folder with pictures, such as img/10_sks 1girl; `prep check` says what is amiss"


def validate(root: Path, keyword: str = "", wildcard: bool = False) -> list[Finding]:
    """Say all that would go wrong in training on this tree, in the user's words; an empty list is a good tree.

    A tree of several concepts says in its manifest which folder has which keyword; else `keyword` is meant everywhere. With `wildcard`
    (enable_wildcard of the trainer) every line of a caption counts.
    """
    from prep.tree_rules import findings

    recover(root)
    known = read_manifest(root).get("keywords", {})
    several = isinstance(known, dict) and len(set(known.values())) > 1
    return list(findings(root, keyword, known if several else {}, wildcard))


def regularization_use(folders: Iterable[Folder]) -> tuple[int, int, int]:
    """Count training samples, regularization samples used by sd-scripts, and regularization pictures it never uses.

    sd-scripts takes the pictures in path order, each with its folder's repeats, until it has as many samples as there are training
    samples; the alphabetical tail is never seen. With too few, repeats are raised until the numbers are equal.
    """
    folders = list(folders)
    wanted = sum(folder.samples for folder in folders if not folder.is_reg)
    repeats = [folder.repeats for folder in folders if folder.is_reg for _ in folder.pictures]
    used = taken = 0
    while taken < len(repeats) and used < wanted:
        used += repeats[taken]
        taken += 1
    return wanted, max(used, wanted) if repeats else 0, len(repeats) - taken


def recover(root: Path) -> None:
    """Finish a publish that was killed between its two renames, so that a tree which was there is there again."""
    staged, old = neighbours(root)
    if root.exists():
        return
    if (staged / MANIFEST).is_file():  # written last: the staged tree is whole
        staged.rename(root)
    elif old.is_dir():
        old.rename(root)


def read_manifest(root: Path) -> dict[str, Any]:
    """Read ROOT/manifest.json; empty if there is none or it was broken by hand."""
    try:
        found = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("files", {}), dict) else {}


def neighbours(root: Path) -> tuple[Path, Path]:
    """Return where a tree is written before it takes its place, and where the one before it goes."""
    root = root.resolve()
    return root.with_name(f".{root.name}.new"), root.with_name(f".{root.name}.old")
