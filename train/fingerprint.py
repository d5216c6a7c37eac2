"""What makes two runs the same run: settings, pictures, captions and base model."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.captions import read_caption
from prep.tree import Folder
from train.config import FREE, OutputConfig, TrainConfig
from train.subsets import read_tree_subsets

if TYPE_CHECKING:
    from torch import nn

MARK = "atelier_run"  # the key in a LoRA file's metadata


def fingerprint_of(config: TrainConfig, folders: Iterable[Folder], base: str, processes: int = 1) -> dict[str, Any]:
    """Say what a run depends on: settings, processes, the tree's content, the base's weights; not paths, so a project may move.

    `base` is the `weights_digest` of the base as it was opened: what holds it in fewer bits afterwards makes it no other base.
    """
    settings = {key: value for key, value in config.flat().items() if key not in FREE}
    start = Path(config.network.network_weights).expanduser()
    digest = hashlib.sha256(start.read_bytes()).hexdigest()[:12] if start.is_file() else ""
    subsets = (*read_tree_subsets(config.data.tree, type(config.data)), *config.data.subsets)
    contents = {"the LoRA it starts from": digest, "the tree": tree_digest(folders), "the base model": base}
    return {**settings, **contents, "processes": processes, "the subsets": "; ".join(map(str, subsets))}


def run_mark(output: OutputConfig, fingerprint: Mapping[str, Any], steps: int, loss: float) -> str:
    """Say in a LoRA file which run made it, so that the same run again finds it done."""
    return json.dumps({"run": _run_id(output, fingerprint), "steps": steps, "loss": loss})


def finished_run(output: OutputConfig, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the mark of the finished LoRA if it is this very run's and nothing is left to do, else None."""
    from safetensors import SafetensorError, safe_open

    path = output.file(".safetensors")
    if not path.exists() or output.file("-state.pt").exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            mark = json.loads((file.metadata() or {}).get(MARK, "{}"))
    except (SafetensorError, ValueError):
        return None  # a broken or foreign file is no result of ours
    return mark if mark.get("run") == _run_id(output, fingerprint) else None


def _run_id(output: OutputConfig, fingerprint: Mapping[str, Any]) -> str:
    facts = json.dumps({**fingerprint, "save_precision": output.save_precision, "save_format": output.save_format}, sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:12]


def tree_digest(folders: Iterable[Folder]) -> str:
    """Hash names and contents of all pictures and captions."""
    digest = hashlib.sha256()
    for folder in folders:
        for picture in folder.pictures:
            with picture.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            caption = read_caption(picture)
            digest.update(f"{folder.is_reg}\0{folder.path.name}\0{picture.name}\0{content}\0{caption}\0".encode())
    return digest.hexdigest()[:12]


def weights_digest(modules: Iterable[nn.Module]) -> str:
    """Hash each tensor's name, shape and a few of its values: quick, and no two bases agree on them.

    The values are rounded to bf16, so that a base is the same before and after it takes that type for the computation.
    """
    import torch

    digest = hashlib.sha256()
    tensors = itertools.chain.from_iterable(module.state_dict().items() for module in modules)
    for name, tensor in tensors:
        flat = tensor.flatten()
        values = flat[:: max(1, len(flat) // 8)].to(torch.bfloat16).tolist()
        digest.update(f"{name}{tuple(tensor.shape)}{values}".encode())
    return digest.hexdigest()[:12]
