"""`train info`: what a LoRA file holds, from what it was trained, and whether it is what it says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from train.adapters import kind_of
from train.layouts import layer_names

if TYPE_CHECKING:
    from torch import Tensor

# Prefix of a key in kohya's layout -> the part of the model, as users call it.
PARTS = {"lora_unet_": "UNet", "lora_te_": "text encoder", "lora_te1_": "text encoder 1", "lora_te2_": "text encoder 2"}
# The metadata a user asks for first, and what it is called here.
SETTINGS = {
    "ss_sd_model_name": "base model",
    "ss_base_model_version": "family",
    "modelspec.trigger_phrase": "keyword",
    "ss_resolution": "resolution",
    "ss_clip_skip": "clip skip",
    "ss_steps": "steps",
    "ss_epoch": "epochs",
    "ss_num_train_images": "training samples an epoch",
    "ss_num_reg_images": "regularization samples an epoch",
    "ss_total_batch_size": "batch size",
    "ss_optimizer": "optimizer",
    "ss_unet_lr": "UNet learning rate",
    "ss_text_encoder_lr": "text encoder learning rate",
    "ss_lr_scheduler": "scheduler",
    "ss_seed": "seed",
}
TAGS_SHOWN = 24


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, all metadata included.")
def info(file: Path, as_json: bool) -> None:
    """Show what a LoRA FILE holds: its size, base model, settings, tags, and whether its hashes are right."""
    from train.export import read_file, read_lora

    tensors, metadata = read_file(file)
    facts = {**describe(read_lora(file)[0], metadata), "hashes": hashes(tensors, metadata)}
    if as_json:
        click.echo(json.dumps({"file": str(file), "bytes": file.stat().st_size, **facts, "metadata": metadata}, indent=2, ensure_ascii=False))
    else:
        _show(file, facts)


def describe(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Any]:
    """Gather the facts about a LoRA in plain types."""
    # None is how the field writes "not set"; it is not worth a line.
    settings = {title: metadata[key] for key, title in SETTINGS.items() if metadata.get(key, "None") != "None"}
    return {
        "adapter": kind_of(state) or "unknown",
        "precision": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()}),
        "parts": {title: facts for prefix, title in PARTS.items() if (facts := _part(state, prefix))},
        "settings": settings,
        "tags": count_tags(metadata.get("ss_tag_frequency", "")),
    }


def hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, dict[str, str | None]]:
    """Compute a file's hashes from its tensors as they lie in it, beside those that it says it has."""
    from train.export import lora_hashes

    return {
        key: {"stored": metadata.get(key), "computed": computed, "verdict": _verdict(metadata.get(key), computed)}
        for key, computed in lora_hashes(tensors, metadata).items()
    }


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """Count the layers of one part, their ranks and alphas, and how many change nothing because they are all zero."""
    names = layer_names(key for key in state if key.startswith(prefix))
    if not names:
        return {}
    dims = {name: len(state[f"{name}.lora_down.weight"]) for name in names if f"{name}.lora_down.weight" in state}  # only LoRA has such
    alphas = [float(state[f"{name}.alpha"]) if f"{name}.alpha" in state else float(dim) for name, dim in dims.items()]
    return {
        "layers": len(names),
        "dims": _counted(dims.values()),
        "alphas": _counted(alphas),
        "zero_layers": sum(not state[f"{name}.lora_up.weight"].any() for name in names if f"{name}.lora_up.weight" in state),
    }


def _counted(values: Any) -> dict[str, int]:
    return {f"{value:g}": count for value, count in Counter(values).most_common()}


def count_tags(text: str) -> dict[str, int]:
    """Add up ss_tag_frequency over its folders, most frequent first; what is not that JSON counts as none."""
    try:
        total: Counter[str] = Counter()
        for folder in json.loads(text).values():
            total.update(folder)
    except (ValueError, AttributeError, TypeError):
        return {}
    return dict(total.most_common())


def _verdict(stored: str | None, computed: str) -> str:
    if stored is None:
        return "not stored"
    return "right" if stored == computed else "wrong: the weights or the metadata were changed after saving"


def _show(file: Path, facts: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("file", f"{file} ({file.stat().st_size / 2**20:.1f} MB, {', '.join(facts['precision'])})")
    table.add_row("adapter", facts["adapter"])
    for title, part in facts["parts"].items():
        zero = f", {part['zero_layers']} of them all zero" if part["zero_layers"] else ""
        ranks = f"; dim {_listed(part['dims'])}, alpha {_listed(part['alphas'])}" if part["dims"] else ""
        table.add_row(title, f"{part['layers']} layers{zero}{ranks}")
    for title, value in facts["settings"].items():
        table.add_row(title, value)
    if facts["tags"]:
        table.add_row("tags", ", ".join(f"{tag} {count}" for tag, count in list(facts["tags"].items())[:TAGS_SHOWN]))
    for key, found in facts["hashes"].items():
        table.add_row(key, f"{found['computed']} ({found['verdict']})")
    # Captions may hold square brackets, which rich would take for its own markup.
    Console(markup=False, highlight=False, soft_wrap=False).print(table)


def _listed(counts: Mapping[str, int]) -> str:
    return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{value} ({count})" for value, count in counts.items())
