"""`train convert`: the same LoRA in another layout or precision, with its hashes made anew."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="The LoRA file to write.")
@click.option("--format", "layout", type=click.Choice(["kohya", "diffusers"]), default="kohya", show_default=True, help="Layout of the result.")
@click.option("--precision", type=click.Choice(["fp16", "bf16", "fp32"]), default="fp16", show_default=True, help="Precision of the result.")
def convert(file: Path, output: Path, layout: str, precision: str) -> None:
    """Write a LoRA FILE of either layout in another layout or precision; its metadata stay."""
    from train.adapters.network import by_layer
    from train.export import read_lora
    from train.tools.updates import save_derived

    state, metadata = read_lora(file)
    layers = by_layer(state)
    save_derived(output, layers, metadata, precision, layout)
    click.echo(f"{output}: {len(layers)} layers in the layout {layout}, {precision}")
