"""How fast does `prep regularize` draw, and are its pictures what they should be? Against a bare loop of a diffusers pipeline.

usage: python -m benchmarks.regularize [--base pocket] [--pictures 32] [--batch 8] [--steps 25] [--size 0] [--precision auto] [--kills 3]

Throughput: from the loaded model to pictures on the disk, ours with captions, metadata, checks and the stock, the loop's with `save`;
pairs of runs take turns, the ratio is the median over the pairs; the loop computes in fp32, on a GPU in fp16. Beside it, how far our pictures
are from the loop's (mean difference of a channel, of 1), which start from the same noise. Batch against single: largest difference of any
channel, of 1.
Kills: a run is killed so often; afterwards there must be exactly as many pictures, the same as of a run in peace.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAIRS = 3
PROMPT = "1girl, solo"


def bare_loop(base: str, args: argparse.Namespace) -> Callable[[Path], None]:
    """Return what everybody would write: a pipeline, a loop over batches, a generator for each picture."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    gpu = torch.cuda.is_available()
    pipe = StableDiffusionPipeline.from_pretrained(base, safety_checker=None, torch_dtype=torch.float16 if gpu else torch.float32)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.to("cuda" if gpu else "cpu")
    pipe.set_progress_bar_config(disable=True)

    def draw(folder: Path) -> None:
        for start in range(0, args.pictures, args.batch):
            seeds = range(start, min(start + args.batch, args.pictures))
            generators = [torch.Generator().manual_seed(1000 + seed) for seed in seeds]
            side = {"height": args.size, "width": args.size} if args.size else {}
            made = pipe([PROMPT] * len(generators), num_inference_steps=args.steps, guidance_scale=5.0, generator=generators, **side)
            for seed, image in zip(seeds, made.images, strict=True):
                image.save(folder / f"{seed:05d}.png")

    return draw


def ours(base: str, args: argparse.Namespace) -> Callable[[Path], None]:
    """Return the command's own way from jobs to files, with a model that is loaded already, as the loop's is."""
    from prep.drawing import Drawer, Job
    from prep.stock import Shelf
    from train.sample import load_generator

    generator = load_generator(base, precision=args.precision)
    settings: dict[str, Any] = {"steps": args.steps, "guidance_scale": 5.0, "negative_prompt": ""}

    def draw(folder: Path) -> None:
        shelf = Shelf(folder / ".stock")
        drawer = Drawer(folder, lambda: generator, settings, {"base": base}, args.batch, shelf)
        drawer.fill([Job(index, PROMPT, 1000 + index, args.size or None) for index in range(args.pictures)], lambda made: made)

    return draw


def seconds(draw: Callable[[Path], None]) -> tuple[float, float]:
    """Return the seconds that passed and those that the processor worked; on a machine shared with others the second tell more."""
    with tempfile.TemporaryDirectory() as name:
        started = time.perf_counter(), time.process_time()
        draw(Path(name))
        return time.perf_counter() - started[0], time.process_time() - started[1]


def apart(first: Callable[[Path], None], second: Callable[[Path], None]) -> float:
    """Return the mean difference of a channel (0..1) between the pictures that both draw."""
    import numpy as np
    from PIL import Image

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        first(Path(one))
        second(Path(other))
        pairs = [(path, Path(other) / path.name) for path in sorted(Path(one).glob("[!.]*.png"))]
        return float(np.mean([np.abs(np.asarray(Image.open(a), float) - np.asarray(Image.open(b), float)).mean() / 255 for a, b in pairs]))


def batch_against_single(base: str, args: argparse.Namespace) -> float:
    """Return the largest difference of a channel (0..1), before rounding to bytes, between batched and single pictures of equal seeds."""
    import torch

    from train import sample

    generator, kept = sample.load_generator(base, precision=args.precision), []
    to_images = sample.to_images
    sample.to_images = lambda pixels: kept.extend(pixels.float().cpu()) or [None] * len(pixels)  # type: ignore[assignment, return-value, func-returns-value]
    try:
        for batch in (args.batch, 1):
            list(generator.draw([PROMPT] * args.batch, [*range(args.batch)], steps=args.steps, batch_size=batch, size=args.size or None))
    finally:
        sample.to_images = to_images
    return float((torch.stack(kept[: args.batch]) - torch.stack(kept[args.batch :])).abs().max())


def killed(args: argparse.Namespace) -> dict[str, Any]:
    """Kill runs at growing moments, then let one finish; compare with a run in peace."""
    with tempfile.TemporaryDirectory() as name:
        calm, stormy = Path(name) / "calm", Path(name) / "stormy"
        options = ["--class", PROMPT, "-n", str(args.pictures), "--steps", str(args.steps), "--base", args.base, "--no-stock", "--batch-size", "4"]
        command = [sys.executable, "-m", "prep", "regularize"]
        started = time.perf_counter()
        subprocess.run([*command, str(calm), *options], check=True, capture_output=True)
        whole, there = time.perf_counter() - started, []
        for number in range(args.kills):
            process = subprocess.Popen([*command, str(stormy), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(whole * (0.5 + 0.4 * number / max(1, args.kills)))
            process.send_signal(signal.SIGKILL)
            process.wait()
            there.append(len(list(stormy.glob("[!.]*.png"))))
        subprocess.run([*command, str(stormy), *options], check=True, capture_output=True)
        ours, theirs = ({path.name: path.read_bytes() for path in folder.glob("[!.]*")} for folder in (stormy, calm))
        return {"pictures after each kill": there, "at the end": len(list(stormy.glob("[!.]*.png"))), "equal to a run in peace": ours == theirs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="pocket")
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "fp16", "bf16"))
    parser.add_argument("--kills", type=int, default=3)
    args = parser.parse_args()
    from train.families import find_base

    theirs, mine = bare_loop(str(find_base(args.base)), args), ours(args.base, args)
    differ = apart(theirs, mine)  # the first run warms up
    pairs = [(seconds(theirs), seconds(mine)) for _ in range(PAIRS)]
    figures = {
        "throughput of the bare loop's": round(statistics.median(bare[0] / own[0] for bare, own in pairs), 3),
        "the same by processor time": round(statistics.median(bare[1] / own[1] for bare, own in pairs), 3),
        "pictures a second": round(args.pictures / statistics.median(own[0] for _, own in pairs), 2),
        "pictures against the loop's": round(differ, 5),
        "batch against single": batch_against_single(args.base, args),
        "killed": killed(args) if args.kills else "not asked for",
        "load of the machine": os.getloadavg()[0],
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
