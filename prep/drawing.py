"""Drawing: jobs become pictures with captions and a line of metadata, whatever interrupts; blank pictures and doubles are drawn again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prep.captions import caption_path
from prep.images import load, save
from prep.options import UserError, atomic_write
from prep.stock import Shelf
from prep.thumbs import Thumbs

if TYPE_CHECKING:
    from PIL import Image

METADATA = "metadata.jsonl"  # beside the pictures, one line each, with file_name as Hugging Face's imagefolder wants it
ATTEMPTS = 5  # how often a picture is drawn before the base or the settings are to blame
STEP = 1_000_003  # a picture that is drawn again takes the seed so much further, which no other picture has


class Generator(Protocol):
    """What draws pictures: one per prompt, each from its own seed, so that a batch equals single pictures."""

    @property
    def model(self) -> Any:
        """What draws; `resolution` is the side in pixels that it was trained at, `vae_scale` the pixels to a latent."""
        ...

    def draw(self, prompts: list[str], seeds: list[int], **settings: Any) -> Iterator[Image.Image]:
        """Yield one RGB picture per prompt, in order."""
        ...


@dataclass(frozen=True)
class Job:
    """A picture to be drawn: its number, prompt, seed, size in pixels (None = the base's own), and the training picture it goes with."""

    index: int
    prompt: str
    seed: int
    size: tuple[int, int] | int | None = None
    matches: str = ""

    @property
    def name(self) -> str:
        return picture_name(self.index)

    def again(self) -> Job:
        """Return the same job with the seed of its next attempt."""
        return Job(self.index, self.prompt, self.seed + STEP, self.size, self.matches)


def picture_name(index: int) -> str:
    return f"{index:05d}.png"


@dataclass
class Drawer:
    """Draws jobs into a folder. `load` gives the generator when the first picture really has to be drawn."""

    folder: Path
    load: Callable[[], Generator]
    settings: Mapping[str, Any]  # of the drawing, as the generator takes them
    facts: Mapping[str, Any]  # what else a picture depends on: the base model and how it was loaded
    batch_size: int = 8
    shelf: Shelf | None = None
    thumbs: Thumbs = field(default_factory=Thumbs)
    drawn: int = 0
    taken: int = 0  # from the stock

    def fill(self, jobs: list[Job], progress: Callable[[Iterable[Job]], Iterable[Job]]) -> None:
        """Make exactly these pictures; raises UserError if some stay blank or doubles however often they are drawn."""
        for _ in progress(self._all(jobs)):
            pass

    def _all(self, jobs: list[Job]) -> Iterator[Job]:
        faults: dict[int, str] = {}
        for _ in range(ATTEMPTS):
            rejected: list[Job] = []
            for job, fault in self._once(jobs):
                if fault:
                    rejected.append(job.again())
                    faults[job.index] = fault
                else:
                    yield job
            if not rejected:
                return
            jobs = rejected
        kinds = " or ".join(sorted({f"{faults[job.index]}" for job in jobs}))
        raise UserError(
            f"{len(jobs)} pictures for {self.folder}, such as {jobs[0].prompt!r}, came out {kinds} {ATTEMPTS} times; "
            "look at what the base model draws, and try other --steps, --guidance-scale, --sampler or --class"
        )

    def _once(self, jobs: list[Job]) -> Iterator[tuple[Job, str]]:
        """Take each job's picture from the stock or draw it, those of one size together; yield it with what is wrong with it."""
        waiting: dict[Any, list[Job]] = {}
        for job in jobs:
            hidden = self.folder / f".tmp-{job.name}"  # does not count before its caption is there
            if not (self.shelf and self.shelf.take(self.recipe(job), hidden)):
                waiting.setdefault(job.size, []).append(job)
                continue
            image = load(hidden)
            fault = self._judge(image)
            if fault:
                hidden.unlink()
            else:
                self._finish(job, image.size, lambda target, hidden=hidden: os.replace(hidden, target))  # type: ignore[misc]
                self.taken += 1
            yield job, fault
        for size, group in waiting.items():
            yield from self._draw(size, group)

    def _draw(self, size: Any, jobs: list[Job]) -> Iterator[tuple[Job, str]]:
        """Draw jobs of one size; one thread writes the files meanwhile, so that the model need not wait for the disk."""
        prompts, seeds = [job.prompt for job in jobs], [job.seed for job in jobs]
        pictures = self.load().draw(prompts, seeds, **self.settings, size=size, batch_size=self.batch_size)
        with ThreadPoolExecutor(1) as pen:
            written = []
            for job, image in zip(jobs, pictures, strict=True):
                fault = self._judge(image)
                if not fault:
                    written.append(pen.submit(self._write, job, image))
                yield job, fault
            for file in written:
                file.result()  # raises what went wrong there

    def _judge(self, image: Image.Image) -> str:
        fault = self.thumbs.fault(image)
        if not fault:
            self.thumbs.add(image)
        return fault

    def _write(self, job: Job, image: Image.Image) -> None:
        self._finish(job, image.size, lambda target: save(image, target))
        self.drawn += 1
        if self.shelf:
            self.shelf.put(self.recipe(job), self.folder / job.name)

    def _finish(self, job: Job, size: tuple[int, int], put: Callable[[Path], Any]) -> None:
        """Give a picture its caption, its line of metadata and its place."""
        target = self.folder / job.name
        atomic_write(caption_path(target), job.prompt + "\n")
        line = {"file_name": job.name, "text": job.prompt, **self.recipe(job), "size": list(size)}
        _append(self.folder / METADATA, line | ({"matches": job.matches} if job.matches else {}))
        put(target)  # last, because a picture that is there counts as done

    def recipe(self, job: Job) -> dict[str, Any]:
        """Return all that a picture depends on."""
        size = list(job.size) if isinstance(job.size, tuple) else job.size
        return {**self.facts, "prompt": job.prompt, "seed": job.seed, "size": size, **self.settings}


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def tidy_metadata(folder: Path) -> None:
    """Leave one line for each drawn picture that is there, by name; a line that a kill cut short goes."""
    path, lines = folder / METADATA, {}
    if not path.exists():
        return
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            name = str(json.loads(text)["file_name"])
        except (ValueError, KeyError, TypeError):
            continue
        if (folder / name).exists():
            lines[name] = text + "\n"
    atomic_write(path, "".join(lines[name] for name in sorted(lines)))
