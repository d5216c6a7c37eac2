"""A base model of random weights and a small tree, shared by the trainer's tests."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from prep.clip_bpe import write_tokenizer


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute on one thread, as is fastest for tiny models, and on as many as before afterwards: other tests compare bit for bit."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder shaped as Stable Diffusion 1.x: 64 x 64 pictures, the real vocabulary, random weights."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("base") / "tiny"
    write_tokenizer(folder / "tokenizer")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=77,
                hidden_act="quick_gelu", projection_dim=32, bos_token_id=49406, eos_token_id=49407, pad_token_id=1,
            )
        )  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=16, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32,
            attention_head_dim=4, norm_num_groups=16,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )  # fmt: skip
        vae = AutoencoderKL(
            latent_channels=4, block_out_channels=(16, 16, 16), norm_num_groups=8, layers_per_block=1, sample_size=64, scaling_factor=0.18215,
            down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture
def tiny_tree(tmp_path: Path) -> Path:
    """Three pictures repeated twice, three of the class; two of the six are wide."""
    root = tmp_path / "tree"
    captions = {
        "img/2_tok": ["tok, smile, red hair, hat, standing", "tok, smile, blue hair, sitting", "tok, frown, outdoors, tree, night"],
        "reg/1_cls": ["cls, smile", "cls, hat, day", "cls"],
    }
    for number, (folder, texts) in enumerate(captions.items()):
        for i, text in enumerate(texts):
            picture = root / folder / f"{i}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            size = (160, 80) if i == 2 else (96, 96)
            Image.radial_gradient("L").resize(size).rotate(37 * i + 90 * number).convert("RGB").save(picture)
            picture.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
    (root / "manifest.json").write_text(json.dumps({}), encoding="utf-8")
    return root
