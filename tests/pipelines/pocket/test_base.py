"""The embedded base model's files, for readers other than diffusers, and that our own pipeline draws what diffusers draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.pocket import BASE


def test_nothing_needless_lies_in_it() -> None:
    assert {path.name for path in BASE.iterdir()} == {"model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae"}
    assert {path.name for path in (BASE / "tokenizer").iterdir()} == {"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"}


def test_its_weights_are_half_precision_and_the_text_encoder_has_the_classic_names() -> None:
    from safetensors import safe_open

    for path in BASE.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            assert {file.get_slice(name).get_dtype() for name in names} == {"F16"}, path
            assert path.parent.name != "text_encoder" or all(name.startswith("text_model.") for name in names)


def test_the_weights_are_read_and_the_latent_scale_is_its_own() -> None:
    from train.families import load_model

    model = load_model("pocket")
    assert (model.family.name, model.resolution, model.vae_scale) == ("sd1", 64, 4)
    assert model.scaling_factor != pytest.approx(0.18215)  # Stable Diffusion's would be wrong here
    embedding = model.text_encoders[0].text_model.embeddings.token_embedding.weight
    assert embedding.shape == (49408, 96) and float(embedding.std()) > 0.01


def test_our_pipeline_draws_the_same_picture_as_diffusers() -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    from train.families import load_model
    from train.sample import Generator

    prompt = "1girl, solo, blue hair, smile, white background"
    (ours,) = Generator(load_model("pocket")).draw([prompt], [3], steps=4)
    pipeline = StableDiffusionPipeline.from_pretrained(BASE, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    latents = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(3))
    theirs = pipeline(prompt, latents=latents, num_inference_steps=4, guidance_scale=5.0, height=64, width=64).images[0]
    assert ours.size == theirs.size == (64, 64)
    assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 2


def test_export_puts_the_folder_in_place_whole_and_replaces_an_older_one(tmp_path: Path) -> None:
    import torch

    from pipelines.pocket import base, vae
    from pipelines.pocket.export import export_base
    from train.families import load_model

    torch.manual_seed(0)
    parts = vae.build(), base.build_unet(), base.build_text_encoder()
    folder = tmp_path / "base"
    (folder / "left over").mkdir(parents=True)
    export_base(*parts, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["base"] and not (folder / "left over").exists()
    assert all(parameter.dtype is torch.float32 for part in parts for parameter in part.parameters())  # training may go on
    ids = base.token_ids(["1girl, blue hair"])
    with torch.no_grad():
        wanted = parts[2].half().float()(input_ids=ids).last_hidden_state
        torch.testing.assert_close(load_model(str(folder)).conditioning(ids[:, None], 1).states, wanted, atol=1e-4, rtol=1e-3)
