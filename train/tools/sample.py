"""`train sample`: pictures with LoRA files, on the base that they were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prep.options import UserError

if TYPE_CHECKING:
    from train.prompts import SamplePrompt
    from train.sample import Generator

# Sampler -> how web UIs call it.
NAMES = {"ddim": "DDIM", "euler": "Euler", "dpmpp_2m": "DPM++ 2M"}


@click.command()
@click.argument("files", nargs=-1, type=str, metavar="[FILE|FILE:WEIGHT]...")
@click.option("--lora", "more", multiple=True, metavar="FILE:WEIGHT", help="A further LoRA that acts in the same pass; may be given several times.")
@click.option("--prompt", "-p", "prompts", multiple=True, required=True, help="What to draw; may be given several times.")
@click.option("--negative", default="", help="What not to draw.")
@click.option("--count", "-n", type=click.IntRange(1), default=4, show_default=True, help="Pictures of each prompt.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the first picture; the others count on.")
@click.option("--steps", type=click.IntRange(1), default=25, show_default=True, help="Denoising steps.")
@click.option("--scale", type=click.FloatRange(1), default=5.0, show_default=True, help="Classifier-free guidance; 1 is none.")
@click.option("--weight", type=float, default=1.0, show_default=True, help="Strength of the files that name none.")
@click.option("--size", default="", help="SIDE or WIDTHxHEIGHT in pixels, by default the base's.")
@click.option("--sampler", type=click.Choice(["ddim", "euler", "dpmpp_2m"]), default="ddim", show_default=True, help="How the noise is taken away.")
@click.option("--clip-skip", type=click.IntRange(1), default=1, show_default=True, help="Which layer of the text encoder is read, from the last.")
@click.option("--base", default="", help="Base model; by default what the first file was trained on, without a file pocket.")
@click.option("--out", "-o", type=click.Path(path_type=Path), default=Path("samples"), show_default=True, help="Folder of the pictures.")
def sample(
    files: Sequence[str], more: Sequence[str], prompts: Sequence[str], negative: str, count: int, seed: int, steps: int, scale: float, weight: float,
    size: str, sampler: str, clip_skip: int, base: str, out: Path,
) -> None:  # fmt: skip
    """Draw pictures with LoRA FILES, all of them at once; without a file the base alone."""
    from train.prompts import SamplePrompt
    from train.sample import load_generator
    from train.tools.drawing import attached, base_of, read_size, read_weighted

    loras = [read_weighted(text, weight) for text in (*files, *more)]
    width, height = read_size(size)
    base = base_of(base, [lora.path for lora in loras])
    generator = load_generator(base, clip_skip)
    told = "".join(f", Lora: {lora.label}" for lora in loras) + f", Model: {Path(base).stem}"
    written = []
    with attached(generator.model, loras):
        for number, text in enumerate(prompts):
            prompt = SamplePrompt(text, steps, scale, negative, width, height)
            written += _save(generator, prompt, range(seed, seed + count), sampler, out / f"{number:02d}", told)
    words = f"with {' + '.join(lora.label for lora in loras)}" if loras else "of the base alone"
    click.echo(f"{out} holds {len(written)} pictures {words}: {written[0].name} to {written[-1].name}")


def _save(generator: Generator, prompt: SamplePrompt, seeds: Sequence[int], sampler: str, stem: Path, told: str) -> list[Path]:
    """Draw a prompt with each seed and write the pictures, with how they were drawn; returns their paths."""
    from prep.images import save
    from train.tools.drawing import draw

    paths = [stem.with_name(f"{stem.name}-{seed}.png") for seed in seeds]
    try:
        drawn = draw(generator, [replace(prompt, seed=seed) for seed in seeds], sampler)
        for seed, path, picture in zip(seeds, paths, drawn, strict=True):
            save(picture, path, texts={"parameters": prompt.words(seed).replace("DDIM", NAMES[sampler]) + told})
    except OSError as error:
        raise UserError(f"cannot write {stem.parent} ({error.strerror}); make room, or give another folder with --out") from error
    return paths
