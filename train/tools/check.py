"""`train check`: whether a LoRA's numbers are sound: zeros, norms, what half precision costs, with a verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from types import MappingProxyType
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
# Share of numbers with fewer digits than the type has beyond which an update is coarse.
MOST_SUBNORMAL = 0.2
# The text encoder whose last layers no gradient reaches, as clip skip takes an earlier one; SDXL's second gives its last as a whole.
TEXT = re.compile(r"lora_te(1?)_text_model_encoder_layers_(\d+)_")
LAST = (11, 22)  # layers of SD 1.x and SDXL's first encoder, of SD 2.x


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--base", default="", help="Compare the layers' names and shapes with this base model's.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, a line for each file, the norm of each layer included.")
def check(files: Sequence[Path], base: str, as_json: bool) -> None:
    """Check the numbers of LoRA FILES: zeros, norms by block, the error that half precision makes; says what is wrong."""
    from train.export import read_lora

    shapes, broken = base_shapes(base) if base else {}, False
    for file in files:
        state, metadata = read_lora(file)
        facts = examine(state, metadata)
        facts["findings"] += against_base(state, shapes, base) if base else []
        broken |= any(level == "error" for level, _ in facts["findings"])
        if as_json:
            click.echo(json.dumps({"file": str(file), **facts}))
        else:
            _show(file, facts)
    if broken:
        click.get_current_context().exit(1)


def base_shapes(base: str) -> dict[str, tuple[int, ...]]:
    """Return the weights' shapes of a base's layers, by their names in LoRA files; its weights are not read."""
    from train.adapters.build import all_targets
    from train.families import find_base, find_family
    from train.tools.base_layers import bare_model

    path = find_base(base)
    return {target.name: tuple(target.module.weight.shape) for target in all_targets(bare_model(path, find_family(path)))}  # type: ignore[union-attr, arg-type]


def against_base(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], base: str) -> list[tuple[str, str]]:
    """Say which layers the base does not have, or has in another size."""
    from train.adapters.network import by_layer, squeezed
    from train.tools.updates import DOWN, UP

    layers = by_layer(state)
    strange = [name for name in layers if name not in shapes]
    found = []
    if strange:
        found.append(("error", f"{base} has no {strange[0]}, nor {len(strange) - 1} others of {len(layers)} layers; it is a LoRA for another base"))
    halves = {name: t for name, t in layers.items() if name in shapes and UP in t and DOWN in t}
    other = [name for name, t in halves.items() if squeezed((len(t[UP]), *t[DOWN].shape[1:])) != squeezed(shapes[name])]
    if other:
        found.append(("error", f"{len(other)} layers have another size in {base} ({other[0]} first); it is a LoRA for another base"))
    return found


def examine(state: Mapping[str, Tensor], metadata: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
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
        "subnormal_share": sum(map(subnormals, (t[half] for t in halves for half in (UP, DOWN)))) / values if values else 0.0,
        "blocks": block_norms(norms),
        "errors": {name: max((rounding_error(t, dtype) for t in halves), default=0.0) for name, dtype in errors.items()} if not broken else {},
        "norms": norms,
    }
    return {**facts, "findings": list(_findings(facts, broken, metadata.get("ss_clip_skip", "")))}


def subnormals(tensor: Tensor) -> int:
    """Count the numbers that are too small for all digits of their type."""
    import torch

    return int(((tensor != 0) & (tensor.abs() < torch.finfo(tensor.dtype).smallest_normal)).sum())


def block_norms(norms: Mapping[str, float | None]) -> dict[str, float]:
    """Return the norm of the whole update of each block, the root of its layers' squares."""
    found: dict[str, float] = {}
    for name, norm in norms.items():
        if norm is not None:
            block = block_of(name)
            found[block] = (found.get(block, 0.0) ** 2 + norm**2) ** 0.5
    return found


def block_of(name: str) -> str:
    """Return the block of the UNet, or the text encoder, that a layer is in."""
    prefix = next((prefix for prefix in PARTS if name.startswith(prefix)), "")
    match = re.match(r"(?:down_blocks|up_blocks|input_blocks|output_blocks)_\d+|mid_block|middle_block", name.removeprefix(prefix))
    return match[0] if match else PARTS.get(prefix, "other")


def never_trained(name: str, clip_skip: str) -> bool:
    """Say whether no gradient reaches a layer: it lies behind the one that clip skip reads, where the file says none the one before the last."""
    match = TEXT.match(name)
    if not match:
        return False
    skipped = (int(clip_skip) if clip_skip.isdigit() else 1 if match[1] else 2) - 1 + bool(match[1])
    skipped = max(skipped, 1)
    return any(last - skipped < int(match[2]) <= last for last in LAST[: 1 if match[1] else 2])


def _part(prefix: str, norms: Mapping[str, float | None]) -> dict[str, Any]:
    found = [norm for name, norm in norms.items() if name.startswith(prefix) and norm is not None]
    return {"layers": len(found), "median_norm": median(found) if found else 0.0, "max_norm": max(found, default=0.0)}


def _findings(facts: Mapping[str, Any], broken: list[str], clip_skip: str) -> Any:
    norms = {name: norm for name, norm in facts["norms"].items() if norm is not None}
    still = [name for name, norm in norms.items() if norm == 0 and not never_trained(name, clip_skip)]
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
    if facts["subnormal_share"] > MOST_SUBNORMAL:
        yield "warning", f"{facts['subnormal_share']:.0%} of the numbers are too small for all digits of their type; save in bf16 or fp32 next time"
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
    if facts["blocks"]:
        table.add_row("blocks", ", ".join(f"{block} {norm:.3g}" for block, norm in facts["blocks"].items()))
    table.add_row("zeros", f"{facts['zero_share']:.2%} of the numbers in trained layers, too small for all digits {facts['subnormal_share']:.2%}")
    if facts["errors"]:
        table.add_row("rounding", ", ".join(f"{error:.1e} in {name}" for name, error in facts["errors"].items()) + ", of the worst update")
    for level, sentence in facts["findings"]:
        table.add_row(level, sentence)
    table.add_row("verdict", "; ".join(sorted({level for level, _ in facts["findings"]})) or "sound")
    Console(markup=False, highlight=False, soft_wrap=False).print(table)
