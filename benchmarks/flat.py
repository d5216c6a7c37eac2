"""Do a step's time and memory stay the same from a hundred pictures to ten thousand?

usage: python -m benchmarks.flat [--counts 100 10000] [--base pocket] [--steps 20]

Trees of tiny pictures of noise, with captions, get a cache of latents that are drawn and not encoded, since a step costs the same whatever they
hold; then `train bench` measures the trees in turns, three times each. Said are the medians, and the ratios of the largest tree to the smallest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROUNDS = 3
SIDE = 64
# Fills the cache of the project in a folder as a run does, but for the VAE.
FILL = """
import sys, torch
from pathlib import Path
from prep.options import read_settings
from train.config import TrainConfig
from train.dataset import TrainingSet
from train.families import load_model
from train.families.sd import Model

def drawn(model, pixels):
    shape = (1, 4, *(side // model.vae_scale for side in pixels.shape[2:]))
    return torch.randn(shape), torch.full(shape, 0.1)

Model.encode_images = drawn
root = Path(sys.argv[1])
config = TrainConfig.load(read_settings(root), {}).at(root)
TrainingSet.load(config, load_model(config.model.base))
"""


def project(root: Path, base: str, count: int) -> None:
    """Write a project of so many pictures."""
    import numpy as np
    from PIL import Image

    folder, draw = root / "tree" / "img" / "1_tok", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / f"{number:05d}.png", compress_level=0)
        (folder / f"{number:05d}.txt").write_text(f"tok, smile, hat, standing, number {number}\n", encoding="utf-8")
    settings = [f"resolution = {SIDE}", f"min_bucket_reso = {SIDE}", "network_dim = 4", "validation_split = 0.0", "num_epochs = 1"]
    text = "\n".join([f'[project]\nbase = {json.dumps(base)}\nkeyword = "tok"\n[train]', *settings])
    (root / "dataset.toml").write_text(text + "\n", encoding="utf-8")


def bench(root: Path, steps: int) -> dict[str, Any]:
    """Return what `train bench` says of a project."""
    command = [sys.executable, "-m", "train", "bench", str(root), "--steps", str(steps), "--json"]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--base", default="pocket")
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        roots = {count: Path(name) / str(count) for count in args.counts}
        for count, root in roots.items():
            project(root, args.base, count)
            subprocess.run([sys.executable, "-c", FILL, str(root)], check=True, stdout=sys.stderr)
        rounds = [{count: bench(root, args.steps) for count, root in roots.items()} for _ in range(ROUNDS)]
    figures: dict[str, Any] = {}
    few, many = min(args.counts), max(args.counts)
    for key, values in {
        "step over the bare one": lambda found: 1 / found["share_of_bound"],
        "share of data": lambda found: found["seconds"]["data"] / sum(found["seconds"].values()),
        "step, s": lambda found: found["seconds_per_step"],
        "peak memory, GB": lambda found: found["peak_bytes"] / 1e9,
    }.items():
        medians = {count: statistics.median(values(found[count]) for found in rounds) for count in args.counts}
        figures[key] = {**{str(count): round(value, 4) for count, value in medians.items()}, "ratio": round(medians[many] / medians[few], 3)}
    print(json.dumps({**figures, "load of the machine": os.getloadavg()[0]}, indent=1))


if __name__ == "__main__":
    main()
