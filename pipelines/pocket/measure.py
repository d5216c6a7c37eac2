"""Measure the pocket models: `python -m pipelines.pocket.measure` (the last stage of make; about a minute on two cores).

The tagger is asked about 500 drawings it never saw, the base model about 64 prompts whose pictures the tagger then reads.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pipelines.pocket import BASE, world
from prep.captions import join, to_words

if TYPE_CHECKING:
    from train.sample import Generator

DRAWINGS = 500
PROMPTS = 64
SEED = 77  # of drawings and prompts; no training set uses it
THRESHOLD = 0.5


@dataclass(frozen=True)
class Quality:
    """What the models can do, each between 0 and 1."""

    tagger_f1: float  # macro F1 over the world's tags, on fresh drawings
    tagger_f1_decoded: float  # the same after a way through the base model's autoencoder
    base_recall: float  # mean share of a prompt's tags that the tagger sees in its picture
    by_kind: dict[str, float]  # recall of hair colours, backgrounds, ...


def fresh_drawings(count: int = DRAWINGS) -> tuple[list[Image.Image], list[list[str]]]:
    """Draw characters, half of them with marks, at the base model's 64 pixels."""
    rng = random.Random(SEED)
    characters = [world.sample(rng, marks=bool(i % 2)) for i in range(count)]
    return [world.draw(c, 64, SEED * 100_000 + i) for i, c in enumerate(characters)], [world.tags(c) for c in characters]


def read_tags(pictures: Sequence[Image.Image]) -> list[set[str]]:
    """Return what the pocket tagger sees in each picture, ratings left out."""
    tagger = _tagger()
    names, known = tagger.labels.names, set(world.vocabulary())
    seen: list[set[str]] = []
    for at in range(0, len(pictures), 32):
        scores = tagger.score([tagger.prepare(picture) for picture in pictures[at : at + 32]])
        seen += [{names[column] for column in np.flatnonzero(row >= THRESHOLD)} & known for row in scores]
    return seen


@cache
def _tagger() -> Any:
    from prep.taggers import locate

    return locate("pocket").open("cpu", 32)


def macro_f1(seen: Sequence[set[str]], truth: Sequence[Sequence[str]]) -> float:
    """Return the mean over all tags of 2 TP / (2 TP + FP + FN)."""
    scores = []
    for tag in world.vocabulary():
        pairs = [(tag in found, tag in real) for found, real in zip(seen, truth, strict=True)]
        both, either = pairs.count((True, True)), len(pairs) - pairs.count((False, False))
        scores.append(2 * both / (both + either) if either else 1.0)
    return float(np.mean(scores))


def decoded(pictures: Sequence[Image.Image], generator: Generator) -> list[Image.Image]:
    """Send pictures through the autoencoder and back."""
    import torch

    from train.sample import to_images

    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        parts = [generator.model.decode_latents(generator.model.encode_images(part)[0]) for part in pixels.split(64)]
    return to_images(torch.cat(parts))


def asked_and_seen(generator: Generator, count: int = PROMPTS) -> list[tuple[str, bool]]:
    """Draw pictures from whole lists of tags; return each asked tag (but for `solo`, which is always true) and whether it is seen."""
    rng = random.Random(SEED + 1)
    asked = [world.tags(world.sample(rng)) for _ in range(count)]
    prompts = [join(map(to_words, tags)) for tags in asked]
    pictures = list(generator.draw(prompts, range(count), batch_size=16))
    return [(tag, tag in seen) for tags, seen in zip(asked, read_tags(pictures), strict=True) for tag in tags if tag != "solo"]


def kind_of(tag: str) -> str:
    """Say to which kind of tag this one belongs, for the report."""
    colour, _, noun = tag.partition("_")
    tables = {"hair": world.HAIR, "eyes": world.EYES, "shirt": world.SHIRTS, "background": world.BACKGROUNDS}
    if colour in tables.get(noun, ()):
        return f"{noun} colour"
    kinds = {"hair style": world.STYLES, "headwear": world.HEADWEAR, "eyewear": world.EYEWEAR, "mouth": world.MOUTHS, "neckwear": world.NECKWEAR}
    return next((kind for kind, members in kinds.items() if tag in members), tag)


def measure() -> Quality:
    """Measure both models as they lie in the package."""
    from train.sample import load_generator

    generator = load_generator(str(BASE))
    pictures, truth = fresh_drawings()
    answers = asked_and_seen(generator)
    kinds = sorted({kind_of(tag) for tag, _ in answers})
    return Quality(
        tagger_f1=macro_f1(read_tags(pictures), truth),
        tagger_f1_decoded=macro_f1(read_tags(decoded(pictures, generator)), truth),
        base_recall=float(np.mean([seen for _, seen in answers])),
        by_kind={kind: float(np.mean([seen for tag, seen in answers if kind_of(tag) == kind])) for kind in kinds},
    )


if __name__ == "__main__":
    quality = measure()
    print(json.dumps(quality.__dict__, indent=1, default=float))
