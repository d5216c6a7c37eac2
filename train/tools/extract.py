"""`train extract`: the difference of two base models as a LoRA."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prep.options import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from train.families.sd import Model

# A layer whose weights differ by no more than this, which is less than one step of fp16 at 0.01, is the base's own.
SAME = 1e-6
# Beyond this side the singular values are found by random projection, with that many extra columns and rounds.
# Measured on 1280 x 1280, rank 32, one core: 0.03 s in place of 0.47 s; of a tuned model's kind of difference (rank 40 and noise) it keeps
# the same norm to 1e-7, of pure noise 29.3 % where 30.2 % is the best.
LARGE, EXTRA, ROUNDS = 512, 16, 4


@click.command()
@click.argument("base")
@click.argument("tuned")
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="The LoRA file to write.")
@click.option("--dim", "-d", type=click.IntRange(1), default=64, show_default=True, help="Rank of each layer.")
@click.option("--conv-dim", type=click.IntRange(0), default=0, show_default=True, help="Rank of the residual blocks' layers; 0 leaves them out.")
@click.option("--precision", type=click.Choice(["fp16", "bf16", "fp32"]), default="fp16", show_default=True, help="Precision of the result.")
def extract(base: str, tuned: str, output: Path, dim: int, conv_dim: int, precision: str) -> None:
    """Write what TUNED has over BASE as a LoRA; both are base models of one family."""
    from train.families import load_model
    from train.tools.updates import save_derived

    first, second = load_model(base), load_model(tuned)
    if first.family != second.family:
        raise UserError(f"{base} is {first.family.title} and {tuned} is {second.family.title}; give two models of one family")
    found, kept, whole = {}, 0.0, 0.0
    for name, difference, rank in differences(first, second, dim, conv_dim):
        found[name], part, total = low_rank(difference, rank)
        kept, whole = kept + part, whole + total
    if not found:
        raise UserError(f"{base} and {tuned} do not differ in any layer that a LoRA can hold; give two models that differ")
    version = first.family.version(first.prediction_type == "v_prediction")
    metadata = {"ss_base_model_version": version, "ss_v2": str(version.startswith("sd_v2")), "ss_network_module": "networks.lora"}
    save_derived(output, found, metadata, precision)
    click.echo(f"{output}: {len(found)} layers that differ, {(kept / whole) ** 0.5:.1%} of the difference's norm")


def differences(first: Model, second: Model, dim: int, conv_dim: int) -> Iterator[tuple[str, Tensor, int]]:
    """Yield (name, difference, rank) of the layers that differ."""
    from train.adapters.build import all_targets

    plain = {target.name for target in first.targets()}
    for old, new in zip(all_targets(first), all_targets(second), strict=True):
        rank = dim if old.name in plain else conv_dim
        difference = new.module.weight.float() - old.module.weight.float()  # type: ignore[operator, union-attr]
        if rank and difference.abs().max() > SAME:
            yield old.name, difference, rank


def low_rank(difference: Tensor, rank: int) -> tuple[dict[str, Tensor], float, float]:
    """Return the LoRA layer next to a difference (out, in[, k, k]), with the squared norms that it keeps and that there are."""
    import torch

    from train.tools.updates import ALPHA, DOWN, UP

    matrix = difference.flatten(1)
    rank = min(rank, *matrix.shape)
    if min(matrix.shape) > LARGE and rank + EXTRA < LARGE:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same difference gives the same file
            u, values, v = torch.svd_lowrank(matrix, q=rank + EXTRA, niter=ROUNDS)
    else:
        u, values, vt = torch.linalg.svd(matrix, full_matrices=False)
        v = vt.T
    root = values[:rank].sqrt()
    up = (u[:, :rank] * root).view(len(matrix), rank, *[1] * (difference.ndim - 2))
    layer = {UP: up, DOWN: (root[:, None] * v[:, :rank].T).reshape(rank, *difference.shape[1:]), ALPHA: torch.tensor(float(rank))}
    return layer, float(values[:rank].square().sum()), float(matrix.square().sum())
