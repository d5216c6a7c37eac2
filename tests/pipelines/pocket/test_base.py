"""The embedded base model is a Stable Diffusion folder that diffusers, transformers and our own loader read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.pocket import BASE

CAT = [49406, 320, 1125, 539, 320, 2368, 49407]  # "a photo of a cat"


@pytest.fixture(scope="module")
def pipeline() -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(BASE)


def test_it_is_small_and_nothing_needless_lies_in_it() -> None:
    assert sum(path.stat().st_size for path in BASE.rglob("*")) <= 45_000_000
    assert {path.name for path in (BASE / "tokenizer").iterdir()} == {"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"}
    assert {path.name for path in BASE.iterdir()} == {"model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae"}


def test_its_weights_are_half_precision_and_the_text_encoder_has_the_classic_names() -> None:
    from safetensors import safe_open

    for path in BASE.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}, path  # noqa: SIM118 - not a dict
            if path.parent.name == "text_encoder":
                assert all(name.startswith("text_model.") for name in file.keys())  # noqa: SIM118


def test_its_schedule_is_that_of_stable_diffusion() -> None:
    scheduler = json.loads((BASE / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    wanted = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "epsilon", "clip_sample": False}
    assert wanted.items() <= scheduler.items()


def test_diffusers_loads_it_whole_and_its_tokenizer_is_clips(pipeline: Any) -> None:
    assert pipeline.tokenizer("a photo of a cat").input_ids == CAT
    assert len(pipeline.tokenizer) == 49408
    embedding = pipeline.text_encoder.get_input_embeddings().weight
    assert embedding.shape == (49408, 96) and float(embedding.std()) > 0.01  # the file's values, not left empty
    assert pipeline.vae.config.scaling_factor != 0.18215  # Stable Diffusion's own would be wrong here


def test_our_pipeline_draws_the_same_picture_as_diffusers(pipeline: Any) -> None:
    import numpy as np
    import torch

    from train.sample import load_generator

    prompt = "1girl, solo, blue hair, smile, white background"
    (ours,) = load_generator("pocket").draw([prompt], [3], steps=4)
    latents = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(3))
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline.to(torch.float32)(prompt, latents=latents, num_inference_steps=4, guidance_scale=5.0, height=64, width=64).images[0]
    assert ours.size == theirs.size == (64, 64)
    assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 2


@pytest.mark.slow
def test_its_pictures_show_what_the_prompt_says() -> None:
    from pipelines.pocket.measure import asked_and_seen
    from train.sample import load_generator

    answers = asked_and_seen(load_generator("pocket"))
    assert sum(seen for _, seen in answers) >= RECALL * len(answers)


RECALL = 0.85
