"""`train check`: whether a LoRA's numbers are sound: zeros, norms, what half precision costs, with a verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from train.tools.info import PARTS

if TYPE_CHECKING:
    from torch import Tensor

# Relative error of the updates beyond which half precision is to blame. Measured on 640 x 640, rank 16: a balanced LoRA has 3e-4 in fp16
# and 2.4e-3 in bf16, the types' own digits; an up half of 1e-5 has 1.8e-3 in fp16, of 1e-6 1.7e-2, of 1e-7 0.17.
ERRORS = {"fp16": 2e-3, "bf16": 1e-2}
# Share of zeros in trained layers beyond which numbers were lost in saving. additional-networks#49: LoRAs "without effect" had 20 %.
MOST_ZEROS = 0.05
# A layer whose update is so many times the median's is what a too high rate leaves.
STRAY = 50.0
# Layers that no gradient reaches: behind the layer that clip skip 2 reads, and in SDXL's first encoder always.
NEVER_TRAINED = re.compile(r"lora_te1?_text_model_encoder_layers_(?:11|22)_")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, the norm of each layer included.")
def check(file: Path, as_json: bool) -> None:
    """Check a LoRA FILE's numbers: zeros, norms, the error that half precision makes; says what is wrong."""
    from train.export import read_lora

    facts = examine(read_lora(file)[0])
    if as_json:
        click.echo(json.dumps({"file": str(file), **facts}, indent=2))
    else:
        _show(file, facts)
    if any(level == "error" for level, _ in facts["findings"]):
        click.get_current_context().exit(1)


def examine(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Measure a LoRA; `findings` are (error or warning, sentence), none where all is well."""
    import torch

    from train.adapters.network import by_layer
    from train.tools.updates import DOWN, UP, rounding_error, update_norm

    layers = by_layer(state)
    broken = [key for key, tensor in state.items() if not torch.isfinite(tensor).all()]
    norms = {name: update_norm(tensors) for name, tensors in layers.items()} if not broken else {}
    halves = [t for t in layers.values() if UP in t and DOWN in t and t[UP].any()]
    values = sum(t[half].numel() for t in halves for half in (UP, DOWN))
    errors = {"fp16": torch.float16, "bf16": torch.bfloat16}
    facts: dict[str, Any] = {
        "layers": len(layers),
        "parts": {title: _part(prefix, norms) for prefix, title in PARTS.items() if any(name.startswith(prefix) for name in norms)},
        "zero_share": sum(int((t[half] == 0).sum()) for t in halves for half in (UP, DOWN)) / values if values else 0.0,
        "errors": {name: max((rounding_error(t, dtype) for t in halves), default=0.0) for name, dtype in errors.items()} if not broken else {},
        "norms": norms,
    }
    return {**facts, "findings": list(_findings(facts, broken))}


def _part(prefix: str, norms: Mapping[str, float | None]) -> dict[str, Any]:
    found = [norm for name, norm in norms.items() if name.startswith(prefix) and norm is not None]
    return {"layers": len(found), "median_norm": median(found) if found else 0.0, "max_norm": max(found, default=0.0)}


def _findings(facts: Mapping[str, Any], broken: list[str]) -> Any:
    norms = {name: norm for name, norm in facts["norms"].items() if norm is not None}
    still = [name for name, norm in norms.items() if norm == 0 and not NEVER_TRAINED.match(name)]
    trained = [norm for norm in norms.values() if norm]
    if broken:
        yield "error", f"{len(broken)} tensors hold numbers that are not finite ({broken[0]} first); train again at a lower learning rate"
    elif norms and not trained:
        yield "error", "all updates are zero, so the LoRA does nothing; it was saved before the first step, or its weights were lost in saving"
    elif still:
        yield "warning", f"{len(still)} layers are all zero ({still[0]} first); no gradient reached them, or the rate of their part is 0"
    stray = [name for name, norm in norms.items() if trained and norm > STRAY * median(trained)]
    if stray:
        yield "warning", f"{len(stray)} layers change {STRAY:g} times as much as most ({stray[0]} first); the learning rate may be too high"
    if facts["zero_share"] > MOST_ZEROS:
        yield (
            "warning",
            f"{facts['zero_share']:.0%} of the numbers in trained layers are 0; they were lost in saving, save in bf16 or train with a lower alpha",
        )
    for name, error in facts["errors"].items():
        if error > ERRORS[name]:
            yield "warning", f"saved in {name} as it is, an update would be off by {error:.1%}; `train convert` balances the halves first"


def _show(file: Path, facts: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("file", f"{file}, {facts['layers']} layers")
    for title, part in facts["parts"].items():
        table.add_row(title, f"{part['layers']} layers, norm of an update {part['median_norm']:.3g} in the middle, {part['max_norm']:.3g} at most")
    table.add_row("zeros", f"{facts['zero_share']:.2%} of the numbers in trained layers")
    if facts["errors"]:
        table.add_row("rounding", ", ".join(f"{error:.1e} in {name}" for name, error in facts["errors"].items()) + ", of the worst update")
    for level, sentence in facts["findings"]:
        table.add_row(level, sentence)
    table.add_row("verdict", "; ".join(sorted({level for level, _ in facts["findings"]})) or "sound")
    Console(markup=False, highlight=False, soft_wrap=False).print(table)
