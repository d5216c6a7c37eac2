"""Are pictures and captions encoded as fast as the encoders can, with decoding, hashing and writing beside them?

usage: python -m benchmarks.caching BASE [--pictures 12] [--side 256] [--rounds 3]

A tree of JPEG pictures, each twice as wide and high as what is encoded, is encoded into an empty cache: by the stage alone, and by all that a run
does before its first step (`TrainingSet.load`, which looks at the pictures and hashes the encoders, too). In turns with it the encoders alone
take the same pixels and tokens from memory. Said is how much of a stage's time the encoders alone need, by the time that passed and by that of
the processor, which other programs disturb less; medians, 1 is the bound.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from train.cache import Store
from train.config import TrainConfig
from train.dataset import TrainingSet
from train.families import load_model
from train.families.sd import Model
from train.latents import LatentCache, Wanted
from train.text_cache import TextCache, tokenized
from train.views import bucket_pixels


def tree(root: Path, count: int, side: int) -> None:
    """Write so many pictures of coarse noise, with captions."""
    folder, draw = root / "img" / "1_tok", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        small = Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        small.resize((2 * side, 2 * side), Image.Resampling.BICUBIC).save(folder / f"{number:03d}.jpg", quality=92)
        (folder / f"{number:03d}.txt").write_text(f"tok, smile, hat, standing, number {number}\n", encoding="utf-8")


def seconds(work: Callable[[], object]) -> np.ndarray:
    """Return the seconds that pass while something is done, and those of the processor, on all threads together."""
    before = np.array([time.perf_counter(), time.process_time()])
    work()
    return np.array([time.perf_counter(), time.process_time()]) - before


def shares(root: Path, model: Model, config: TrainConfig) -> dict[str, np.ndarray]:
    """Encode the tree once in each way; returns the shares of each stage's time, of both kinds, that the encoders alone need."""
    loaded: list[TrainingSet] = []
    whole = seconds(lambda: loaded.append(TrainingSet.load(config, model)))
    wanted = [Wanted(picture.digest, picture.view(0, False), picture.pixels) for picture in loaded[0].pictures]
    captions = [picture.caption for picture in loaded[0].pictures]
    pixels = [bucket_pixels(one.image(), one.view)[None] for one in wanted]
    tokens = [tokenized([caption], model, config).input_ids for caption in captions]
    latents = LatentCache.open(Store(root / "latents"), model)
    text = TextCache.open(Store(root / "text"), model, config)
    with torch.no_grad():
        vae = seconds(lambda: [model.encode_images(one) for one in pixels])
        pictures_stage = seconds(lambda: list(latents.prepare(wanted)))
        encoder = seconds(lambda: [model.conditioning(one) for one in tokens])
        captions_stage = seconds(lambda: [text.prepare(caption) for caption in captions])
    return {"pictures": vae / pictures_stage, "captions": encoder / captions_stage, "all before the first step": (vae + encoder) / whole}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    model, found = load_model(args.base), []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            tree(root / "tree", args.pictures, args.side)
            settings = {"base": args.base, "tree": str(root / "tree"), "resolution": args.side, "min_bucket_reso": 64}
            settings |= {"train_text_encoder": False, "shuffle_caption": False, "validation_split": 0.0}
            found.append(shares(root, model, TrainConfig.load({"train": settings}, {})))
    medians = {
        f"{stage}, of {kind}": round(statistics.median(float(one[stage][place]) for one in found), 3)
        for stage in found[0]
        for place, kind in enumerate(("the wall", "the processor"))
    }
    print(json.dumps({**medians, "load of the machine": os.getloadavg()[0]}, indent=1))


if __name__ == "__main__":
    main()
