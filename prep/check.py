"""Check: read the tree as trainers do, say what would go wrong, and do the sum of steps beforehand."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from prep.captions import read_by_training, read_caption
from prep.clip_bpe import LENGTHS, count
from prep.loaders import Reading, Size, picture_size, read_as_dreambooth, read_as_ours, read_as_sd_scripts
from prep.options import PROJECT_FILE, UserError, load_object, option
from prep.project import Command, Place
from prep.stock import local_base
from prep.subsets import Adapted, adapted, is_of_a_tree
from prep.tree import Folder, read_manifest, read_tree, validate
from prep.tree_rules import Finding

TRAINERS = {"ours": "train run", "sd_scripts": "sd-scripts", "sd_dreambooth": "sd_dreambooth"}
CONFIG = "train.config:TrainConfig"  # by name, as everything of train's
BUCKET_RULE = "train.dataset:bucket_rule"
MOST = 10  # files that are named for one finding
COMMON = 512  # pixels: what a base is taken to be trained at if it cannot be asked here


@dataclass(frozen=True)
class Check(Command):
    """Check a tree as trainers read it, and print how many steps it gives; exit code 1 if there are errors."""

    keyword: str = option("", "-k", help="The concept word; it must be in every image caption and in no regularization caption.")
    json: bool = option(False, help="Print the findings as JSON.")

    @classmethod
    def open(cls, root: Path | None) -> Place:
        """The dataset.toml of a tree is no project's."""
        return Place(root) if root and is_of_a_tree(root / PROJECT_FILE) else Place.open(root)

    def main(self, place: Place) -> None:
        root = tree_of(place)
        read, config = _folders(root), _config(place)
        own, faults = _adapted(root, read)
        folders = [one.folder for one in own]
        wildcard = config.data.enable_wildcard or any(one.own.get("enable_wildcard") for one in own)
        found = validate(root, self.keyword or str(read_manifest(root).get("keyword", "")), wildcard)
        found += [*faults, *other_repeats(read, folders)]
        errors = [finding for finding in found if finding.level == "error"]
        found += list(_too_short(root, folders, config.model.max_token_length, wildcard))
        bucket_of = _bucket_of(config, _resolution(place, config))
        readings = _readings(root, folders, config, bucket_of) if folders else {}
        if self.json:
            rows = [{"level": f.level, "path": _shown(f.path, root), "message": f.message} for f in found]
            sums = {name: _sums(reading, config.data.num_epochs, root) for name, reading in readings.items()}
            facts = {"tree": str(root), "findings": rows, "steps": sums, **(_tables(readings["ours"], bucket_of, own) if readings else {})}
            print(json.dumps(facts, indent=1, ensure_ascii=False))
        else:
            show(root, found)
            if readings:
                show_sums(root, readings, config.data.num_epochs)
                show_tables(_tables(readings["ours"], bucket_of, own))
        if errors:
            raise UserError(f"{root} has {len(errors)} error{'s' * (len(errors) > 1)}; mend what is named above, then run `prep check` again")


def tree_of(place: Place) -> Path:
    """Return the tree that is meant: the project's, or the folder itself, or the folder tree in it."""
    bare = not place.is_project and ((place.root / "img").is_dir() or not place.tree.is_dir())
    return place.root if bare else place.tree


def _folders(root: Path) -> list[Folder]:
    try:
        return read_tree(root)
    except UserError:  # `validate` has said why
        return []


def _adapted(root: Path, folders: list[Folder]) -> tuple[list[Adapted], list[Finding]]:
    """Apply the tree's own dataset.toml to its folders; what `train run` would refuse in it is an error, and it is passed over."""
    try:
        return adapted(root, folders), []
    except UserError as error:
        return [Adapted(folder) for folder in folders], [Finding("error", root / PROJECT_FILE, str(error))]


