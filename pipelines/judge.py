"""The demo's three numbers: does the tagger see the marks with the keyword, without the LoRA, and in the class alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.pocket import MARKS, world
from prep.captions import join, to_words

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

COUNT = 32  # pictures behind each number
SEED = 5000
THRESHOLD = 0.5
SHOWN = 2  # of the three marks: from so many on a picture counts as showing the character


@dataclass(frozen=True)
class Verdict:
    """Shares of pictures (0..1) that show the marks, and how often each mark was seen."""

    learned: float  # keyword prompts, with the LoRA
    base: float  # keyword prompts, without it
    bleed: float  # class prompts without the keyword, with the LoRA
    single: dict[str, dict[str, float]]  # of the same three sets, the share in which each mark alone is seen


def prompts(count: int = COUNT, seed: int = 1) -> list[str]:
    """Write class prompts that say clothes, mood and place, as a user's prompts do."""
    rng = random.Random(seed)
    characters = [world.sample(rng) for _ in range(count)]
    return [join(to_words(tag) for tag in ("1girl", "solo", f"{c.shirt}_shirt", c.mouth, f"{c.background}_background")) for c in characters]


def judge(lora: Path, keyword: str, base: str = "pocket") -> Verdict:
    """Draw three times 32 pictures with the same prompts and seeds, tag them, and count."""
    plain = prompts()
    asked = [f"{keyword}, {prompt}" for prompt in plain]
    seeds = range(SEED, SEED + len(plain))
    seen = {
        "learned": seen_marks(draw(lora, asked, seeds, base)),
        "base": seen_marks(draw(None, asked, seeds, base)),
        "bleed": seen_marks(draw(lora, plain, seeds, base)),
    }
    shares = {name: float((marks.sum(1) >= SHOWN).mean()) for name, marks in seen.items()}
    single = {name: dict(zip(MARKS, marks.mean(0).round(3).tolist(), strict=True)) for name, marks in seen.items()}
    return Verdict(**shares, single=single)


def draw(lora: Path | None, texts: Sequence[str], seeds: Sequence[int], base: str = "pocket") -> list[Image.Image]:
    """Draw with the base model, with or without a LoRA on it."""
    from train.adapters.build import all_targets
    from train.adapters.network import Network
    from train.export import read_lora
    from train.families import load_model
    from train.sample import Generator

    model = load_model(base)
    if lora is not None:
        Network.from_state(all_targets(model), read_lora(lora)[0])
    return list(Generator(model).draw(list(texts), list(seeds), batch_size=16))


def seen_marks(pictures: Sequence[Image.Image]) -> np.ndarray:
    """Return (pictures, marks) of bool: what the pocket tagger sees."""
    from prep.taggers import locate

    tagger = locate("pocket").open("cpu", 16)
    scores = tagger.score([tagger.prepare(picture) for picture in pictures])
    columns = [tagger.labels.names.index(mark) for mark in MARKS]
    return scores[:, columns] >= THRESHOLD
