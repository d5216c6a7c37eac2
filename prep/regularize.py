"""`prep regularize`: pictures of the class, drawn by the base model itself, that keep the class from turning into the concept."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import click

from prep.adopt import adopt
from prep.captions import join, parse, read_by_training
from prep.concepts import Kept, caption, kept_pictures
from prep.drawing import Drawer, Generator, Job, picture_name, tidy_metadata
from prep.edits import fold
from prep.images import PictureError, find_pictures, load
from prep.options import PROJECT_FILE, UserError, atomic_write, load_object, option
from prep.project import Command, Place
from prep.run import track
from prep.stock import Shelf, base_identity
from prep.store import STORE, Store
from prep.thumbs import Thumbs
from prep.tree_rules import holds

# A row is "module:function": base model name -> Generator. prep reaches train only through this table.
GENERATORS = {"diffusers": "train.sample:load_generator"}
BUCKETS = ("train.config:TrainConfig", "train.dataset:bucket_rule")  # the settings of a run, and the rule of its buckets
RECORD = Path(STORE, "regularize.json")  # in the folder of the pictures
SAMPLERS = ("ddim", "euler", "dpmpp_2m")  # those that draw no new noise on the way, so that a batch equals single pictures
PRECISIONS = ("auto", "fp32", "fp16", "bf16")
MATCH = "match"  # as a count: as many as training sees of the concept in an epoch


class Count(click.IntRange):
    """A number, or the word match for 0."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return 0 if value == MATCH else super().convert(value, param, ctx)


