"""`prep regularize`: pictures of the class, drawn by the base model itself, that keep the class from turning into the concept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prep.captions import caption_path, parse, to_words
from prep.images import find_pictures, save
from prep.item import STORE, Store
from prep.options import PROJECT_FILE, UserError, atomic_write, load_object, option
from prep.project import Command, Place
from prep.run import track

if TYPE_CHECKING:
    from PIL import Image

# A row is "module:function": base model name -> Generator. prep reaches train only through this table.
GENERATORS = {"diffusers": "train.sample:load_generator"}


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

    def main(self, place: Place) -> None:
        if not self.class_:
            raise UserError("no class is given; say --class 'photo of a man', or write class into [project] of dataset.toml")
        keyword = to_words(self.keyword).casefold()
        if keyword and keyword in [to_words(tag).casefold() for tag in parse(self.class_)] + self.class_.casefold().split():
            raise UserError(f"the class prompt {self.class_!r} holds the keyword {self.keyword!r}; describe the class without it")
        folder = place.reg if place.is_project else place.root
        folder.mkdir(parents=True, exist_ok=True)
        self._check_settings(folder)
        count = self.count or matching_count(place)
        own = {f"{index:05d}.png" for index in range(count)}
        adopted = sum(path.name not in own for path in find_pictures(folder))
        todo = [i for i in range(max(0, count - adopted)) if not self._finished(folder / f"{i:05d}.png")]
        if todo:
            self._draw(folder, todo)
        print(f"{count} regularization pictures in {folder} ({len(todo)} drawn now, {adopted} of your own)")

    def _finished(self, picture: Path) -> bool:
        """A picture counts once its caption is there, which is written after it."""
        return picture.exists() and caption_path(picture).exists()

    def _draw(self, folder: Path, todo: list[int]) -> None:
        generator: Generator = load_object(GENERATORS["diffusers"])(self.base, clip_skip=self.clip_skip)
        seeds = [self.seed + index for index in todo]
        settings = {"steps": self.steps, "guidance_scale": self.guidance_scale, "negative_prompt": self.negative_prompt}
        pictures = generator.draw([self.class_] * len(todo), seeds, **settings, size=self.size or None, batch_size=self.batch_size)
        for index, image in zip(todo, track(pictures, "regularize", len(todo)), strict=True):
            picture = folder / f"{index:05d}.png"
            save(image, picture)
            atomic_write(caption_path(picture), self.class_ + "\n")

    def _check_settings(self, folder: Path) -> None:
        """Refuse to mix pictures drawn with different settings; remember the settings for the next time."""
        record = folder / STORE / "regularize.json"
        mine = {
            "class": self.class_, "base": self.base, "steps": self.steps, "guidance_scale": self.guidance_scale, "clip_skip": self.clip_skip,
            "negative_prompt": self.negative_prompt, "size": self.size, "seed": self.seed, "sampler": "ddim",
        }  # fmt: skip
        if record.exists() and not self.redo:
            theirs = json.loads(record.read_text(encoding="utf-8"))
            changed = [f"{key} {theirs.get(key)!r} -> {value!r}" for key, value in mine.items() if theirs.get(key) != value]
            if changed:
                raise UserError(f"the pictures in {folder} were drawn with other settings ({', '.join(changed)}); say --redo to draw them anew")
        if self.redo:  # a picture without its caption counts as not yet drawn, also after a kill in the middle
            for picture in folder.glob("[0-9][0-9][0-9][0-9][0-9].png"):
                caption_path(picture).unlink(missing_ok=True)
        atomic_write(record, json.dumps(mine, indent=1, ensure_ascii=False) + "\n")


def matching_count(place: Place) -> int:
    """Count what training sees of the concept in an epoch: repeats x kept pictures."""
    from prep.build import Build

    if not place.is_project:
        raise UserError("how many pictures? say -n 200")
    kept = sum(not item.dropped for item in Store(place.work).items())
    if not kept:
        raise UserError(f"there are no pictures in {place.work} to match; run `prep clean` first, or say -n 200")
    return kept * Build.configured(place).repeats_for(kept)
