"""What a run ends in: the LoRA file, proven by reading it back, and a sheet of sample pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prep.options import UserError
from train.fingerprint import MARK, run_mark
from train.log import track
from train.state import Job, TrainState

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_SEEDS = 4  # pictures per sample prompt

# save_precision -> relative error of rounding to it, and half its smallest step near 0
ROUNDING = {"fp16": (2**-11, 2**-25), "bf16": (2**-8, 2**-134), "fp32": (0.0, 0.0)}


@dataclass(frozen=True)
class RunResult:
    """What a run ended with: the LoRA file, its steps, the mean loss at the end, the sample sheet if one was drawn."""

    path: Path
    steps: int
    loss: float
    samples: Path | None


def save_checked(path: Path, job: Job, state: TrainState) -> None:
    """Write the LoRA with its metadata, read it back and compare."""
    from train.export import save_lora
    from train.metadata import build_metadata

    config = job.config
    progress = {
        "steps": state.step,
        "epochs": state.epoch,
        "max_train_steps": job.steps,
        "started_at": state.started_at,
        "mixed_precision": job.runtime.precision,
    }
    weights, precision = state.network.state(), config.output.save_precision
    metadata = build_metadata(config, job.model, job.data.summary(), progress)
    metadata[MARK] = run_mark(config.output, job.fingerprint, state.step, state.mean_loss)
    save_lora(path, weights, metadata, precision)
    check_saved(path, weights, precision)


def check_saved(path: Path, weights: Mapping[str, Tensor], precision: str) -> None:
    """Read a saved LoRA back; raises UserError if keys, shapes or values are not what was trained, within the precision."""
    from train.export import read_lora

    saved, _ = read_lora(path)
    relative, absolute = ROUNDING[precision]
    wrong = sorted(weights.keys() ^ saved.keys())
    for key in weights.keys() & saved.keys():
        wanted, found = weights[key], saved[key].float()
        if wanted.shape != found.shape or not bool(((wanted - found).abs() <= relative * wanted.abs() + absolute).all()):
            wrong.append(key)
    if wrong:
        raise UserError(
            f"{path} does not hold what was trained ({len(wrong)} tensors differ, {wrong[0]} first); check the disk, "
            'or set save_precision = "fp32", and run again: the trained state is kept'
        )


def draw_samples(job: Job) -> Path | None:
    """Draw each sample prompt with a few seeds into one sheet; None if the settings ask for none."""
    from prep.images import save as save_picture
    from train.sample import Generator, grid

    config, output = job.config, job.config.output
    asked = output.sample_prompts or ", ".join(filter(None, (config.data.keyword, config.data.class_)))
    prompts = [prompt.strip() for prompt in asked.split("|") if prompt.strip()]
    if not (prompts and output.sample_steps):
        return None
    job.model.to(job.runtime.device)
    seeds = [output.seed + i for i in range(SAMPLE_SEEDS)]
    pairs = [(prompt, seed) for prompt in prompts for seed in seeds]
    generator = Generator(job.model, clip_skip=config.model.clip_skip)
    with job.runtime.autocast():
        drawn = generator.draw(
            *zip(*pairs, strict=True), steps=output.sample_steps, guidance_scale=output.guidance_scale, size=config.data.resolution
        )
        pictures = list(track(drawn, "drawing samples", len(pairs)))
    rows = [pictures[i : i + SAMPLE_SEEDS] for i in range(0, len(pictures), SAMPLE_SEEDS)]
    path = output.file("-samples.png")
    save_picture(grid(rows, prompts, [f"seed {seed}" for seed in seeds]), path)
    print(f"{path} shows {len(pictures)} sample pictures")
    return path
