"""A base model of Stable Diffusion 1.5's dimensions, with random weights: the chain runs, and the file is what sd-scripts would write."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from safetensors import safe_open

from prep.clip_bpe import write_tokenizer

GOLDEN = Path(__file__).parents[1] / "train" / "data" / "lora-sd15-dim32-keys.json.gz"


@pytest.fixture(scope="module")
def sd15(tmp_path_factory) -> Path:
    """Write a diffusers folder with the shapes of Stable Diffusion 1.5 in fp16 (2 GB)."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("sd15")
    write_tokenizer(folder / "tokenizer")
    torch.set_default_dtype(torch.float16)
    try:
        text_encoder = CLIPTextModel(CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
            bos_token_id=49406, eos_token_id=49407, pad_token_id=1,
        ))  # fmt: skip
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        vae = AutoencoderKL(
            block_out_channels=(32, 64, 64, 64), layers_per_block=1, down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, sample_size=512,
        )  # fmt: skip
    finally:
        torch.set_default_dtype(torch.float32)
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    StableDiffusionPipeline(
        vae, text_encoder, CLIPTokenizer.from_pretrained(folder / "tokenizer"), unet, scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.mark.slow
def test_photographs_and_sd15_shapes(command, photographs, sd15, tmp_path):
    root = tmp_path / "photos"
    assert command("prep", "new", root, "--raw", photographs, "--keyword", "ohwx", "--class", "photo", "--base", sd15).returncode == 0
    prepared = command("prep", "run", root, "--no-regularize")
    assert prepared.returncode == 0, prepared.stderr
    options = ("--max-train-steps", "2", "--network-dim", "32", "--resolution", "128", "--sample-steps", "0", "--save-state-every-n-steps", "0")
    trained = command("train", "run", root, *options)
    assert trained.returncode == 0, trained.stderr
    with gzip.open(GOLDEN, "rt", encoding="utf-8") as golden:
        wanted = json.load(golden)
    with safe_open(root / "lora" / "photos.safetensors", "pt") as file:
        assert {key: list(file.get_slice(key).get_shape()) for key in file.keys()} == wanted  # noqa: SIM118  (not a dict)
