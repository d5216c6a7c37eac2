"""`train extract`: the difference of two base models as a LoRA."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prep.options import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from train.tools.base_layers import BaseLayers

# A layer whose weights differ by no more than this, which is less than one step of fp16 at 0.01, is the base's own.
SAME = 1e-6
# Beyond this side the singular values are found by random projection, with that many extra columns and rounds.
# Measured on 1280 x 1280, rank 32, one core: 0.03 s in place of 0.47 s; of a tuned model's kind of difference (rank 40 and noise) it keeps
# the same norm to 1e-7, of pure noise 29.3 % where 30.2 % is the best.
LARGE, EXTRA, ROUNDS = 512, 16, 4
# Of the largest singular value, times the root of the longer side: what computing in float32 adds.
OWN = 3e-7


@click.command()
@click.argument("base")
@click.argument("tuned")
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="The LoRA file to write.")
@click.option("--dim", "-d", type=click.IntRange(1), default=64, show_default=True, help="Highest rank of a layer.")
@click.option("--conv-dim", type=click.IntRange(0), default=0, show_default=True, help="Rank of the residual blocks' layers; 0 leaves them out.")
@click.option("--precision", type=click.Choice(["fp16", "bf16", "fp32"]), help="Precision of the result, by default that of TUNED.")
def extract(base: str, tuned: str, output: Path, dim: int, conv_dim: int, precision: str | None) -> None:
    """Write what TUNED has over BASE as a LoRA; both are base models of one family, as files, folders or hub ids."""
    from train.tools.base_layers import open_base
    from train.tools.updates import precision_of, save_derived

    if output.exists():
        raise UserError(f"{output} is there already; give another name, or delete it")
    first, second = open_base(base), open_base(tuned)
    if first.family != second.family:
        raise UserError(f"{base} is {first.family.title} and {tuned} is {second.family.title}; give two models of one family")
    found, kept, whole = {}, 0.0, 0.0
    for name, difference, rank, noise in differences(first, second, dim, conv_dim):
        layer, part, total = low_rank(difference, rank, noise)
        kept, whole = kept + part, whole + total
        if part:
            found[name] = layer
    if not found:
        raise UserError(f"{base} and {tuned} do not differ in any layer that a LoRA can hold, or by rounding only; give two models that differ")
    version = second.family.version(second.model.prediction_type == "v_prediction")
    metadata = {"ss_base_model_version": version, "ss_v2": str(version.startswith("sd_v2")), "ss_network_module": "networks.lora"}
    types = {name: second.weight(name) for name in list(found)[:1]}
    save_derived(output, found, metadata, precision or precision_of(types))
    click.echo(f"{output}: {len(found)} layers that differ, {(kept / whole) ** 0.5:.1%} of the difference's norm")


def differences(first: BaseLayers, second: BaseLayers, dim: int, conv_dim: int) -> Iterator[tuple[str, Tensor, int, float]]:
    """Yield (name, difference in float32, rank, largest singular value that rounding alone may give) of the layers that differ."""
    plain = {target.name for target in first.model.targets()}
    for name, slot in first.slots.items():
        rank = dim if name in plain else conv_dim
        if not rank:
            continue
        old, new = first.weight(name), second.weight(name)
        if old.shape != new.shape:
            shapes = f"{tuple(old.shape)} in {first.path} and {tuple(new.shape)} in {second.path}"
            raise UserError(f"the layer {slot.name} is {shapes}; give two models of one kind")
        difference = (new.double() - old.double()).float()
        if difference.abs().max() > SAME:
            yield name, difference, rank, rounding_noise(new)


def rounding_noise(weight: Tensor) -> float:
    """Bound the largest singular value of what rounding to the weight's type has added to it.

    A value is off by a twelfth of its step squared, on the mean; the norm of a random matrix with such variances is at most about the
    longest row plus the longest column (arxiv.org/abs/1408.6185).
    """
    import torch

    matrix = weight.flatten(1)
    exponents = torch.frexp(matrix.float())[1].double() - 1
    steps = torch.ldexp(torch.tensor(torch.finfo(weight.dtype).eps).double(), exponents.clamp(min=_lowest(weight)))
    variance = steps.square() / 12
    return float(variance.sum(0).max().sqrt() + variance.sum(1).max().sqrt())


def _lowest(weight: Tensor) -> float:
    """Return the exponent under which the steps of a type get no smaller."""
    import math

    import torch

    return math.log2(torch.finfo(weight.dtype).smallest_normal)


def low_rank(difference: Tensor, rank: int, noise: float = 0.0) -> tuple[dict[str, Tensor], float, float]:
    """Return the LoRA layer next to a difference (out, in[, k, k]), with the squared norms that it keeps and that there are.

    Singular values up to `noise` are left out: they tell of rounding, not of the difference.
    """
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
    own = OWN * max(matrix.shape) ** 0.5 * float(values[0])
    rank = min(rank, int((values > max(noise, own)).sum()))
    root = values[:rank].sqrt()
    up = (u[:, :rank] * root).view(len(matrix), rank, *[1] * (difference.ndim - 2))
    layer = {UP: up, DOWN: (root[:, None] * v[:, :rank].T).reshape(rank, *difference.shape[1:]), ALPHA: torch.tensor(float(rank))}
    return layer, float(values[:rank].square().sum()), float(matrix.square().sum())
