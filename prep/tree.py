"""The N_concept folder tree, the contract between prep and train: names, reading, atomic publishing.

tree/img/10_sks 1girl/*.png + *.txt     tree/reg/1_1girl/*.png + *.txt     tree/manifest.json
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.captions import caption_path
from prep.images import READABLE, find_pictures, save
from prep.options import UserError, atomic_write

if TYPE_CHECKING:
    from PIL import Image

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
    raise UserError(_why_unusable(root))


def _why_unusable(root: Path) -> str:
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


def validate(root: Path, keyword: str = "") -> list[Finding]:
    """Say all that would go wrong in training on this tree, in the user's words; an empty list is a good tree."""
    from prep.tree_rules import findings

    recover(root)
    return list(findings(root, keyword))


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


@dataclass(frozen=True)
class PlannedPicture:
    """A picture to be written: its folder in the tree ("img/10_sks 1girl"), stem, pixels on demand, caption, and where it came from."""

    folder: str
    stem: str
    image: Callable[[], Image.Image]
    caption: str
    record: Mapping[str, Any]


@dataclass(frozen=True)
class TreePlan:
    """All that a tree will hold: the pictures, in order, and facts for the head of the manifest (JSON values)."""

    pictures: Iterable[PlannedPicture]
    facts: Mapping[str, Any] = field(default_factory=dict)


def publish(root: Path, plan: TreePlan) -> Path | None:
    """Write the tree beside its place, the manifest last, then swap; killed at any moment, the old tree or the new one is there.

    Pictures whose record is unchanged are copied from the old tree. An old tree that was edited by hand is never deleted: it is
    kept under the path that is returned.
    """
    root = root.resolve()
    recover(root)
    if root.exists() and not (root / MANIFEST).is_file() and any(root.iterdir()):
        raise UserError(f"{root} was not made by `prep build` and would be replaced; move it away, or set another tree folder")
    staged, old = _neighbours(root)
    kept = _retire(root, old)
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    known = read_manifest(root).get("files", {})
    files = dict(_write(planned, root, staged, known) for planned in _distinct(plan.pictures))
    atomic_write(staged / MANIFEST, json.dumps({**plan.facts, "files": files}, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    if root.exists():
        root.rename(old)
    staged.rename(root)
    return _retire(root, old) or kept


def recover(root: Path) -> None:
    """Finish a publish that was killed between its two renames, so that a tree which was there is there again."""
    staged, old = _neighbours(root)
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


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's bytes in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _neighbours(root: Path) -> tuple[Path, Path]:
    root = root.resolve()
    return root.with_name(f".{root.name}.new"), root.with_name(f".{root.name}.old")


def _distinct(pictures: Iterable[PlannedPicture]) -> Iterator[PlannedPicture]:
    """Pass pictures on, but refuse two that would be one file on some file system."""
    taken: set[str] = set()
    for planned in pictures:
        name = same_name(f"{planned.folder}/{planned.stem}")
        if name in taken:
            raise UserError(f"two pictures would become {planned.folder}/{planned.stem}.png; rename one of them")
        taken.add(name)
        yield planned


def _write(planned: PlannedPicture, root: Path, staged: Path, known: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Write a picture and its caption into the staged tree; return the path in the tree and what the manifest says of it."""
    name = f"{planned.folder}/{planned.stem}.png"
    target = staged / name
    target.parent.mkdir(parents=True, exist_ok=True)
    before = known.get(name, {})
    unchanged = before.get("from") == planned.record and (root / name).is_file() and sha256_file(root / name) == before.get("sha256")
    if unchanged:
        shutil.copyfile(root / name, target)
    else:
        save(planned.image(), target)
    text = (planned.caption + "\n").encode("utf-8")
    atomic_write(caption_path(target), text)
    digests = {"sha256": sha256_file(target), "caption_sha256": hashlib.sha256(text).hexdigest()}
    return name, {**digests, "from": dict(planned.record)}


def _retire(root: Path, old: Path) -> Path | None:
    """Delete an old tree if it is as `prep build` wrote it; else keep it beside the new one and return where."""
    if not old.is_dir():
        return None
    if not _edited(old):
        shutil.rmtree(old)
        return None
    number = 1
    while (kept := root.with_name(f"{root.name}-edited-{number}")).exists():
        number += 1
    old.rename(kept)
    return kept


def _edited(tree: Path) -> bool:
    """Say whether a tree holds a picture or caption that is not, byte for byte, the one its manifest describes."""
    expected: dict[str, str] = {}
    for name, record in read_manifest(tree).get("files", {}).items():
        expected |= {name: record.get("sha256", ""), caption_path(Path(name)).as_posix(): record.get("caption_sha256", "")}
    precious = (path for path in tree.rglob("*") if path.suffix.lower() in READABLE | CAPTION_SUFFIXES and path.is_file())
    return any(expected.get(path.relative_to(tree).as_posix()) != sha256_file(path) for path in precious)