def other_repeats(read: Iterable[Folder], ours: Iterable[Folder]) -> Iterator[Finding]:
    """Warn of folders that `train run` takes otherwise than trainers that know folder names alone."""
    for folder, own in zip(read, ours, strict=True):
        if (folder.repeats, folder.is_reg) != (own.repeats, own.is_reg):
            kind = "a class's" if own.is_reg else "the concept's"
            message = (
                f"{PROJECT_FILE} makes it {own.repeats} repeats of {kind} pictures for `train run`, and other trainers go by its name; rename it"
            )
            yield Finding("warning", folder.path, message)


def _config(place: Place) -> Any:
    """Read the settings of the run; bad ones are `train run`'s to refuse, and the defaults stand in."""
    config = load_object(CONFIG)
    try:
        return config.load(place.settings, {})
    except UserError:
        return config()


@dataclass(frozen=True)
class _Base:
    """What a bucket rule asks of a base model."""

    resolution: int
    vae_scale: int = 8


def _resolution(place: Place, config: Any) -> int:
    """Return the side that training aims at: as set, else the base's own where the base lies on this disk."""
    if config.data.resolution:
        return int(config.data.resolution)
    path = local_base(place.project.base) if place.is_project else None
    try:
        sample = json.loads((path / "unet/config.json").read_bytes())["sample_size"] if path else None
        scale = 2 ** (len(json.loads((path / "vae/config.json").read_bytes())["block_out_channels"]) - 1) if path else 8
        return int(sample) * scale if sample else COMMON
    except (OSError, ValueError, KeyError, TypeError):
        return COMMON


def _bucket_of(config: Any, side: int) -> Any:
    """Return the function from a picture to its bucket, by the rule of the run."""
    rule = load_object(BUCKET_RULE)(config.data, _Base(side))

    @cache
    def bucket(picture: Path) -> Size:
        found: Size = rule.fit(*picture_size(picture)).bucket
        return found

    return bucket


def bucket_rule(place: Place) -> Callable[[int, int], Size]:
    """Return the function from width and height to the bucket that the run will use."""
    config = _config(place)
    rule = load_object(BUCKET_RULE)(config.data, _Base(_resolution(place, config)))

    def bucket(width: int, height: int) -> Size:
        found: Size = rule.fit(width, height).bucket
        return found

    return bucket


def _readings(root: Path, folders: list[Folder], config: Any, bucket_of: Any) -> dict[str, Reading]:
    """Read the tree as each trainer does; the order is that of TRAINERS."""
    batch_size = config.data.train_batch_size
    side = config.data.resolution or COMMON
    return {
        "ours": read_as_ours(folders, root, bucket_of, config),
        "sd_scripts": read_as_sd_scripts(root, bucket_of, batch_size),
        "sd_dreambooth": read_as_dreambooth(root, side, batch_size),
    }


def arithmetic(reading: Reading) -> str:
    """Write how the samples of an epoch come about: (2 x 20 + 1 x 10) + 50 of the class = 100."""
    parts = []
    for folder in reading.folders:
        for times, number in sorted(Counter(reading.shown.get(picture, 0) for picture in folder.pictures).items()):
            if not folder.is_reg:
                parts.append(f"{times} x {number}")
    own, reg = reading.samples(False), reading.samples(True)
    return f"({' + '.join(parts)}) + {reg} of the class = {own + reg}" if reg else f"{' + '.join(parts)} = {own}"


def _sums(reading: Reading, epochs: int, root: Path) -> dict[str, Any]:
    ignored = [{"path": _shown(path, root), "why": why} for path, why in reading.ignored]
    return {
        "samples": reading.samples(False),
        "reg_samples": reading.samples(True),
        "reg_unused": reading.unused,
        "sum": arithmetic(reading),
        "steps_per_epoch": reading.steps,
        "steps": reading.steps * epochs,
        "ignored": ignored,
    }


