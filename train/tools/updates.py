"""What the tools compute of a layer: its update's norm, what rounding does to it, and its best approximation of a lower rank.

All of it from the halves, without the whole update: |up down|^2 = tr(up^T up down down^T), and the singular values of up down are those
of R1 R2^T, where up = Q1 R1 and down^T = Q2 R2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prep.options import UserError

UP, DOWN, ALPHA = "lora_up.weight", "lora_down.weight", "alpha"
Tensors = Mapping[str, Tensor]  # of one layer, by suffix


def scale_of(tensors: Tensors) -> float:
    """Return alpha / rank; a missing alpha, or 0, is the rank."""
    rank = tensors[DOWN].shape[0]
    return (float(tensors.get(ALPHA, 0.0)) or rank) / rank


def is_plain(tensors: Tensors) -> bool:
    """Say whether a layer is a LoRA's, two halves and an alpha."""
    return UP in tensors and DOWN in tensors and not set(tensors) - {UP, DOWN, ALPHA}


def update_norm(tensors: Tensors) -> float | None:
    """Return the Frobenius norm of a layer's update; None for kinds whose update also depends on the base."""
    if UP in tensors and DOWN in tensors:
        return _norm(tensors[UP], tensors[DOWN]) * scale_of(tensors)
    if "hada_w1_a" in tensors and "hada_t1" not in tensors:
        products = [tensors[f"hada_w{i}_a"].double() @ tensors[f"hada_w{i}_b"].double() for i in (1, 2)]
        return float((products[0] * products[1]).norm()) * (float(tensors.get(ALPHA, 0.0)) or len(tensors["hada_w1_b"])) / len(tensors["hada_w1_b"])
    return None


def rounding_error(tensors: Tensors, dtype: torch.dtype) -> float:
    """Return |rounded update - update| / |update| for a LoRA layer saved in a type; 0 for an update of 0."""
    up, down = tensors[UP].double(), tensors[DOWN].double()
    rounded = [half.to(dtype).double() for half in (up, down)]
    whole = _norm(up, down)
    difference = _norm(torch.cat([rounded[0], -up], 1), torch.cat([rounded[1], down], 0))
    return difference / whole if whole else 0.0


def _norm(up: Tensor, down: Tensor) -> float:
    left, right = up.double().flatten(1), down.double().flatten(1)
    return float(((left.T @ left) * (right @ right.T)).sum().clamp(min=0).sqrt())


@dataclass(frozen=True)
class Limit:
    """How far the singular values are kept, under the names of sd-scripts.

    sv_fro keeps this share of the norm, sv_cumulative of the values' sum, sv_ratio those of at least the largest over this number.
    """

    rule: str = "sv_fro"
    param: float = 1.0

    def enough(self, values: Tensor) -> int:
        """Return how many of the values, largest first, are enough."""
        if self.rule == "sv_ratio":
            return int((values >= values[0] / self.param).sum())
        powers, param = (values, self.param) if self.rule == "sv_cumulative" else (values.square(), self.param**2)
        return int((powers.cumsum(0) < param * powers.sum() * (1 - 1e-12)).sum()) + 1


ALL = Limit()


def resized(tensors: Tensors, dim: int, limit: Limit = ALL) -> tuple[dict[str, Tensor], float]:
    """Return the best approximation of rank `dim` or less, and the share of the norm it keeps; the scale alpha / rank stays.

    `limit` lowers the rank further. A layer that keeps its rank stays as it is.
    """
    up, down, scale = tensors[UP].double(), tensors[DOWN].double(), scale_of(tensors)
    (q1, r1), (q2, r2) = torch.linalg.qr(up.flatten(1)), torch.linalg.qr(down.flatten(1).T)
    u, values, vt = torch.linalg.svd(r1 @ r2.T)
    rank = rank_for(values, dim, limit)
    if rank == len(tensors[DOWN]):
        return {ALPHA: torch.tensor(scale * rank), **tensors}, 1.0
    root = values[:rank].sqrt()
    new = {
        UP: (q1 @ u[:, :rank] * root).float().view(len(up), rank, *up.shape[2:]),
        DOWN: (root[:, None] * (q2 @ vt[:rank].T).T).float().view(rank, *down.shape[1:]),
        ALPHA: torch.tensor(scale * rank),
    }
    return new, kept_share(values, rank)