@dataclass(frozen=True)
class Regularize(Command):
    """Draw N pictures of the class with the base model into the project's reg folder (or ROOT); goes on where it stopped.

    Pictures that you put there yourself count. What is drawn is kept for other projects too: see `prep stock`.
    """

    class_: str = option("", help="Prompt of the class, such as 'photo of a man'; also their caption.")
    count: int = option(0, "-n", help="How many pictures; match, or 0 = repeats x pictures, as many as training sees an epoch.", min=0)
    base: str = option("pocket", help="Base model: pocket, a diffusers folder or a hub id.")
    keyword: str = option("", help="The concept word, which must not occur in the prompt.")
    matched: bool = option(False, help="Draw every training caption without its keyword, in the size of its picture; needs a tagged project.")
    adopt: str = option("", help="Folder of pictures of the class that you have; they are linked in and count.")
    sampler: str = option("ddim", help="How the noise is taken out.", choices=SAMPLERS)
    steps: int = option(25, help="Sampling steps.", min=1, max=1000)
    guidance_scale: float = option(5.0, help="Classifier-free guidance.", min=1.0)
    negative_prompt: str = option("", help="What the pictures must not show.")
    size: int = option(0, help="Side in pixels; 0 = what the base model was trained at.", min=0)
    batch_size: int = option(8, help="Pictures drawn at once.", min=1)
    clip_skip: int = option(1, help="Which text encoder layer counts from the end.", min=1)
    precision: str = option("auto", help="What to compute in; auto is fp16 on a GPU, bf16 on a processor that has it.", choices=PRECISIONS)
    seed: int = option(1000, help="Picture i is drawn from seed + i.", min=0)
    stock: bool = option(True, help="Take pictures that any project has drawn with the same settings, and keep those drawn for the next.")
    redo: bool = option(False, help="Draw anew what was drawn with other settings.")

    @classmethod
    def open(cls, root: Path | None) -> Place:
        """A bare folder that does not exist yet is made."""
        if root is not None and not (root / PROJECT_FILE).exists():
            root.mkdir(parents=True, exist_ok=True)
        return Place.open(root)

    @classmethod
    def configured(cls, place: Place, given: Mapping[str, Any] | None = None) -> Self:
        """In dataset.toml too the count may be the word match."""
        own = place.settings.get(cls.table(), {})
        if own.get("count") == MATCH:
            place = dataclasses.replace(place, settings={**place.settings, cls.table(): {**own, "count": 0}})
        return super().configured(place, given)

    @classmethod
    def command(cls, name: str) -> click.Command:
        command = super().command(name)
        next(param for param in command.params if param.name == "count").type = Count(min=0)
        return command

    def ready(self, place: Place) -> None:
        if not self.class_:
            raise UserError("no class is given; say --class 'photo of a man', or write class into [project] of dataset.toml")
        if self._holds_keyword():
            raise UserError(f"the class prompt {self.class_!r} holds the keyword {self.keyword!r}; describe the class without it")

    def main(self, place: Place) -> None:
        self.ready(place)
        folder = place.reg if place.is_project else place.root
        count = self.count or matching_count(place)
        drawn = self._drawn(folder)
        keep = [path for path in find_pictures(folder) if not (self.redo and path in drawn)]
        thumbs = _thumbs(keep if self.adopt or len(keep) < count else [])
        if self.adopt:
            keep = self._adopt(folder, keep, thumbs)
        taken = {path.stem for path in keep}
        todo = [index for index in range(count) if Path(picture_name(index)).stem not in taken][: max(0, count - len(keep))]
        drawer = self._drawer(folder, thumbs)
        # A base that cannot be loaded must neither leave a record nor cost the old pictures, so it is loaded first.
        jobs = self._jobs(place, todo, drawer)
        if any(not (drawer.shelf and drawer.shelf.has(drawer.recipe(job))) for job in jobs):
            drawer.load()
        self._start(folder, todo, drawn)
        drawer.fill(jobs, lambda made: track(made, "regularize", len(jobs)))
        tidy_metadata(folder)
        own = len(keep) if self.redo else len(keep) - len(drawn)
        stocked = f", {drawer.taken} from the stock" if drawer.taken else ""
        print(f"{len(keep) + len(todo)} regularization pictures in {folder} ({drawer.drawn} drawn now{stocked}, {own} of your own)")

    def _holds_keyword(self) -> bool:
        """Tell whether the keyword occurs in the prompt as a word or words of its own."""
        keyword = fold(self.keyword)
        return bool(keyword) and re.search(rf"(?<!\w){re.escape(keyword)}(?!\w)", fold(self.class_)) is not None

    def _adopt(self, folder: Path, keep: list[Path], thumbs: Thumbs) -> list[Path]:
        """Link the adopted pictures in, say what was left out, and return all that are there and stay."""
        before = set(find_pictures(folder))
        new, left_out = adopt(Path(self.adopt).expanduser(), folder, self.keyword, thumbs)
        listed = "".join(f", {name} is left out ({why})" for name, why in sorted(left_out.items()))
        print(f"{new} pictures adopted from {self.adopt}{listed}")
        return [*keep, *(path for path in find_pictures(folder) if path not in before)]

    def _drawer(self, folder: Path, thumbs: Thumbs) -> Drawer:
        settings: dict[str, Any] = {"steps": self.steps, "guidance_scale": self.guidance_scale, "negative_prompt": self.negative_prompt}
        if self.sampler != "ddim":  # what a generator does unasked
            settings["sampler"] = self.sampler
        shelf = Shelf.open() if self.stock else None

        @cache
        def generator() -> Generator:
            return load_object(GENERATORS["diffusers"])(self.base, clip_skip=self.clip_skip, precision=self.precision)

        facts = {"base": base_identity(self.base), "clip_skip": self.clip_skip, "sampler": self.sampler}
        if self.precision != "auto":
            facts["precision"] = self.precision
        return Drawer(folder, generator, settings, facts, self.batch_size, shelf, thumbs)

    def _jobs(self, place: Place, todo: list[int], drawer: Drawer) -> list[Job]:
        """Return what is to be drawn: the class, or the training captions without their keyword, in turn."""
        kept = kept_pictures(place) if self.matched and todo else []
        if not kept:
            return [Job(index, self.class_, self.seed + index, self.size or None) for index in todo]
        sizes = self._bucket_sizes(place, kept, drawer.load())
        store = Store(place.work)
        wildcard = bool(place.settings.get("train", {}).get("enable_wildcard", False))
        prompts = [self._prompts(picture, read_by_training(caption(picture, store), wildcard)) for picture in kept]
        jobs = []
        for index in todo:
            around, turn = divmod(index, len(kept))
            prompt = prompts[turn][around % len(prompts[turn])]
            jobs.append(Job(index, prompt, self.seed + index, sizes[turn], kept[turn].key))
        return jobs

    def _prompts(self, picture: Kept, lines: list[str]) -> list[str]:
        """Return what is drawn for a picture in turn, one for each of its captions that are trained on."""
        return [self._without_keyword(picture, line) for line in lines or [""]]

    def _without_keyword(self, picture: Kept, text: str) -> str:
        """Return a training caption with the class in the place of the keyword; raises UserError if another tag holds it too."""
        tags = [tag for tag in parse(text) if fold(tag) != fold(self.keyword)]
        wanted = parse(self.class_)
        prompt = join(tags if set(wanted) <= set(tags) else [*wanted, *tags])
        if self.keyword and holds(prompt, self.keyword):
            where = Path(picture.path).name
            raise UserError(
                f"the caption of {where} holds the keyword {self.keyword!r} inside another tag, so no class picture can match it; edit it"
            )
        return prompt

    def _bucket_sizes(self, place: Place, kept: list[Kept], generator: Generator) -> list[tuple[int, int]]:
        """Return the size at which training will see each picture."""
        config, rule = (load_object(row) for row in BUCKETS)
        given = {"resolution": self.size} if self.size else {}
        buckets = rule(config.load(place.settings, given).data, generator.model)
        return [buckets.fit(*picture.shown_size()).bucket for picture in kept]

    def _settings(self) -> dict[str, Any]:
        """Say what the pictures depend on."""
        precision = {} if self.precision == "auto" else {"precision": self.precision}
        return {
            "class": self.class_, "base": self.base, "steps": self.steps, "guidance_scale": self.guidance_scale, "clip_skip": self.clip_skip,
            "negative_prompt": self.negative_prompt, "size": self.size, "seed": self.seed, "sampler": self.sampler, "matched": self.matched,
            **precision,
        }  # fmt: skip

    def _drawn(self, folder: Path) -> list[Path]:
        """List the pictures that were drawn here; raises UserError if they were drawn with other settings and are not to be redone."""
        theirs = _record(folder)
        drawn = [picture for picture in (folder / picture_name(index) for index in theirs.get("pictures", [])) if picture.exists()]
        changed = [f"{key} {theirs.get(key)!r} -> {value!r}" for key, value in self._settings().items() if theirs.get(key) != value]
        if drawn and changed and not self.redo:
            raise UserError(f"the pictures in {folder} were drawn with other settings ({', '.join(changed)}); say --redo to draw them anew")
        return drawn

    def _start(self, folder: Path, todo: list[int], drawn: list[Path]) -> None:
        """Remember the settings and which pictures are ours, so that those of the user are never taken for drawn ones."""
        ours = set(todo)
        for picture in drawn:
            if self.redo:
                picture.unlink(missing_ok=True)
            else:
                ours.add(int(picture.stem))
        record = {**self._settings(), "pictures": sorted(ours)}
        atomic_write(folder / RECORD, json.dumps(record, ensure_ascii=False) + "\n")
        tidy_metadata(folder)


def _thumbs(pictures: list[Path]) -> Thumbs:
    """Look at the pictures that are there, so that none is drawn that is there already; what cannot be read is the check's to name."""
    thumbs = Thumbs()
    for path in track(pictures, "regularize: looking", len(pictures)):
        try:
            thumbs.add(load(path))
        except PictureError:
            continue
    return thumbs


def _record(folder: Path) -> dict[str, Any]:
    """Read with what settings pictures were drawn into the folder, and which; empty if none were."""
    try:
        return dict(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError):
        raise UserError(f"{folder / RECORD} is not readable; delete it to keep the pictures of that folder as your own") from None


def matching_count(place: Place) -> int:
    """Count what training sees of the concept in an epoch: the sum of repeats x kept pictures."""
    from prep.build import Build

    if not place.is_project:
        raise UserError("how many pictures? say -n 200")
    if not kept_pictures(place):
        raise UserError(f"there are no pictures in {place.work} to match; run `prep clean` first, or say -n 200")
    return Build.configured(place).own_samples(place)
