"""Probe: have the base model draw a word, and measure by a tagger whether the word pulls the pictures anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from prep.options import load_object
from prep.regularize import GENERATORS
from prep.taggers import locate

if TYPE_CHECKING:
    from PIL import Image


def probe(words: Sequence[str], class_: str, count: int, base: str, tagger: str) -> dict[str, float]:
    """Return for each word how far it pulls pictures away from what the other words give; 1 is what chance gives, more is a meaning.

    `count` pictures each of "WORD" and "WORD, CLASS" are drawn, from the same seeds for every word.
    """
    generator = load_object(GENERATORS["diffusers"])(base)
    model = locate(tagger).open("auto", 16)
    forms = ["{word}", f"{{word}}, {class_}"] if class_ else ["{word}"]
    scores = []
    for form in forms:
        prompts = [form.format(word=word) for word in words for _ in range(count)]
        pictures = generator.draw(prompts, [*range(count)] * len(words), steps=20, batch_size=8)
        scores.append(_scores(model, pictures).reshape(len(words), count, -1))
    return dict(zip(words, pull(np.concatenate(scores, axis=1)).tolist(), strict=True))


def _scores(model: object, pictures: Iterable[Image.Image]) -> np.ndarray:
    prepared = [model.prepare(picture) for picture in pictures]  # type: ignore[attr-defined]
    return model.score(prepared)  # type: ignore[attr-defined]


def pull(scores: np.ndarray) -> np.ndarray:
    """Return each word's pull from tag scores (words, pictures, tags), the n-th picture of all words being of one seed.

    Like the F ratio of an analysis of variance with the seed as block: the squared distance of the word's mean from what is usual, over
    what its single pictures scatter. The usual is the median of all words, so that one with a meaning does not lend it to the others.
    A word that the model reads as noise comes out near 1.
    """
    count = scores.shape[1]
    apart = scores - np.median(scores, axis=0, keepdims=True)  # what the seed alone draws is the same for all words
    mean = apart.mean(axis=1)
    scatter = ((apart - mean[:, None]) ** 2).sum(axis=(1, 2)) / max(1, count - 1)
    return count * (mean**2).sum(axis=1) / np.maximum(scatter, 1e-12)
