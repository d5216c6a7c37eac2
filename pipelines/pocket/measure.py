"""Measure the pocket models: `python -m pipelines.pocket.measure`."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image

from pipelines.judge import THRESHOLD, draw
from pipelines.pocket import drawings, world
from prep.captions import join, to_words
from prep.taggers import locate


def main() -> None:
    f1 = tagger_f1(drawings.make(500, 99, marks=True))
    print(f"tagger: macro F1 {np.mean(list(f1.values())):.3f} on 500 fresh drawings; lowest {', '.join(f'{t} {v:.2f}' for t, v in _lowest(f1))}")
    recall = base_recall()
    print(f"base: mean recall {np.mean([hit for _, hit in recall]):.3f} of the tags of 64 prompts; {_by_kind(recall)}")


def tagger_f1(fresh: drawings.Drawings) -> dict[str, float]:
    """Return the F1 of every tag of the world on drawings that the tagger was not trained on."""
    seen = scores([Image.fromarray(pixels) for pixels in fresh.pixels]) >= THRESHOLD
    there = fresh.targets().astype(bool)
    right, wrong = (seen & there).sum(0), (seen ^ there).sum(0)
    return dict(zip(world.vocabulary(), 2 * right / np.maximum(1, 2 * right + wrong), strict=True))


def base_recall(count: int = 64) -> list[tuple[str, bool]]:
    """Draw `count` prompts of five or more tags and return each asked tag with whether the tagger finds it in the picture."""
    rng = random.Random(4)
    asked = [world.tags(world.sample(rng)) for _ in range(count)]
    names = world.vocabulary()
    seen = scores(draw(None, [join(map(to_words, tags)) for tags in asked], range(count))) >= THRESHOLD
    return [(tag, bool(seen[row, names.index(tag)])) for row, tags in enumerate(asked) for tag in tags]


def scores(pictures: list[Image.Image]) -> np.ndarray:
    """Return (pictures, tags of the world) probabilities of the pocket tagger."""
    tagger = locate("pocket").open("cpu", 16)
    found = tagger.score([tagger.prepare(picture) for picture in pictures])
    return found[:, [tagger.labels.names.index(name) for name in world.vocabulary()]]


def _lowest(values: dict[str, float], count: int = 3) -> list[tuple[str, float]]:
    return sorted(values.items(), key=lambda pair: pair[1])[:count]


def _by_kind(recall: list[tuple[str, bool]]) -> str:
    """Name the three tags that are missed most often."""
    tags = {tag for tag, _ in recall}
    shares = {tag: float(np.mean([hit for name, hit in recall if name == tag])) for tag in tags}
    return "lowest " + ", ".join(f"{tag} {share:.2f}" for tag, share in _lowest(shares, 5))


if __name__ == "__main__":
    main()
