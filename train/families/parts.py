"""The parts of a base model: built from their configurations without weights, and filled from a diffusers folder's files.

Weights are memory-mapped: one that is wanted in the type it has on the disk is never copied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from prep.clip_bpe import VOCAB_SIZE
from prep.options import UserError
from train.families.base import Family, weights_file, weights_in
from train.modules.clip import CLIPTextModel, CLIPTextModelWithProjection
from train.modules.unet import UNet2DConditionModel
from train.modules.vae import AutoencoderKL

if TYPE_CHECKING:
    from torch import Tensor

KINDS: dict[str, Any] = {
    "unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection,
}  # fmt: skip
# What the first diffusers folders call the layers of a VAE's attention.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def empty_parts(folder: Path, family: Family) -> dict[str, Any]:
    """Build all parts of a folder's configurations; their weights take no memory. Raises UserError if one cannot be built."""
    return {part: empty_part(part, folder / part) for part in family.parts}


def empty_part(part: str, folder: Path) -> Any:
    """Build one part of the config.json in its folder."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        with torch.device("meta"):
            return KINDS[part](config)
    except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise UserError(f"{folder / 'config.json'} cannot be used ({_reason(error)}); fetch the base model anew") from None


def load_parts(path: Path, family: Family, dtype: torch.dtype | None) -> dict[str, Any]:
    """Load what a Model is made of from a folder; raises UserError if a part is missing, or the parts do not fit each other."""
    found = {}
    for part in family.parts:
        file = weights_file(path, part)
        if file is None:
            raise UserError(f"{path / part} has no weights; fetch the base model anew")
        found[part] = load_part(part, path / part, file, dtype)
    scheduler = json.loads((path / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    arguments = model_arguments(found, scheduler)
    for encoder in arguments["text_encoders"]:
        if encoder.config.vocab_size != VOCAB_SIZE:
            words = encoder.config.vocab_size
            raise UserError(f"the text encoder of {path} knows {words} tokens, not CLIP's {VOCAB_SIZE}; give a base model with CLIP's vocabulary")
    width, reads = sum(encoder.config.hidden_size for encoder in arguments["text_encoders"]), found["unet"].config.cross_attention_dim
    if reads != width:
        raise UserError(f"in {path} the text encoder is {width} wide, but the UNet reads {reads}; fetch the base model anew")
    return arguments


def model_arguments(parts: Mapping[str, Any], scheduler_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a Model is made of, from parts under their names in a diffusers folder."""
    texts = [module for part, module in parts.items() if part.startswith("text")]
    return {"unet": parts["unet"], "vae": parts["vae"], "text_encoders": texts, "scheduler_config": dict(scheduler_config)}


def load_part(part: str, folder: Path, file: Path, dtype: torch.dtype | None) -> Any:
    """Load one part, frozen; a VAE stays in float32: it runs once a picture, and some overflow in half precision."""
    module = empty_part(part, folder)
    try:
        return fill(module, plain_names(part, read_files(file)), torch.float32 if part == "vae" else dtype)
    except UnreadableError as error:
        raise UserError(f"{file} {error}") from None
    except ValueError as error:
        raise UserError(f"{file} cannot be loaded ({_reason(error)}); fetch the base model anew") from None


def fill(module: nn.Module, tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> nn.Module:
    """Give an empty module its weights, frozen, in a type or, with None, in the one that each has.

    Raises ValueError if one is missing or of another shape. Others are left alone.
    """
    weights = {}
    for name, empty in module.state_dict().items():
        if name not in tensors:
            raise ValueError(f"it holds no {name}")
        tensor = tensors[name]
        if _solid(tensor.shape) != _solid(empty.shape):
            raise ValueError(f"{name} is {tuple(tensor.shape)}, not {tuple(empty.shape)}")
        weights[name] = tensor.reshape(empty.shape).to(dtype or tensor.dtype)
    module.load_state_dict(weights, assign=True)
    return module.requires_grad_(False).eval()


def _solid(shape: torch.Size) -> list[int]:
    """Leave out axes of 1: a convolution over one place and a linear layer are the same, and files have either."""
    return [size for size in shape if size != 1]


def plain_names(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors of a diffusers folder the names that our modules have, whatever library wrote it."""
    if part.startswith("text"):
        return {name if name.startswith("text_projection") else f"text_model.{name.removeprefix('text_model.')}": t for name, t in tensors.items()}
    if part == "vae":
        return {".".join(_attention(name.split("."))): tensor for name, tensor in tensors.items()}
    return dict(tensors)


def _attention(levels: list[str]) -> list[str]:
    return [OLD_ATTENTION.get(level, level) for level in levels] if "attentions" in levels else levels


class UnreadableError(ValueError):
    """A file that holds no weights; the rest of a sentence that begins with its path."""


def read_files(file: Path) -> dict[str, Tensor]:
    """Read all tensors of a weights file, or of those that an index lists; raises UnreadableError if one cannot be read."""
    if file.suffix != ".json":
        return read_tensors(file)
    try:
        names = sorted(set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnreadableError(f"cannot be read ({_reason(error)}); fetch it anew") from None
    return {name: tensor for shard in names for name, tensor in read_tensors(file.parent / Path(shard).name).items()}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a .safetensors file or a pickle that holds nothing but weights; raises UnreadableError for any other."""
    import pickle
    import zipfile

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))  # the oldest files are no zip
    except pickle.UnpicklingError:
        raise UnreadableError("holds code besides weights, or is damaged, and is not opened; take the model's .safetensors file") from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnreadableError(f"cannot be read ({_reason(error)}); fetch it anew") from None
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict):
        raise UnreadableError("holds no tensors by name; give the file of a base model")
    return {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, torch.Tensor)}


def load_vae(path: Path, family: Family) -> Any:
    """Load a VAE of its own from a diffusers folder or a single file, in float32; a file's configuration is the family's."""
    from train.families import single_file
    from train.stability import VAE, places

    if not path.exists():
        raise UserError(f"there is no VAE at {path}; give a VAE's file or diffusers folder")
    file = weights_in(path, "diffusion_pytorch_model") if path.is_dir() else path
    try:
        if file is None:
            raise ValueError("it has no weights")
        vae = empty_part("vae", path if path.is_dir() else single_file.CONFIGS / family.name / "vae")
        tensors = plain_names("vae", read_files(file))
        if "encoder.down.0.block.0.conv1.weight" in tensors:  # the authors' own names, with nothing in front
            tensors = {VAE + name: tensor for name, tensor in tensors.items()}
        names = {place.key: place.name for place in places({"vae": vae}, family.name)}
        if any(name.startswith(VAE) for name in tensors):
            tensors = {key: tensors[name] for key, name in names.items() if name in tensors}
        return fill(vae, tensors, torch.float32)
    except ValueError as error:
        raise UserError(f"{path} cannot be loaded as a VAE ({_reason(error)}); give a VAE's file or diffusers folder") from None


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
