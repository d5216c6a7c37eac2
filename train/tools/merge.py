"""`train merge`: several LoRAs become one, exactly, or become part of a base model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from prep.options import UserError


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="The file to write; a folder if --base is one.")
@click.option("--strength", "-s", default="", help="Strength of each file, numbers by commas; empty is 1.")
@click.option("--dim", type=click.IntRange(1), help="Bring the sum of the ranks down to this.")
@click.option("--base", default="", help="Merge into this base model instead: a .safetensors or .ckpt file, a diffusers folder, a hub id.")
@click.option("--precision", type=click.Choice(["fp16", "bf16", "fp32"]), help="Precision of the result; by default it is kept.")
def merge(files: Sequence[Path], output: Path, strength: str, dim: int | None, base: str, precision: str | None) -> None:
    """Add up LoRA FILES into one, whose rank is the sum of theirs, or into a base model."""
    strengths = read_strengths(strength, len(files))
    if base:
        from train.tools.base_merge import merge_into_base

        count = merge_into_base(files, strengths, base, output, precision or "")
        click.echo(f"{output} is {base} with {count} layers changed by {len(files)} LoRAs")
        return
    count = merge_files(files, strengths, output, dim, precision)
    click.echo(f"{output}: {count} layers, the sum of {len(files)} LoRAs" + (f", brought down to rank {dim}" if dim else ""))


def merge_files(files: Sequence[Path], strengths: Sequence[float], output: Path, dim: int | None, precision: str | None) -> int:
    """Write the sum of LoRAs as one, and return how many layers it has."""
    from train.export import read_lora
    from train.tools.updates import plain_layers, precision_of, resized, save_derived, summed

    read = [read_lora(file) for file in files]
    sorted_files = [plain_layers(state, file, "merged") for (state, _), file in zip(read, files, strict=True)]
    names = list(dict.fromkeys(name for layers in sorted_files for name in layers))
    found = {}
    for name in names:
        try:
            found[name] = summed([(layers[name], s) for layers, s in zip(sorted_files, strengths, strict=True) if name in layers])
        except RuntimeError:
            raise UserError(
                f"the layer {name} has another size in each file, so they are for different base models; merge LoRAs of one family"
            ) from None
        if dim:
            found[name], _ = resized(found[name], dim)
    save_derived(output, found, read[0][1], precision or precision_of(read[0][0]))
    return len(names)


def read_strengths(text: str, count: int) -> list[float]:
    """Read as many numbers as there are files; raises UserError."""
    try:
        found = [float(word) for word in text.replace(",", " ").split()] or [1.0] * count
    except ValueError:
        raise UserError(f"--strength {text!r} is no list of numbers; write it as 1,0.5") from None
    if len(found) != count:
        raise UserError(f"there are {count} files and {len(found)} strengths; give one for each file")
    return found
