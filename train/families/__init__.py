"""The model families that can be trained: one row each; the base model itself says which row it is."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.clip_bpe import EOS
from prep.options import UserError, load_object
from train.families.base import PARTS, WEIGHT_SUFFIXES, Family, Target, weights_file
from train.families.single_file import SUFFIXES, family_name

if TYPE_CHECKING:
    import torch

    from train.families.sd import Model

__all__ = ["FAMILIES", "Family", "Target", "find_base", "find_family", "load_model"]

FAMILIES: dict[str, Family] = {
    "sd1": Family(
        name="sd1",
        title="Stable Diffusion 1.x",
        resolution=512,
        base_version="sd_v1",
        architecture="stable-diffusion-v1/lora",
        v_architecture="stable-diffusion-v1/lora",
        implementation="diffusers",
        text_encoder_prefixes=("lora_te",),
        pad_ids=(EOS,),
        pipeline="StableDiffusionPipeline",
        unet_facts=(("use_linear_projection", False),),
        module="train.families.sd",
    ),
    "sd2": Family(
        name="sd2",
        title="Stable Diffusion 2.x",
        resolution=768,
        base_version="sd_v2",
        architecture="stable-diffusion-v2-512/lora",
        v_architecture="stable-diffusion-v2-768-v/lora",
        implementation="diffusers",
        text_encoder_prefixes=("lora_te",),
        pad_ids=(0,),
        pipeline="StableDiffusionPipeline",
        unet_facts=(("use_linear_projection", True),),
        module="train.families.sd",
        asks_prediction=True,
    ),
    "sdxl": Family(
        name="sdxl",
        title="Stable Diffusion XL",
        resolution=1024,
        base_version="sdxl_base_v1-0",
        architecture="stable-diffusion-xl-v1-base/lora",
        v_architecture="stable-diffusion-xl-v1-base/lora",
        implementation="https://github.com/Stability-AI/generative-models",
        text_encoder_prefixes=("lora_te1", "lora_te2"),
        pad_ids=(EOS, 0),
        pipeline="StableDiffusionXLPipeline",
        unet_facts=(("addition_embed_type", "text_time"),),
        module="train.families.sdxl",
    ),
}

# Base models that come with the project: name -> "module:PATH", reached by this string only.
EMBEDDED = {"pocket": "pipelines.pocket:BASE"}


def load_model(base: str, dtype: torch.dtype | None = None, *, vae: str = "", prediction_type: str = "", as_stored: bool = False) -> Model:
    """Load a base model, frozen and on the CPU, in `dtype` (default float32); raises UserError if it cannot be used.

    With `as_stored` UNet and text encoders keep the types of the file, and lie nowhere but in its memory map until they are moved.

    `base` is pocket, a diffusers folder, a single file or a hub id. `vae` is a file or folder whose VAE takes the base's place, and
    `prediction_type` overrules what the base says of itself.
    """
    import torch

    path = find_base(base)
    family = find_family(path)
    if path.is_file() and family.asks_prediction and not prediction_type:
        raise UserError(f"{path} does not say what it predicts; give --prediction-type epsilon (the 512 px base) or v_prediction (the 768 px one)")
    model: Model = importlib.import_module(family.module).load(path, family, None if as_stored else dtype or torch.float32)
    if vae:
        from train.families.parts import load_vae

        model.use_vae(load_vae(Path(vae).expanduser(), family))
    if prediction_type:
        model.predict(prediction_type)
        if path.is_file() and family.asks_prediction and prediction_type == "epsilon":
            model.resolution = 512  # the file does not show this either
    return model


def find_base(base: str) -> Path:
    """Return the folder or file of a base model; one that is neither embedded nor there is fetched from the hub."""
    if base in EMBEDDED:
        return Path(load_object(EMBEDDED[base]))
    path = Path(base).expanduser()
    if path.exists():
        return path
    if path.is_absolute() or base.startswith((".", "~")) or base.count("/") != 1 or path.suffix in SUFFIXES:
        raise UserError(f"there is no base model at {base!r}; give pocket, a diffusers folder, a checkpoint file or a hub id such as owner/name")
    return _download(base)


def find_family(path: Path) -> Family:
    """Say which family a base model is of, from its config files or its header alone; raises UserError if it is none of ours."""
    if path.is_file():
        return FAMILIES[family_name(path)]
    pipeline = _read_json(path, "model_index.json").get("_class_name")
    unet = _read_json(path, "unet/config.json")
    for family in FAMILIES.values():
        # Configs of the first releases lack the entry: absent means false.
        if pipeline == family.pipeline and all(unet.get(key, False) == value for key, value in family.unet_facts):
            return family
    known = ", ".join(family.title for family in FAMILIES.values())
    raise UserError(f"{path} is a {pipeline}, which cannot be trained yet; give a base model of {known}")


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no settings")
        return found
    except FileNotFoundError:
        raise UserError(f"{folder} is not a diffusers folder: it has no {name}; give the folder that holds model_index.json") from None
    except ValueError as error:
        raise UserError(f"{folder / name} is not valid JSON ({error}); fetch the base model anew") from None


def _download(repo: str) -> Path:
    """Fetch a base model from the hub: the configs first, so that a wrong family costs no gigabytes, then one weights file a part."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, allow_patterns=["model_index.json", "scheduler/*.json", *(f"{part}/config.json" for part in PARTS)]))
        for part in find_family(folder).parts:
            stem = PARTS[part]
            for suffix in WEIGHT_SUFFIXES:
                if weights_file(folder, part) is None:
                    snapshot_download(repo, allow_patterns=f"{part}/{stem}{suffix}")
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UserError(
            f"there is no folder {repo!r}, and the hub gives no model of that name ({reason}); give pocket, a diffusers folder or a hub id"
        ) from None
    return folder
