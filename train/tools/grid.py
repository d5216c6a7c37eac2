"""`train grid`: the same prompts and seeds with each LoRA file and strength, side by side."""

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
    from train.sheet import Sheet
    from train.tools.drawing import Weighted

Column = tuple[str, "Sequence[Weighted]"]  # its label, and what acts in it


@click.command()
@click.argument("files", nargs=-1, type=str, required=True, metavar="FILE|FILE:WEIGHT...")
@click.option("--prompts", "-p", "asked", required=True, help="Prompts by |, or a .txt file in sd-scripts' syntax.")
@click.option("--weights", default="", help="Strengths of each file that names none, numbers by commas; each makes a column.")
@click.option("--no-base", is_flag=True, help="Leave out the column of the base alone.")
@click.option("--seeds", "-n", type=click.IntRange(1), default=2, show_default=True, help="Pictures of a prompt that names no seed.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The first seed.")
@click.option("--steps", type=click.IntRange(1), default=25, show_default=True, help="Denoising steps.")
@click.option("--scale", type=click.FloatRange(1), default=5.0, show_default=True, help="Classifier-free guidance; 1 is none.")
@click.option("--negative", default="", help="What not to draw.")
@click.option("--size", default="", help="SIDE or WIDTHxHEIGHT in pixels, by default the base's.")
@click.option("--clip-skip", type=click.IntRange(1), default=1, show_default=True, help="Which layer of the text encoder is read, from the last.")
@click.option("--base", default="", help="Base model; by default what the first file was trained on.")
@click.option("--out", "-o", type=click.Path(path_type=Path), default=Path("grid.png"), show_default=True, help="The picture, a page beside it.")
def grid(
    files: Sequence[str], asked: str, weights: str, no_base: bool, seeds: int, seed: int, steps: int, scale: float, negative: str, size: str,
    clip_skip: int, base: str, out: Path,
) -> None:  # fmt: skip
    """Draw prompts with each of the LoRA FILES and without, as one picture and one page."""
    from train.prompts import SamplePrompt, read_prompts
    from train.sample import load_generator
    from train.tools.drawing import base_of, read_size

    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out} does not end in .png; give the name of a picture, the page is called alike")
    width, height = read_size(size)
    prompts = read_prompts(asked, SamplePrompt("", steps, scale, negative, width, height), "--prompts")
    if not prompts:
        raise UserError(f"--prompts {asked!r} holds no prompt; give prompts by |, or a .txt file with one a line")
    shown = columns(files, weights, not no_base)
    base = base_of(base, [loras[0].path for _, loras in shown if loras])
    sheet = draw_sheet(load_generator(base, clip_skip), shown, with_seeds(prompts, seeds, seed))
    paths = sheet.save(out, f"{Path(base).stem}: {', '.join(dict.fromkeys(lora.path.stem for _, loras in shown for lora in loras))}")
    click.echo(f"{' and '.join(map(str, paths))} show {len(sheet.rows)} rows of {len(shown)}")


def columns(files: Sequence[str], weights: str, with_base: bool) -> list[Column]:
    """List the columns: the base, and each file with each strength; files of one name are told apart by their folders."""
    from train.tools.drawing import Weighted, read_weighted

    try:
        strengths = [float(word) for word in weights.replace(",", " ").split()] or [1.0]
    except ValueError:
        raise UserError(f"--weights {weights!r} is no list of numbers; write it as 0.5,1") from None
    loras = list[Weighted]()
    for text in files:
        named = read_weighted(text)
        loras += [named] if str(named.path) != text else [replace(named, weight=strength) for strength in strengths]
    paths = [lora.path.resolve() for lora in loras]
    labels = [folders_that_tell(path, paths) + label(lora) for path, lora in zip(paths, loras, strict=True)]
    found: list[Column] = [("base alone", ())] if with_base else []
    return [*found, *((text, (lora,)) for text, lora in zip(labels, loras, strict=True))]


def folders_that_tell(path: Path, paths: Sequence[Path]) -> str:
    """Return as many of a file's folders, as a prefix of its name, as tell it from the others of its name; nothing if there are none."""
    others = [other.parent.parts for other in paths if other.stem == path.stem and other != path]
    folders = path.parent.parts
    count = next((n for n in range(len(folders) + 1) if all(folders[len(folders) - n :] != other[len(other) - n :] for other in others)), 0)
    return "".join(f"{folder}/" for folder in folders[len(folders) - count :])


def label(lora: Weighted) -> str:
    """Return a column's label: the file, its strength, and how many steps it was trained."""
    from train.export import read_file

    metadata = read_file(lora.path)[1]
    steps = metadata.get("ss_steps", "None")
    return lora.label + (f"\n{steps} steps" if steps != "None" else "")


def with_seeds(prompts: Sequence[SamplePrompt], count: int, first: int) -> list[SamplePrompt]:
    """Give each prompt that names no seed several, a row each."""
    numbers = range(first, first + count)
    return [replace(prompt, seed=seed) for prompt in prompts for seed in ([prompt.seed] if prompt.seed is not None else numbers)]


def draw_sheet(generator: Generator, shown: Sequence[Column], rows: Sequence[SamplePrompt], sampler: str = "ddim") -> Sheet:
    """Draw each row, a prompt with its seed, in each column."""
    from train.sheet import Sheet
    from train.tools.drawing import attached, draw

    drawn = []
    for _, loras in shown:
        with attached(generator.model, loras):
            drawn.append(draw(generator, rows, sampler))
    pictures = [[column[i] for column in drawn] for i in range(len(rows))]
    return Sheet([text for text, _ in shown], [f"{row.prompt}\nseed {row.seed}" for row in rows], pictures)
