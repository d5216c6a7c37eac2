"""Single-file checkpoints, as people share them: one .safetensors or .ckpt in the layout of the models' own authors.

What a file is follows from the names of its tensors. The configurations lie beside this module, so nothing is fetched. The conversion
of the layout is diffusers' own.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    import pickle
    import zipfile

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))  # the oldest files are no zip
    except pickle.UnpicklingError:
        raise UserError(f"{path} holds code besides weights, or is damaged, and is not opened; take the model's .safetensors file") from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({_reason(error)}); fetch it anew") from None
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no tensors by name; give the file of a base model")
    return {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, torch.Tensor)}


def load_parts(path: Path, family: Family, dtype: torch.dtype, encoders: Sequence[Any], configs: Path | None = None) -> dict[str, Any]:
    """Load what a Model is made of, as `train.families.sd.load_parts` does; `configs` is a diffusers folder, by default the family's own."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm

    configs = configs or CONFIGS / family.name
    state = _plain(read(path))
    options = {"config": str(configs), "local_files_only": True}
    try:
        with _quiet():
            unet = UNet2DConditionModel.from_single_file(state, subfolder="unet", torch_dtype=dtype, **options)
            # The VAE stays in float32: it runs once a picture, and some overflow in half precision.
            vae = AutoencoderKL.from_single_file(state, subfolder="vae", torch_dtype=torch.float32, **options)
            found = [
                create_diffusers_clip_model_from_ldm(kind, state, subfolder=f"text_encoder{f'_{n}' if n > 1 else ''}", torch_dtype=dtype, **options)
                for n, kind in enumerate(encoders, 1)
            ]
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} cannot be loaded as {family.title} ({_reason(error)}); it may be damaged, pruned too far, or an inpainting model"
        ) from None
    for part in (unet, vae, *found):
        part.requires_grad_(False).eval()
    return {"unet": unet, "vae": vae, "text_encoders": found, "scheduler_config": scheduler_config(state, configs)}


def load_vae(path: Path, family: Family) -> Any:
    """Load a VAE of its own from a single file or a diffusers folder, in float32."""
    import torch
    from diffusers import AutoencoderKL

    if not path.exists():
        raise UserError(f"there is no VAE at {path}; give a VAE's file or diffusers folder")
    try:
        with _quiet():
            if path.is_dir():
                vae = AutoencoderKL.from_pretrained(path, torch_dtype=torch.float32, local_files_only=True)
            else:
                options = {"config": str(CONFIGS / family.name), "subfolder": "vae", "local_files_only": True}
                vae = AutoencoderKL.from_single_file(read(path), torch_dtype=torch.float32, **options)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be loaded as a VAE ({_reason(error)}); give a VAE's file or diffusers folder") from None
    return vae.requires_grad_(False).eval()


def scheduler_config(state: dict[str, Tensor], configs: Path) -> dict[str, Any]:
    """Return the noise schedule's configuration with what the checkpoint says of itself: v-prediction, zero terminal SNR."""
    config: dict[str, Any] = json.loads((configs / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    if V_PREDICTION in state:
        config["prediction_type"] = "v_prediction"
    if ZERO_TERMINAL_SNR in state:
        config["rescale_betas_zero_snr"] = True
    return config


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the text encoder of the first anime models the names that all others have."""
    if SIGNS["sd1 (NovelAI)"] not in state:
        return state
    old, new = "cond_stage_model.transformer.", "cond_stage_model.transformer.text_model."
    return {name.replace(old, new) if name.startswith(old) and not name.startswith(new) else name: value for name, value in state.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep diffusers from listing the tensors that a part of the file has no use for."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
