"""`prep regularize`: pictures of the class, drawn by the base model itself, that keep the class from turning into the concept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prep.captions import caption_path, join, parse, read_caption
from prep.edits import fold
from prep.images import find_pictures, save
from prep.item import STORE, Store
from prep.options import PROJECT_FILE, UserError, atomic_write, load_object, option
from prep.project import Command, Place
from prep.run import track

if TYPE_CHECKING:
    from PIL import Image

# A row is "module:function": base model name -> Generator. prep reaches train only through this table.
GENERATORS = {"diffusers": "train.sample:load_generator"}
RECORD = Path(STORE, "regularize.json")  # in the folder of the pictures


class Generator(Protocol):
    """What draws pictures: one per prompt, each from its own seed, so that a batch equals single pictures."""

    def draw(self, prompts: list[str], seeds: list[int], **settings: Any) -> Iterator[Image.Image]:
        """Yield one RGB picture per prompt, in order."""
        ...


@dataclass(frozen=True)
class Regularize(Command):
    """Draw N pictures of the class with the base model into the project's reg folder (or ROOT); goes on where it stopped."""

    class_: str = option("", help="Prompt of the class, such as 'photo of a man'; also their caption.")
    count: int = option(0, "-n", help="How many pictures; 0 = repeats x pictures, as many as training sees an epoch.", min=0)
    base: str = option("pocket", help="Base model: pocket, a diffusers folder or a hub id.")
    keyword: str = option("", help="The concept word, which must not occur in the prompt.")
    matched: bool = option(False, help="Draw every training caption without its keyword instead of the bare class; needs a tagged project.")
    steps: int = option(25, help="Sampling steps (DDIM).", min=1, max=1000)
    guidance_scale: float = option(5.0, help="Classifier-free guidance.", min=1.0)
    negative_prompt: str = option("", help="What the pictures must not show.")
    size: int = option(0, help="Side in pixels; 0 = what the base model was trained at.", min=0)
    batch_size: int = option(8, help="Pictures drawn at once.", min=1)
    clip_skip: int = option(1, help="Which text encoder layer counts from the end.", min=1)
    seed: int = option(1000, help="Picture i is drawn from seed + i.", min=0)
    redo: bool = option(False, help="Draw anew what was drawn with other settings.")

    @classmethod
    def open(cls, root: Path | None) -> Place:
        """A bare folder that does not exist yet is made."""
        if root is not None and not (root / PROJECT_FILE).exists():
            root.mkdir(parents=True, exist_ok=True)
        return Place.open(root)

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
        present = [path for path in find_pictures(folder) if not (self.redo and path in drawn)]
        taken = {path.stem for path in present}
        todo = [index for index in range(count) if _picture(folder, index).stem not in taken][: max(0, count - len(present))]
        # A base that cannot be loaded must neither leave a record nor cost the old pictures, so it is loaded first.
        generator = load_object(GENERATORS["diffusers"])(self.base, clip_skip=self.clip_skip) if todo else None
        self._start(folder, todo, drawn)
        if generator:
            self._draw(generator, folder, todo, self._prompts(place))
        adopted = len(present) if self.redo else len(present) - len(drawn)
        print(f"{len(present) + len(todo)} regularization pictures in {folder} ({len(todo)} drawn now, {adopted} of your own)")

    def _holds_keyword(self) -> bool:
        """Tell whether the keyword occurs in the prompt as a word or words of its own."""
        keyword = fold(self.keyword)
        return bool(keyword) and re.search(rf"(?<!\w){re.escape(keyword)}(?!\w)", fold(self.class_)) is not None

    def _prompts(self, place: Place) -> list[str]:
        """Return the prompts that the pictures take in turn: the class, or the training captions without their keyword."""
        if not self.matched:
            return [self.class_]
        items = sorted((item for item in Store(place.work).items() if not item.dropped), key=lambda item: item.key)
        captions = [read_caption(item.path) or "" for item in items]
        without = ([tag for tag in parse(caption) if fold(tag) != fold(self.keyword)] for caption in captions)
        return [join(tags) if set(parse(self.class_)) <= set(tags) else join([*parse(self.class_), *tags]) for tags in without] or [self.class_]

    def _draw(self, generator: Generator, folder: Path, todo: list[int], prompts: list[str]) -> None:
        texts = [prompts[index % len(prompts)] for index in todo]
        seeds = [self.seed + index for index in todo]
        settings = {"steps": self.steps, "guidance_scale": self.guidance_scale, "negative_prompt": self.negative_prompt}
        pictures = generator.draw(texts, seeds, **settings, size=self.size or None, batch_size=self.batch_size)
        for index, text, image in zip(todo, texts, track(pictures, "regularize", len(todo)), strict=True):
            picture = _picture(folder, index)
            atomic_write(caption_path(picture), text + "\n")
            save(image, picture)  # last, because a picture that is there counts as done

    def _settings(self) -> dict[str, Any]:
        """Say what the pictures depend on."""
        return {
            "class": self.class_, "base": self.base, "steps": self.steps, "guidance_scale": self.guidance_scale, "clip_skip": self.clip_skip,
            "negative_prompt": self.negative_prompt, "size": self.size, "seed": self.seed, "sampler": "ddim", "matched": self.matched,
        }  # fmt: skip

    def _drawn(self, folder: Path) -> list[Path]:
        """List the pictures that were drawn here; raises UserError if they were drawn with other settings and are not to be redone."""
        theirs = _record(folder)
        drawn = [picture for picture in (_picture(folder, index) for index in theirs.get("pictures", [])) if picture.exists()]
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


def _picture(folder: Path, index: int) -> Path:
    return folder / f"{index:05d}.png"


def _record(folder: Path) -> dict[str, Any]:
    """Read with what settings pictures were drawn into the folder, and which; empty if none were."""
    try:
        return dict(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError):
        raise UserError(f"{folder / RECORD} is not readable; delete it to keep the pictures of that folder as your own") from None


def matching_count(place: Place) -> int:
    """Count what training sees of the concept in an epoch: repeats x kept pictures."""
    from prep.build import Build

    if not place.is_project:
        raise UserError("how many pictures? say -n 200")
    kept = sum(not item.dropped for item in Store(place.work).items())
    if not kept:
        raise UserError(f"there are no pictures in {place.work} to match; run `prep clean` first, or say -n 200")
    return kept * Build.configured(place).repeats_for(kept)