def _tables(reading: Reading, bucket_of: Any, own: Iterable[Adapted]) -> dict[str, Any]:
    """Return what share of an epoch each folder gets, and how many pictures and samples each bucket has, as `train run` sees it."""
    whole, settings = sum(reading.shown.values()), {one.folder.path: one.own for one in own}
    shares: list[dict[str, Any]] = []
    for folder in reading.folders:
        samples = sum(reading.shown.get(picture, 0) for picture in folder.pictures)
        name = f"{folder.path.parent.name}/{folder.path.name}"
        row = {"folder": name, "pictures": len(folder.pictures), "repeats": folder.repeats, "samples": samples, "share": samples / whole}
        shares.append({**row, **({"settings": dict(settings[folder.path])} if settings[folder.path] else {})})
    pictures, samples_of = Counter(map(bucket_of, reading.shown)), Counter[Size]()
    for picture, times in reading.shown.items():
        samples_of[bucket_of(picture)] += times
    buckets = [{"size": list(size), "pictures": pictures[size], "samples": samples_of[size]} for size in sorted(pictures)]
    return {"folders": shares, "buckets": buckets}


def _too_short(root: Path, folders: Iterable[Folder], length: int, wildcard: bool) -> Iterator[Finding]:
    """Warn if the configured max_token_length cuts captions that a longer one would hold."""
    texts = (_text(path) or "" for folder in folders for path in folder.pictures)
    longest = max((count(line) for text in texts for line in read_by_training(text, wildcard)), default=0)
    need = next((size for size in LENGTHS if longest <= size), None)
    if need and need > length:
        yield Finding("warning", root, f"the longest caption has {longest} tokens and max_token_length is {length}; set it to {need} under [train]")


def _text(picture: Path) -> str | None:
    try:
        return read_caption(picture)
    except UserError:  # named among the findings already
        return None


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root and path.is_relative_to(root) else root.name


def show(root: Path, found: list[Finding]) -> None:
    """Print the findings, one block per sentence with the files it holds for, errors first."""
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    groups: dict[tuple[str, str], list[str]] = {}
    for finding in sorted(found, key=lambda finding: finding.level):  # "error" sorts before "warning"
        groups.setdefault((finding.level, finding.message), []).append(_shown(finding.path, root))
    for (level, message), paths in groups.items():
        console.print(f"{level}: {message}", style="red" if level == "error" else "yellow", markup=False)
        for path in paths[:MOST]:
            console.print(f"    {path}", markup=False)
        if len(paths) > MOST:
            console.print(f"    and {len(paths) - MOST} more")
    if not found:
        console.print(f"{root} is in order", style="green", markup=False)


def show_sums(root: Path, readings: Mapping[str, Reading], epochs: int) -> None:
    """Print each trainer's sum of steps and what it passes over."""
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    for name, reading in readings.items():
        sums = (
            f"{TRAINERS[name]}: {arithmetic(reading)} samples an epoch; {reading.how} = {reading.steps} steps, x {epochs} = {reading.steps * epochs}"
        )
        console.print(sums, markup=False)
        if reading.unused:
            console.print(f"    {reading.unused} regularization pictures are never shown", markup=False)
        for path, why in reading.ignored[:MOST]:
            console.print(f"    passes over {_shown(path, root)}: {why}", markup=False)
        if len(reading.ignored) > MOST:
            console.print(f"    and over {len(reading.ignored) - MOST} more", markup=False)


def show_tables(tables: Mapping[str, Any]) -> None:
    """Print the folders' shares, with the settings that are a folder's own, and the buckets of `train run`."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    shares, buckets = Table("folder", "pictures", "repeats", "samples", "share of an epoch"), Table("bucket", "pictures", "samples")
    for row in tables["folders"]:
        shares.add_row(escape(row["folder"]), str(row["pictures"]), str(row["repeats"]), str(row["samples"]), f"{row['share']:.1%}")
    for row in tables["buckets"]:
        buckets.add_row("{} x {}".format(*row["size"]), str(row["pictures"]), str(row["samples"]))
    console.print(shares, buckets, sep="\n")
    for row in tables["folders"]:
        if "settings" in row:
            own = ", ".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in row["settings"].items())
            console.print(f"settings of its own has {row['folder']}: {own}", markup=False)
