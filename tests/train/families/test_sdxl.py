"""SDXL: the conditioning and the pictures of diffusers, Stability's layer names, and a LoRA that diffusers takes."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from prep.clip_bpe import write_tokenizer
from tests.train.adapters.bases import LoRANetwork
from tests.train.adapters.full_size import full_size
from train.cache import Store
from train.config import TrainConfig
from train.families import FAMILIES, find_family, load_model
from train.families.sdxl import SDXLModel
from train.run import run
from train.sample import Generator
from train.text_cache import TextCache

GOLDEN = Path(__file__).parent.parent / "data" / "lora-sdxl-dim32-keys.json.gz"
PROMPTS = ["tok, 1girl, smile", "a photo of a cat"]
LAYOUT = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": True, "addition_embed_type": "text_time",
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder shaped as SDXL, with random weights: pictures of 64 x 64."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    folder = tmp_path_factory.mktemp("base") / "xl"
    for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        write_tokenizer(folder / name, pad)
    text = {"vocab_size": 49408, "num_hidden_layers": 3, "num_attention_heads": 4, "bos_token_id": 49406, "eos_token_id": 49407}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = CLIPTextModel(CLIPTextConfig(hidden_size=32, intermediate_size=64, pad_token_id=1, **text))
        second = CLIPTextModelWithProjection(CLIPTextConfig(hidden_size=48, intermediate_size=64, projection_dim=40, pad_token_id=0, **text))
        unet = UNet2DConditionModel(
            sample_size=16, block_out_channels=(32, 32, 64), layers_per_block=2, cross_attention_dim=80, attention_head_dim=(2, 4, 8),
            transformer_layers_per_block=(1, 1, 2), norm_num_groups=16, addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 40, **LAYOUT,
        )  # fmt: skip
        vae = AutoencoderKL(
            latent_channels=4, block_out_channels=(16, 16, 16), norm_num_groups=8, layers_per_block=1, sample_size=64, scaling_factor=0.13025,
            down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        )  # fmt: skip
    StableDiffusionXLPipeline(
        vae, first, second, *(CLIPTokenizer.from_pretrained(folder / name) for name in ("tokenizer", "tokenizer_2")), unet,
        DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def model(base: Path) -> SDXLModel:
    loaded = load_model(str(base))
    assert isinstance(loaded, SDXLModel)
    return loaded


@pytest.fixture
def pipeline(base: Path) -> Any:
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_keys_and_shapes_equal_the_golden_ones() -> None:
    full = full_size("sdxl")
    with torch.device("meta"):
        network = LoRANetwork(full.targets(), 32, 16.0)
    assert full.resolution == 1024
    found = {f"{key}.lora_{half}.weight": list(getattr(layer, half).shape) for key, layer in network.layers.items() for half in ("down", "up")}
    assert found | {f"{key}.alpha": [] for key in network.layers} == json.loads(gzip.decompress(GOLDEN.read_bytes()))


def test_conditioning_is_that_of_diffusers(base: Path, model: SDXLModel, pipeline: Any) -> None:
    assert find_family(base) is FAMILIES["sdxl"]
    for skip in (1, 2):
        with torch.no_grad():
            states, _, pooled, _ = pipeline.encode_prompt(PROMPTS, do_classifier_free_guidance=False, clip_skip=None if skip == 1 else skip - 1)
            ours = model.conditioning(model.tokenize(PROMPTS), skip)
        assert torch.allclose(ours.states, states, atol=1e-5) and ours.pooled is not None and torch.allclose(ours.pooled, pooled, atol=1e-5)
        assert ours.sizes is not None and ours.sizes.tolist() == [[64, 64, 0, 0, 64, 64]] * 2


def test_the_encoders_read_the_same_tokens_and_pad_with_others(model: SDXLModel) -> None:
    ids = model.tokenize(["a cat", "tag, " * 100], 150)
    assert ids.shape == (2, 2, 2, 77)
    assert (ids[0, 0, 0, :4] == ids[0, 1, 0, :4]).all() and ids[0, 0, 0, -1] == 49407 and ids[0, 1, 0, -1] == 0
    with torch.no_grad():
        told = model.conditioning(ids)
    assert told.states.shape == (2, 152, 80) and len(told + told) == 4 and (told + told).states.shape[0] == 4


def test_weights_are_of_tokens_and_kept_captions_hold_all_that_is_told(model: SDXLModel, tmp_path: Path) -> None:
    ids, sizes = model.tokenize(PROMPTS), torch.tensor([[90, 80, 1, 2, 64, 64], [64, 64, 0, 0, 64, 64]])
    weights = torch.linspace(0.5, 1.5, 77).expand(2, 1, 77)
    with torch.no_grad():
        plain, told = model.conditioning(ids, 1, sizes), model.conditioning(ids, 1, sizes, weights)
    torch.testing.assert_close(told.states, plain.states * weights[0, 0, :, None])
    assert plain.pooled is not None and told.pooled is not None and torch.equal(told.pooled, plain.pooled)
    kept = TextCache.open(Store(tmp_path), model, TrainConfig()).conditioning(PROMPTS, sizes)
    assert kept.pooled is not None and kept.sizes is not None and torch.equal(kept.sizes, sizes)
    torch.testing.assert_close(kept.states, plain.states)
    torch.testing.assert_close(kept.pooled, plain.pooled)


@pytest.mark.parametrize("size", [64, (96, 64)])
def test_pictures_equal_diffusers(model: SDXLModel, pipeline: Any, monkeypatch: pytest.MonkeyPatch, size: Any) -> None:
    drawn: list[np.ndarray] = []

    def keep(pixels: torch.Tensor) -> list[None]:
        drawn.extend(pixels.permute(0, 2, 3, 1).numpy())
        return [None] * len(pixels)

    monkeypatch.setattr("train.sample.to_images", keep)
    list(Generator(model).draw(PROMPTS, [1, 2], steps=4, guidance_scale=5.0, negative_prompt="blurry", size=size))
    width, height = (size, size) if isinstance(size, int) else size
    latents = torch.stack([torch.randn(4, height // 4, width // 4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)])
    theirs = pipeline(
        PROMPTS,
        negative_prompt=["blurry"] * 2,
        latents=latents,
        num_inference_steps=4,
        guidance_scale=5.0,
        height=height,
        width=width,
        output_type="np",
    ).images
    assert np.abs(np.stack(drawn) - theirs).max() <= 1e-3


def test_a_trained_file_loads_in_diffusers_without_a_word(
    base: Path, pipeline: Any, tiny_tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "base": str(base), "tree": str(tiny_tree), "output_dir": str(tmp_path / "lora"), "output_name": "mine", "resolution": 64,
        "bucket_reso_steps": 16, "min_bucket_reso": 64, "max_train_steps": 3, "learning_rate": 0.01, "sample_steps": 2, "save_precision": "fp32",
        "network_dim": 4, "keyword": "tok",
    }  # fmt: skip
    file = run(TrainConfig.load({"train": settings}, {})).path
    with safe_open(file, "pt") as opened:
        metadata, keys = opened.metadata(), set(opened.keys())
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0" and metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert {key.split("_text_model")[0] for key in keys if key.startswith("lora_te")} == {"lora_te1", "lora_te2"}
    assert any(key.startswith("lora_unet_input_blocks_4_1_") for key in keys)
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    options = {"latents": latents, "num_inference_steps": 2, "output_type": "np"}
    plain = pipeline(PROMPTS[0], **options).images
    for name in ("diffusers", "peft"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    with caplog.at_level(logging.WARNING):
        pipeline.load_lora_weights(file)
    assert not [record.getMessage() for record in caplog.records if record.name.startswith(("diffusers", "peft"))]
    assert np.abs(pipeline(PROMPTS[0], **options).images - plain).max() > 1e-3, "it does something"
    layers = sum(module.__class__.__module__.startswith("peft.tuners.lora") and hasattr(module, "lora_A") for module in pipeline.unet.modules())
    assert layers == sum(key.startswith("lora_unet") and key.endswith("alpha") for key in keys)
