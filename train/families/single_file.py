"""Single-file checkpoints, as people share them: one .safetensors or .ckpt in the layout of the models' own authors.

What a file is follows from the names of its tensors. The configurations lie beside this module, so nothing is fetched.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.options import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from train.families.base import Family

CONFIGS = Path(__file__).parent / "configs"
SUFFIXES = (".safetensors", ".ckpt", ".pt", ".bin")
UNET = "model.diffusion_model.input_blocks.0.0.weight"
# A tensor that checkpoints of the family hold and those of the others do not.
SIGNS = {
    "sdxl": "conditioner.embedders.1.model.ln_final.weight",
    "sd2": "cond_stage_model.model.ln_final.weight",
    "sd1": "cond_stage_model.transformer.text_model.final_layer_norm.weight",
    "sd1 (NovelAI)": "cond_stage_model.transformer.final_layer_norm.weight",  # the first anime models lack a level in the names
}
V_PREDICTION, ZERO_TERMINAL_SNR = "v_pred", "ztsnr"  # empty tensors by which SDXL checkpoints say so


def tensor_names(path: Path) -> set[str]:
    """Return the names of a checkpoint's tensors; of a .safetensors file only the header is read."""
    if path.suffix != ".safetensors":
        return set(read(path))
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("its header is longer than the file")
            return set(json.loads(file.read(length))) - {"__metadata__"}
    except (struct.error, ValueError, TypeError) as error:
        raise UserError(f"{path} is no readable .safetensors file ({error}); fetch it anew") from None


def family_name(path: Path) -> str:
    """Say which family a checkpoint is of; raises UserError if it is none of ours."""
    names = tensor_names(path)
    if UNET not in names:
        kind = "a LoRA" if any(name.startswith("lora_") for name in names) else "no Stable Diffusion checkpoint"
        raise UserError(f"{path} is {kind}: it holds no {UNET}; give the file of a base model")
    for name, sign in SIGNS.items():
        if sign in names:
            return name.partition(" ")[0]
    raise UserError(f"{path} holds no text encoder of SD 1.x, SD 2.x or SDXL; give a checkpoint that is whole")


def read(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a checkpoint; raises UserError for a file that is broken or that holds code."""
    from train.families.parts import UnreadableError, read_tensors

    try:
        return read_tensors(path)
    except UnreadableError as error:
        raise UserError(f"{path} {error}") from None


def load_parts(path: Path, family: Family, dtype: torch.dtype | None, configs: Path | None = None) -> dict[str, Any]:
    """Load what a Model is made of, as `train.families.parts` does; `configs` is a diffusers folder, by default the family's own."""
    import torch

    from train.families.parts import empty_parts, fill, model_arguments
    from train.stability import places

    configs = configs or CONFIGS / family.name
    state = _plain(read(path))
    parts = empty_parts(configs, family)
    tensors: dict[str, dict[str, Tensor]] = {}
    for place in places(parts, family.name):
        if place.name in state:
            tensors.setdefault(place.part, {})[place.key] = place.from_file(state[place.name])
    try:
        # The VAE stays in float32: it runs once a picture, and some overflow in half precision.
        found = {part: fill(module, tensors.get(part, {}), torch.float32 if part == "vae" else dtype) for part, module in parts.items()}
    except ValueError as error:
        raise UserError(f"{path} cannot be loaded as {family.title} ({error}); it may be damaged, pruned too far, or an inpainting model") from None
    return model_arguments(found, scheduler_config(state, configs))


def scheduler_config(state: dict[str, Tensor], configs: Path) -> dict[str, Any]:
    """Return the noise schedule's configuration with what the checkpoint says of itself: v-prediction, zero terminal SNR."""
    config: dict[str, Any] = json.loads((configs / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    if V_PREDICTION in state:
        config["prediction_type"] = "v_prediction"
    if ZERO_TERMINAL_SNR in state:
        config["rescale_betas_zero_snr"] = True
    return config


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the text encoder of the first anime models the names that all others have."""
    if SIGNS["sd1 (NovelAI)"] not in state:
        return state
    old, new = "cond_stage_model.transformer.", "cond_stage_model.transformer.text_model."
    return {name.replace(old, new) if name.startswith(old) and not name.startswith(new) else name: value for name, value in state.items()}
