"""Loaders: what each trainer takes from a tree, how often in an epoch, and what it passes over, by the trainer's own rules.

Sources: library/config_util.py and train_util.py of kohya-ss/sd-scripts (DreamBoothDataset); dreambooth/utils/image_utils.py and
dreambooth/dataset/db_dataset.py of d8ahazard/sd_dreambooth_extension; train.dataset.SamplePlan of this project.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prep.kinds import READABLE
from prep.options import load_object
from prep.tree import SIDES, Folder, parse_folder_name, subfolders

Size = tuple[int, int]
BucketOf = Callable[[Path], Size]  # picture -> bucket

# File endings that sd-scripts looks for, capitals as written; AVIF and JPEG XL only with further packages.
SD_SCRIPTS_SUFFIXES = frozenset(form for suffix in (".png", ".jpg", ".jpeg", ".webp", ".bmp") for form in (suffix, suffix.upper()))
RATIOS = ((16, 9), (5, 4), (4, 3), (3, 2), (2, 1), (1, 1))  # of sd_dreambooth's buckets


@dataclass(frozen=True)
class Reading:
    """What one trainer takes from a tree: the folders, how often an epoch shows each picture, and what it passes over and why."""

    folders: tuple[Folder, ...]
    shown: Mapping[Path, int]
    steps: int  # an epoch
    how: str  # the sum that gives the steps
    ignored: tuple[tuple[Path, str], ...] = ()

    def samples(self, is_reg: bool) -> int:
        """Count what an epoch shows of the concept's pictures, or of its class's."""
        return sum(self.shown.get(picture, 0) for folder in self.folders if folder.is_reg is is_reg for picture in folder.pictures)

    @property
    def unused(self) -> int:
        """Count the regularization pictures that no epoch shows."""
        return sum(picture not in self.shown for folder in self.folders if folder.is_reg for picture in folder.pictures)


def read_as_sd_scripts(root: Path, bucket_of: BucketOf, batch_size: int) -> Reading:
    """Read a tree as `train_network.py --train_data_dir img --reg_data_dir reg --caption_extension .txt` does."""
    folders, ignored = [], list(_loose(root))
    for side, path in _sides(root):
        repeats, concept = _int_name(path.name)
        pictures = tuple(sorted((file for file in _files(path) if file.suffix in SD_SCRIPTS_SUFFIXES), key=str))
        if repeats < 1:
            ignored.append((path, "its name does not begin with a number from 1 on and an underscore"))
        elif pictures:
            folders.append(Folder(path, repeats, concept, side == "reg", pictures))
        ignored += [(file, "its ending is not among those looked for") for file in _files(path) if _other(file)]
        ignored += [(inner, "folders in folders are not read") for inner in subfolders(path) if _holds_pictures(inner)]
    shown = Counter({picture: folder.repeats for folder in folders if not folder.is_reg for picture in folder.pictures})
    shown += registered([folder for folder in folders if folder.is_reg], shown.total())
    return Reading(tuple(folders), shown, *_steps(shown, bucket_of, batch_size), tuple(ignored))


def registered(reg: Sequence[Folder], wanted: int) -> Counter[Path]:
    """Give regularization pictures their repeats: in order until there are as many samples as wanted, then one more each, in order again."""
    shown: Counter[Path] = Counter()
    pictures = [(picture, folder.repeats) for folder in reg for picture in folder.pictures]
    used = 0
    for picture, repeats in pictures:
        if used >= wanted:
            break
        shown[picture] = repeats
        used += repeats
    missing = max(0, wanted - used) if pictures else 0
    for index, (picture, _) in enumerate(pictures):
        shown[picture] += missing // len(pictures) + (index < missing % len(pictures))
    return +shown


def read_as_ours(folders: Sequence[Folder], root: Path, bucket_of: BucketOf, config: Any) -> Reading:
    """Read a tree as `train run` does; `config` is its TrainConfig."""
    picture_type, fit_type, plan_type = (load_object(row) for row in ("train.dataset:Picture", "train.buckets:Fit", "train.dataset:SamplePlan"))
    files = [(picture, folder) for folder in folders for picture in folder.pictures]
    made = [picture_type(path, "", fit_type(bucket_of(path), (0, 0), 0.0), "", folder) for path, folder in files]
    plan = plan_type.make(made, config)
    batches = plan.batches(0)
    shown = Counter(files[index][0] for batch in batches for index in batch)
    ignored = [*_loose(root), *((path, "it is not named N_concept") for _, path in _sides(root) if not parse_folder_name(path.name))]
    how = f"{shown.total()} samples in {len({made[batch[0]].bucket for batch in batches})} buckets, {config.data.train_batch_size} at once"
    return Reading(tuple(folders), shown, len(batches), how, tuple(ignored))


def read_as_dreambooth(root: Path, side: int, batch_size: int) -> Reading:
    """Read a tree as sd_dreambooth_extension does if img/N_concept are its instance folders and the first in reg its class folder.

    Names mean nothing to it: each picture is shown once, and beside it a random one of the class if its bucket has any.
    """
    img, reg = (tuple(_deep(path, path.parent.name == "reg") for where, path in _sides(root) if where == name) for name in SIDES)
    buckets = _dreambooth_buckets(side)
    classes = Counter(_closest(picture, buckets) for folder in reg[:1] for picture in folder.pictures)
    shown = Counter({picture: 1 for folder in img for picture in folder.pictures})
    pairs = sum(_closest(picture, buckets) in classes for picture in shown)
    ignored = [(folder.path, "one concept has one class folder, and it is not the first") for folder in reg[1:]]
    total = shown.total() + pairs
    for number, picture in enumerate(picture for folder in reg[:1] for picture in folder.pictures):
        if number < pairs:
            shown[picture] += 1 + (pairs - number - 1) // len(reg[0].pictures)  # drawn at random: so many on average
    how = f"{total} samples ({total - pairs} pictures once, {pairs} of the class), {batch_size} at once, whole batches only"
    return Reading((*img, *reg[:1]), shown, total // batch_size, how, (*_loose(root), *ignored))


def _steps(shown: Mapping[Path, int], bucket_of: BucketOf, batch_size: int) -> tuple[int, str]:
    """Count batches bucket by bucket, each bucket's last one perhaps short; return the number and the sum in words."""
    buckets: Counter[Size] = Counter()
    for picture, times in shown.items():
        buckets[bucket_of(picture)] += times
    steps = sum(math.ceil(number / batch_size) for number in buckets.values())
    return steps, f"{sum(buckets.values())} samples in {len(buckets)} buckets, {batch_size} at once"


