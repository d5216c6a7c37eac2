"""`train resize`: a LoRA of a lower rank, as near to the old one as that rank allows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prep.options import UserError

if TYPE_CHECKING:
    from torch import Tensor

# How sd-scripts calls each rule -> what its number may be.
RULES = {"sv_ratio": "2 or more, such as 10", "sv_cumulative": "a share of at most 1, such as 0.9", "sv_fro": "a share of at most 1, such as 0.95"}


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="The LoRA file to write.")
@click.option("--dim", "-d", type=click.IntRange(1), default=1024, help="The highest rank a layer may keep.")
@click.option("--conv-dim", type=click.IntRange(1), help="The same for 3x3 convolutions, by default as --dim.")
@click.option(
    "--keep", "-k", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Share of each update's norm to keep; lowers the rank by layer."
)
@click.option("--method", type=click.Choice(list(RULES)), help="The rule of sd-scripts by which the rank is lowered, with --param.")
@click.option("--param", type=float, help="Least ratio to the largest singular value; share of their sum; share of the norm (as --keep).")
@click.option("--precision", type=click.Choice(["fp16", "bf16", "fp32"]), help="Precision of the result; by default it is kept.")
def resize(
    file: Path, output: Path, dim: int, conv_dim: int | None, keep: float, method: str | None, param: float | None, precision: str | None
) -> None:
    """Bring the rank of a LoRA FILE down by singular values; says how much of it stays."""
    from train.export import read_lora
    from train.tools.updates import DOWN, Limit, precision_of, resized, save_derived

    rule = read_rule(method, param, keep)
    state, metadata = read_lora(file)
    found, shares = {}, []
    for name, tensors in low_rank_layers(state, file).items():
        wide = tensors[DOWN].ndim == 4 and tensors[DOWN].shape[2] > 1
        found[name], share = resized(tensors, (conv_dim or dim) if wide else dim, Limit(*rule))
        shares.append(share)
    save_derived(output, found, metadata, precision or precision_of(state))
    ranks = sorted(len(tensors[DOWN]) for tensors in found.values())
    click.echo(
        f"{output}: {len(found)} layers of rank {ranks[0]} to {ranks[-1]}, {output.stat().st_size / file.stat().st_size:.0%} of the size; "
        f"the worst layer keeps {min(shares):.1%} of its norm"
    )


def read_rule(method: str | None, param: float | None, keep: float) -> tuple[str, float]:
    """Return the rule and its number; raises UserError if they do not go together."""
    if method is None:
        if param is not None:
            raise UserError("--param is the number of a --method, and none is given; give --method sv_fro, or --keep")
        return "sv_fro", keep
    if param is None or not (param >= 2 if method == "sv_ratio" else 0 < param <= 1):
        raise UserError(f"--method {method} needs --param, {RULES[method]}")
    return method, param


def low_rank_layers(state: Mapping[str, Tensor], path: Path) -> dict[str, dict[str, Tensor]]:
    """Sort a file of LoRA or LoHa by layer, as two halves each; raises UserError for a kind whose update hangs on the base or has no such halves.

    A LoHa's update is the product, number by number, of two of rank r: two halves of rank r * r hold it exactly.
    """
    from train.adapters import kind_of
    from train.adapters.network import by_layer
    from train.tools.updates import halves_of_loha, is_plain

    found = {}
    for name, tensors in by_layer(state).items():
        kind = kind_of(f".{suffix}" for suffix in tensors)
        if is_plain(tensors):
            found[name] = tensors
        elif kind == "loha" and "hada_t1" not in tensors and "dora_scale" not in tensors:
            found[name] = halves_of_loha(tensors)
        else:
            why = "whose lengths belong to the whole update" if "dora_scale" in tensors else "which has no rank of two plain halves"
            raise UserError(f"{path} is a {kind or 'file'} ({name}), {why}; merge it into a base and extract it with the rank you want")
    return found
