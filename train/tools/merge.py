"""`train merge`: several LoRAs become one, exactly, or become part of a base model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import click

from prep.options import UserError


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="The LoRA file to write, or with --base a folder.")
@click.option("--strength", "-s", default="", help="Strength of each file, numbers by commas; empty is 1.")
@click.option("--dim", type=click.IntRange(1), help="Bring the sum of the ranks down to this.")
@click.option("--base", default="", help="Merge into this base model (a diffusers folder) instead.")
@click.option("--precision", type=click.Choice(["fp16", "bf16", "fp32"]), default="fp16", show_default=True, help="Precision of the LoRA.")
def merge(files: Sequence[Path], output: Path, strength: str, dim: int | None, base: str, precision: str) -> None:
    """Add up LoRA FILES into one, whose rank is the sum of theirs, or into a base model."""
    strengths = read_strengths(strength, len(files))
    if base:
        count = merge_into_base(files, strengths, base, output)
        click.echo(f"{output} is {base} with {count} layers changed by {len(files)} LoRAs")
        return
    from train.export import read_lora
    from train.tools.updates import plain_layers, resized, save_derived, summed

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
    save_derived(output, found, read[0][1], precision)
    click.echo(f"{output}: {len(names)} layers, the sum of {len(files)} LoRAs" + (f", brought down to rank {dim}" if dim else ""))


def read_strengths(text: str, count: int) -> list[float]:
    """Read as many numbers as there are files; raises UserError."""
    try:
        found = [float(word) for word in text.replace(",", " ").split()] or [1.0] * count
    except ValueError:
        raise UserError(f"--strength {text!r} is no list of numbers; write it as 1,0.5") from None
    if len(found) != count:
        raise UserError(f"there are {count} files and {len(found)} strengths; give one for each file")
    return found


def merge_into_base(files: Sequence[Path], strengths: Sequence[float], base: str, output: Path) -> int:
    """Write a diffusers folder whose UNet and text encoders hold the LoRAs; returns how many layers changed."""
    from train.adapters import build
    from train.adapters.network import check_family
    from train.export import read_lora
    from train.families import find_base, load_model

    source = find_base(base)
    if not source.is_dir():
        raise UserError(f"{source} is a single file; give the base as a diffusers folder")
    if output.exists():
        raise UserError(f"{output} is there already; give another name, or delete it")
    model, changed = load_model(base), 0
    targets = build.all_targets(model)
    for file, strength in zip(files, strengths, strict=True):
        state, _ = read_lora(file)
        check_family(state, targets, str(file))
        changed = max(changed, build.merge(state, targets, strength))
    partial = output.with_name(f".{output.name}.part")  # the folder appears whole or not at all
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.safetensors.index.json", "*.ckpt"))
    for name in model.family.parts:
        encoders = {"text_encoder": 0, "text_encoder_2": 1}
        part = model.text_encoders[encoders[name]] if name in encoders else getattr(model, name)
        part.save_pretrained(partial / name)
    partial.rename(output)
    return changed