def rank_for(values: Tensor, dim: int, limit: Limit = ALL) -> int:
    """Return the rank that a limit asks for, between 1 and `dim`."""
    return max(1, min(dim, limit.enough(values), len(values))) if values.any() else 1


def kept_share(values: Tensor, rank: int) -> float:
    """Return the share of the norm that the first `rank` singular values hold."""
    total = float(values.square().sum())
    return (float(values[:rank].square().sum()) / total) ** 0.5 if total else 1.0


def halves_of_loha(tensors: Tensors) -> dict[str, Tensor]:
    """Return the plain LoRA, of rank r * r, whose update is a LoHa's: (A1 B1) * (A2 B2) by number has the columns' and rows' products."""
    (a1, b1), (a2, b2) = ((tensors[f"hada_w{i}_a"].double(), tensors[f"hada_w{i}_b"].double()) for i in (1, 2))
    up = torch.einsum("or,os->ors", a1, a2).flatten(1)
    down = torch.einsum("ri,si->rsi", b1, b2).flatten(0, 1)
    scale = (float(tensors.get(ALPHA, 0.0)) or len(b1)) / len(b1)
    return {UP: up, DOWN: down, ALPHA: torch.tensor(scale * len(down))}


def summed(layers: Sequence[tuple[Tensors, float]]) -> dict[str, Tensor]:
    """Return one LoRA layer whose update is the sum of several, each times its strength: exact, its rank is the sum of theirs."""
    ups = [tensors[UP].float() * (strength * scale_of(tensors)) for tensors, strength in layers]
    downs = [tensors[DOWN].float().reshape(-1, *layers[0][0][DOWN].shape[1:]) for tensors, _ in layers]
    up, down = torch.cat([half.reshape(len(half), -1, *ups[0].shape[2:]) for half in ups], 1), torch.cat(downs, 0)
    return {UP: up, DOWN: down, ALPHA: torch.tensor(float(len(down)))}


def plain_layers(state: Mapping[str, Tensor], path: Path, work: str) -> dict[str, dict[str, Tensor]]:
    """Sort a file by layer; raises UserError if it is no plain LoRA, with which alone this `work` can be done."""
    from train.adapters.network import by_layer

    layers = by_layer(state)
    other = next((name for name, tensors in layers.items() if not is_plain(tensors)), None)
    if other:
        raise UserError(f"{path} is no plain LoRA ({other} holds {', '.join(sorted(layers[other]))}), and only these can be {work}")
    return layers


def precision_of(state: Mapping[str, Tensor]) -> str:
    """Return the setting save_precision that a file's numbers have: of the kinds in it the widest, fp32 for what is none of them."""
    from train.export import PRECISIONS

    names = {getattr(torch, theirs): ours for ours, theirs in PRECISIONS.items()}
    found = {names.get(tensor.dtype, "fp32") for key, tensor in state.items() if tensor.is_floating_point() and not key.endswith(".alpha")}
    return found.pop() if len(found) == 1 else "fp32"


def save_derived(path: Path, layers: Mapping[str, Tensors], metadata: Mapping[str, str], precision: str, layout: str = "kohya") -> None:
    """Write what a tool made; ranks and alphas in the metadata follow. Raises UserError if the file is there already."""
    from train.export import save_lora
    from train.result import as_saved, ranks_and_alphas

    if path.exists():
        raise UserError(f"{path} is there already; give another name, or delete it")
    state = as_saved({f"{name}.{suffix}": t.float() for name, tensors in layers.items() for suffix, t in tensors.items()}, precision, layout)
    facts: dict[str, Any] = {key: values for key, values in ranks_and_alphas(state).items() if values}
    several = {f"ss_network_{key[:-1]}": str(values[0]) if len(values) == 1 else "Dynamic" for key, values in facts.items()}
    dropped = {key: value for key, value in metadata.items() if not key.startswith("sshs_") and key != "lora_adapter_metadata"}
    save_lora(path, state, {**dropped, **several}, precision, layout)