def _dreambooth_buckets(side: int) -> list[Size]:
    """List sd_dreambooth's buckets: six ratios, both ways round, of about the area of the square, sides in steps of 8."""
    step = 8
    sides = [(int(side * math.sqrt(w / h) // step) * step, int(side * math.sqrt(h / w) // step) * step) for w, h in RATIOS]
    return sorted({form for size in sides for form in (size, size[::-1])})


def _closest(picture: Path, buckets: Sequence[Size]) -> Size:
    width, height = picture_size(picture)
    return min(buckets, key=lambda size: abs(size[0] / size[1] - width / height))


def picture_size(picture: Path) -> Size:
    """Return width and height from a picture's header; (1, 1) for one that cannot be read, which is another finding's matter."""
    from PIL import Image

    try:
        with Image.open(picture) as image:
            return image.size
    except Exception:  # a decoder raises anything on damaged data
        return 1, 1


def _int_name(name: str) -> tuple[int, str]:
    """Read N_concept as Python's int does, which also takes +3 and digits of other scripts; 0 if there is no number."""
    head, _, concept = name.partition("_")
    try:
        return int(head), concept
    except ValueError:
        return 0, concept


def _sides(root: Path) -> Iterator[tuple[str, Path]]:
    yield from ((side, path) for side in SIDES for path in subfolders(root / side))


def _files(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("[!.]*") if path.is_file()), key=lambda path: path.name)


def _other(file: Path) -> bool:
    return file.suffix.lower() in READABLE and file.suffix not in SD_SCRIPTS_SUFFIXES


def _loose(root: Path) -> Iterator[tuple[Path, str]]:
    for folder in (root, *(root / side for side in SIDES)):
        if folder.is_dir():
            yield from ((file, "it lies in no N_concept folder") for file in _files(folder) if file.suffix.lower() in READABLE)


def _holds_pictures(folder: Path) -> bool:
    return any(Path(name).suffix.lower() in READABLE for _, _, names in os.walk(folder) for name in names)


def _deep(folder: Path, is_reg: bool) -> Folder:
    """Read a folder with all folders in it, each picture once."""
    pictures = tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in READABLE and path.is_file()))
    return Folder(folder, 1, folder.name, is_reg, pictures)
