"""Base models of the real dimensions whose weights take no memory, from the configurations that the project ships."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch

import train.families
from train.families import FAMILIES
from train.families.sd import Model
from train.families.sdxl import SDXLModel

CONFIGS = Path(train.families.__file__).parent / "configs"


@cache
def full_size(name: str) -> Model:
    """Make "sd1", "sd2" or "sdxl" on the meta device."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def config(part: str) -> dict[str, Any]:
        return json.loads((CONFIGS / name / part / "config.json").read_text(encoding="utf-8"))

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config("unet"))
        vae = AutoencoderKL(
            block_out_channels=(32, 32, 32, 32), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4
        )
        encoders = [CLIPTextModel(CLIPTextConfig(**config("text_encoder")))]
        if name == "sdxl":
            encoders.append(CLIPTextModelWithProjection(CLIPTextConfig(**config("text_encoder_2"))))
    kind = SDXLModel if name == "sdxl" else Model
    return kind(FAMILIES[name], Path(name), unet=unet, vae=vae, text_encoders=encoders, scheduler_config={})
