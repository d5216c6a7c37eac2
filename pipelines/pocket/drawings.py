"""Drawings and captions to train the pocket models on: made once, kept as arrays."""

from __future__ import annotations

import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from pipelines.pocket import world
from prep.captions import join, to_words
from prep.clip_bpe import vocabulary

SIDE = 64  # pixels of a drawing


@dataclass(frozen=True)
class Drawings:
    """A set of drawings: pixels (N, 64, 64, 3) uint8 and the tags of each."""

    pixels: np.ndarray
    tags: list[list[str]]

    def targets(self) -> np.ndarray:
        """Return (N, len(vocabulary)) float32: 1 where the tag is there."""
        index = {tag: i for i, tag in enumerate(world.vocabulary())}
        found = np.zeros((len(self.tags), len(index)), np.float32)
        for row, tags in enumerate(self.tags):
            found[row, [index[tag] for tag in tags]] = 1
        return found


def make(count: int, seed: int, marks: bool = False) -> Drawings:
    """Draw `count` characters, the same for the same seed, on all cores."""
    parts = [(seed * 1_000_003 + start, min(250, count - start), marks) for start in range(0, count, 250)]
    with ProcessPoolExecutor() as pool:
        made = list(pool.map(_part, parts))
    return Drawings(np.concatenate([pixels for pixels, _ in made]), [tags for _, part in made for tags in part])


def _part(job: tuple[int, int, bool]) -> tuple[np.ndarray, list[list[str]]]:
    seed, count, marks = job
    rng = random.Random(seed)
    characters = [world.sample(rng, marks) for _ in range(count)]
    pixels = np.stack([np.asarray(world.draw(character, SIDE, seed + i)) for i, character in enumerate(characters)])
    return pixels, [world.tags(character) for character in characters]


def cached(path: Path, count: int, seed: int, marks: bool = False) -> Drawings:
    """Read the set from `path`, or make and keep it."""
    if not path.exists():
        made = make(count, seed, marks)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = np.array(["\t".join(tags) for tags in made.tags])
        np.savez(path.with_suffix(".part.npz"), pixels=made.pixels, tags=lines)
        path.with_suffix(".part.npz").replace(path)
    with np.load(path) as data:
        return Drawings(data["pixels"], [str(line).split("\t") for line in data["tags"]])


def caption(tags: list[str], rng: random.Random) -> str:
    """Write a training caption: now and then empty, the person mostly first, the rest shuffled and partly left out."""
    if rng.random() < 0.1:
        return ""
    keep = 1 - rng.choice((0.0, 0.2, 0.5, 0.9)) * rng.random()
    person, rest = tags[0], [tag for tag in tags[1:] if rng.random() < keep]
    rng.shuffle(rest)
    ordered = [person, *rest] if rng.random() < 0.8 else [*rest, person]
    if rng.random() < 0.15:  # a word that means nothing here, as a LoRA's keyword will: the models learn to draw on regardless
        ordered.insert(rng.choice((0, 0, len(ordered))), rng.choice(unknown_words()))
    return join(to_words(tag) for tag in ordered)


@cache
def unknown_words() -> list[str]:
    """List short words of CLIP's vocabulary, one token each, that name nothing in this world."""
    known = {word for tag in world.vocabulary() for word in tag.split("_")}
    words = [token.removesuffix("</w>") for token in vocabulary() if token.endswith("</w>")]
    return [word for word in words if word.isascii() and word.isalpha() and 3 <= len(word) <= 6 and word not in known]
