"""Write the base model as a diffusers folder that every reader of Stable Diffusion checkpoints takes."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.pocket import base
from prep.clip_bpe import write_tokenizer
from prep.options import atomic_write

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

PARTS = {"vae": ("diffusers", "AutoencoderKL"), "text_encoder": ("transformers", "CLIPTextModel"), "tokenizer": ("transformers", "CLIPTokenizer"),
         "unet": ("diffusers", "UNet2DConditionModel"), "scheduler": ("diffusers", "DDIMScheduler"), "safety_checker": (None, None),
         "feature_extractor": (None, None), "image_encoder": (None, None)}  # fmt: skip
CLASSIC_PREFIX = "text_model."  # transformers 5 saves the encoder's names without it, all older readers want it


def export_base(coder: AutoencoderKL, unet: UNet2DConditionModel, text: CLIPTextModel, folder: Path) -> None:
    """Write the three networks in float16 with tokenizer and scheduler; the folder is put in place whole."""
    from diffusers import DDIMScheduler

    fresh, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for left_over in (fresh, old):
        shutil.rmtree(left_over, ignore_errors=True)
    for name, network in (("vae", coder), ("unet", unet), ("text_encoder", text)):
        copy.deepcopy(network).half().save_pretrained(fresh / name)
    _add_classic_prefix(fresh / "text_encoder" / "model.safetensors")
    write_tokenizer(fresh / "tokenizer")
    DDIMScheduler(**base.SCHEDULE).save_pretrained(fresh / "scheduler")
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.35.0", "requires_safety_checker": False, **PARTS}
    atomic_write(fresh / "model_index.json", json.dumps(index, indent=2) + "\n")
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _add_classic_prefix(path: Path) -> None:
    from safetensors.torch import load, save

    tensors = load(path.read_bytes())
    named = {name if name.startswith(CLASSIC_PREFIX) else CLASSIC_PREFIX + name: tensor for name, tensor in tensors.items()}
    atomic_write(path, save(named, {"format": "pt"}))
