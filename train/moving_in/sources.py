"""Where the pictures are: sd-scripts' folders of folders or a data set's subsets, and what of the tree they become."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prep.images import find_pictures
from prep.options import UserError, atomic_write, settings_of
from prep.tree import folder_name, parse_folder_name
from train.config import DataConfig
from train.moving_in.arguments import NEEDLESS, SAME, UNSUPPORTED
from train.moving_in.moved import Moved, Source, as_bool, number
from train.subsets import OWN

SIDES = {"train_data_dir": "img", "reg_data_dir": "reg"}
READ = (".txt", ".caption")


def turn_sources(arguments: dict[str, Any], subsets: list[dict[str, Any]], root: Path, moved: Moved) -> int:
    """Take the folders out of the arguments; returns the samples of an epoch, 0 where a folder is not there."""
    extension = _extension(arguments, moved)
    counts: list[tuple[bool, int]] = []
    for name, side in SIDES.items():
        if name in arguments:
            value = arguments.pop(name)
            counts += _folders(name, value, side, (root, extension), moved) if value else [(side == "reg", 0)]
            if not value:
                moved.needless(name, value, "it asks for nothing")
    repeats = arguments.pop("dataset_repeats", None)
    if repeats is not None:
        moved.unsupported("dataset_repeats", repeats, "num_repeats of a folder says it")
    for subset in subsets:
        counts.append(_subset(subset, (root, extension), moved))
    pictures = sum(count for is_reg, count in counts if not is_reg)
    known = bool(pictures) and all(count for _, count in counts)
    return (2 if any(is_reg for is_reg, _ in counts) else 1) * pictures if known else 0


def _extension(arguments: dict[str, Any], moved: Moved) -> str:
    if "caption_extension" not in arguments:
        return ".caption"  # sd-scripts' default
    value = str(arguments.pop("caption_extension") or ".caption")
    value = value if value.startswith(".") else f".{value}"
    moved.needless(
        "caption_extension", value, "captions are .txt or .caption" + ("" if value in READ else "; files of this ending are taken as such")
    )
    return value


def _folders(name: str, value: Any, side: str, place: tuple[Path, str], moved: Moved) -> list[tuple[bool, int]]:
    """Take a folder of N_concept folders."""
    root, extension = place
    folder = root / str(value)
    found = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    usable = [(path, parsed) for path in found if (parsed := parse_folder_name(path.name))]
    if not usable:
        moved.set(name, value, {"tree": "tree"}, f"its N_concept folders were not found: put them into tree/{side}")
        return [(side == "reg", 0)]
    moved.set(name, value, {"tree": "tree"}, f"{len(usable)} folders of it are tree/{side}")
    moved.sources += [Source(path, f"{side}/{path.name}", extension) for path, _ in usable]
    return [(side == "reg", repeats * len(find_pictures(path))) for path, (repeats, _) in usable]


def _subset(subset: dict[str, Any], place: tuple[Path, str], moved: Moved) -> tuple[bool, int]:
    """Take a subset of a dataset TOML: a folder of the tree, with settings of its own."""
    root, extension = place
    own = {setting.key: setting for setting in settings_of(DataConfig) if setting.key in OWN}
    folder, is_reg = root / str(subset.pop("image_dir", "")), as_bool(subset.pop("is_reg", False))
    repeats = int(number("num_repeats", subset.pop("num_repeats", subset.pop("dataset_repeats", 1)), 1))
    words, side = str(subset.pop("class_tokens", "") or folder.name), "reg" if is_reg else "img"
    try:
        target = f"{side}/{folder_name(max(1, repeats), words)}"
    except UserError:
        target = f"{side}/{max(1, repeats)}_concept"
    while any(source.folder == target and source.path != folder for source in moved.sources):
        target += " 2"
    moved.sources.append(Source(folder, target, str(subset.pop("caption_extension", extension))))
    where = f"subset {folder.name}"
    moved.set(f"{where}: image_dir", str(folder), {"tree": "tree"}, f"it is {target} there; is_reg, num_repeats and class_tokens are in the name")
    table: dict[str, Any] = {}
    for name, value in subset.items():
        key = SAME.get(name, "")
        if key in own:
            table[key] = as_bool(value) if own[key].type is bool else own[key].read(value)
            moved.set(f"{where}: {name}", value, {}, f"[[subset]] {key}")
        elif name in NEEDLESS:
            moved.needless(f"{where}: {name}", value, NEEDLESS[name])
        else:
            moved.unsupported(f"{where}: {name}", value, UNSUPPORTED.get(name, "a folder has no such setting of its own here"))
    if table:
        moved.subsets.append({"image_dir": target, **table})
    return is_reg, repeats * len(find_pictures(folder))


def link(sources: list[Source], tree: Path) -> int:
    """Put the pictures and captions into the tree as hard links, or copies where that cannot be; returns how many pictures there are."""
    count = 0
    for source in sources:
        target = tree / source.folder
        target.mkdir(parents=True, exist_ok=True)
        for picture in find_pictures(source.path):
            pairs = [(picture, target / picture.name)]
            endings = dict.fromkeys((source.caption_extension, *READ))
            caption = next((picture.with_suffix(ending) for ending in endings if ending and picture.with_suffix(ending).is_file()), None)
            if caption:
                pairs.append((caption, target / f"{picture.stem}{caption.suffix if caption.suffix in READ else '.txt'}"))
            for old, new in pairs:
                if not new.exists():
                    _link(old, new)
            count += 1
    return count


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError:  # another disk, or a file system without links
        atomic_write(new, old.read_bytes())
