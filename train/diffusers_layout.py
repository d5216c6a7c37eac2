"""The layout of LoRA files that diffusers and PEFT write themselves: module paths as names, alphas in the metadata."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prep.options import UserError
from train.layouts import diffusers_path, kohya_name, stability_path

if TYPE_CHECKING:
    from torch import Tensor

# The key of the metadata without which alphas are lost (diffusers#6087).
ADAPTER_METADATA = "lora_adapter_metadata"
DOWN, UP, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
_SUFFIXES = {"lora_down.weight": DOWN, "lora_up.weight": UP, "dora_scale": MAGNITUDE}


def is_diffusers(keys: Mapping[str, Any]) -> bool:
    """Say whether a file's keys are of this layout."""
    return any(key.endswith((f".{DOWN}", ".lora.down.weight")) for key in keys)


def to_diffusers(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and metadata of a state in kohya's names; raises UserError if it is no LoRA or DoRA."""
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, dict[str, int]] = {}
    alphas: dict[str, dict[str, float]] = {}
    for key, tensor in state.items():
        name, _, suffix = key.partition(".")
        place = diffusers_path(name)
        if place is None or (suffix != "alpha" and suffix not in _SUFFIXES):
            raise UserError(f"{key} has no place in the layout of diffusers, which knows LoRA and DoRA only; keep the layout kohya")
        component, path = place
        # PEFT finds a layer by the end of its path too, so this one is right with and without the level that transformers 5 dropped.
        ending = path.removeprefix("text_model.")
        if suffix == "alpha":
            alphas.setdefault(component, {})[ending] = float(tensor)
            continue
        if suffix == "lora_down.weight":
            ranks.setdefault(component, {})[ending] = tensor.shape[0]
        # PEFT keeps the magnitudes of a linear layer flat, and those of a convolution on the axis of the channels.
        if suffix == "dora_scale":
            tensor = tensor.flatten() if tensor.ndim == 2 else tensor.transpose(0, 1).contiguous()
        # transformers 5.24 asks for the last word, which PEFT's own files lack and its reader takes; diffusers' UNet is loaded by PEFT.
        last = ".weight" if suffix == "dora_scale" and component != "unet" else ""
        tensors[f"{component}.{path}.{_SUFFIXES[suffix]}{last}"] = tensor
    dora = any(MAGNITUDE in key for key in tensors)
    facts = {f"{part}.{key}": value for part in ranks for key, value in _lora_config(ranks[part], alphas.get(part, {}), dora).items()}
    return tensors, {ADAPTER_METADATA: json.dumps(facts, sort_keys=True)}


def _lora_config(ranks: Mapping[str, int], alphas: Mapping[str, float], dora: bool) -> dict[str, Any]:
    """Return the fields of peft.LoraConfig: the most frequent rank and alpha, and the layers that differ from them."""
    scales = {path: alphas.get(path) or float(rank) for path, rank in ranks.items()}
    rank, alpha = Counter(ranks.values()).most_common(1)[0][0], Counter(scales.values()).most_common(1)[0][0]
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {path: own for path, own in ranks.items() if own != rank},
        "alpha_pattern": {path: own for path, own in scales.items() if own != alpha},
        "target_modules": sorted(ranks),
        "use_dora": dora,
        "peft_type": "LORA",
    }


def from_diffusers(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """Return a state in kohya's names; raises UserError if a key has no place in them."""
    import torch

    sdxl = any(key.startswith("text_encoder_2.") or _is_deep(key) or _is_wide(key, tensor) for key, tensor in tensors.items())
    prefixes = {"unet": "lora_unet", "text_encoder": "lora_te1" if sdxl else "lora_te", "text_encoder_2": "lora_te2"}
    facts = _facts(metadata)
    state: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        component, _, rest = key.partition(".")
        ends = {f".{DOWN}": "lora_down.weight", f".{UP}": "lora_up.weight", f".{MAGNITUDE}": "dora_scale", f".{MAGNITUDE}.weight": "dora_scale"}
        ends |= {".lora.down.weight": "lora_down.weight", ".lora.up.weight": "lora_up.weight"}
        end = next((end for end in ends if rest.endswith(end)), None)
        if component not in prefixes or end is None:
            raise UserError(f"the key {key} is of no layer of SD 1.x, 2.x or SDXL; give a LoRA for one of these")
        path = rest.removesuffix(end)
        if component == "unet":
            named = stability_path(path) if sdxl else path
        else:
            named = f"text_model.{path.removeprefix('text_model.')}"
        name, suffix = kohya_name(prefixes[component], named), ends[end]
        if suffix == "dora_scale":
            tensor = tensor.view(-1, 1) if tensor.ndim == 1 else tensor.transpose(0, 1).contiguous()
        state[f"{name}.{suffix}"] = tensor
        if suffix == "lora_down.weight":
            alpha = torch.tensor(_alpha(facts, component, path, tensor.shape[0]))
            # In kohya's layout an alpha is of its layer's type; one that this type does not hold exactly stays in float32.
            state[f"{name}.alpha"] = alpha.to(tensor.dtype) if float(alpha.to(tensor.dtype)) == float(alpha) else alpha
    return state


def _is_deep(key: str) -> bool:
    """Say whether the layer is in a second transformer block of a level, which only SDXL has."""
    return re.search(r"\.transformer_blocks\.[1-9]", key) is not None


def _is_wide(key: str, tensor: Tensor) -> bool:
    return key.endswith((f"attn2.to_k.{DOWN}", "attn2.to_k.lora.down.weight")) and tensor.shape[1] == 2048


def _facts(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        found = json.loads(metadata.get(ADAPTER_METADATA, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _alpha(facts: Mapping[str, Any], component: str, path: str, rank: int) -> float:
    own = facts.get(f"{component}.alpha_pattern") or {}
    return float(own.get(path) or own.get(path.removeprefix("text_model.")) or facts.get(f"{component}.lora_alpha") or rank)
