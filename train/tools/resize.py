"""`train resize`: a LoRA of a lower rank, as near to the old one as that rank allows."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="The LoRA file to write.")
@click.option("--dim", "-d", type=click.IntRange(1), default=1024, help="The highest rank a layer may keep.")
@click.option(
    "--keep", "-k", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Share of each update's norm to keep; lowers the rank by layer."
)
@click.option("--precision", type=click.Choice(["fp16", "bf16", "fp32"]), default="fp16", show_default=True, help="Precision of the result.")
def resize(file: Path, output: Path, dim: int, keep: float, precision: str) -> None:
    """Bring the rank of a LoRA FILE down by singular values; says how much of it stays."""
    from train.export import read_lora
    from train.tools.updates import DOWN, plain_layers, resized, save_derived

    state, metadata = read_lora(file)
    found, shares = {}, []
    for name, tensors in plain_layers(state, file, "resized").items():
        found[name], share = resized(tensors, dim, keep)
        shares.append(share)
    save_derived(output, found, metadata, precision)
    ranks = sorted(len(tensors[DOWN]) for tensors in found.values())
    click.echo(
        f"{output}: {len(found)} layers of rank {ranks[0]} to {ranks[-1]}, {output.stat().st_size / file.stat().st_size:.0%} of the size; "
        f"the worst layer keeps {min(shares):.1%} of its norm"
    )
