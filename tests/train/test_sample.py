"""Drawn pictures: the same as diffusers draws, alone or in a batch, with and without a saved LoRA; and the sheet."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prep.options import UserError
from tests.train.adapters.bases import LoRANetwork
from train.export import read_lora, save_lora
from train.families import load_model
from train.families.sd import Model
from train.sample import Generator, drawing_type, load_generator, token_length
from train.sheet import grid
from train.tools.drawing import Weighted, attached

PROMPTS = ["tok, 1girl, smile", "a photo of a cat"]


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Model:
    return load_model(str(tiny_base))


@pytest.fixture(scope="module")
def pipeline(tiny_base: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def lora_file(model: Model, tmp_path: Path) -> Path:
    """A saved LoRA strong enough to change every picture."""
    generator = torch.Generator().manual_seed(5)
    network = LoRANetwork(model.targets(), 4, 2.0, generator)
    with torch.no_grad():
        for layer in network.layers.values():
            layer.up.normal_(std=0.3, generator=generator)
    network.remove()
    save_lora(tmp_path / "mine.safetensors", network.state(), {"ss_v2": "False"}, "fp32")
    return tmp_path / "mine.safetensors"


def by_diffusers(pipeline: Any, seeds: list[int], **settings: Any) -> np.ndarray:
    latents = torch.stack([torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    return pipeline(PROMPTS, latents=latents, num_inference_steps=6, output_type="np", **settings).images


def ours(model: Model, monkeypatch: pytest.MonkeyPatch, seeds: list[int], **settings: Any) -> np.ndarray:
    """Our pictures before they are rounded to bytes."""
    drawn: list[np.ndarray] = []

    def keep(pixels: torch.Tensor) -> list[None]:
        drawn.extend(pixels.permute(0, 2, 3, 1).numpy())
        return [None] * len(pixels)

    monkeypatch.setattr("train.sample.to_images", keep)
    list(Generator(model).draw(PROMPTS, seeds, steps=6, **settings))
    return np.stack(drawn)


@pytest.mark.parametrize(
    "settings", [{"guidance_scale": 5.0}, {"guidance_scale": 7.5, "negative_prompt": "bad hands, blurry"}, {"guidance_scale": 1.0}]
)
def test_equals_diffusers(model: Model, pipeline: Any, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    negative = settings.get("negative_prompt", "")
    theirs = by_diffusers(pipeline, [1, 2], **settings | {"negative_prompt": [negative] * 2})
    assert np.abs(ours(model, monkeypatch, [1, 2], **settings) - theirs).max() <= 1e-3


def test_saved_lora_loads_in_diffusers_without_a_word_and_draws_the_same(
    model: Model, pipeline: Any, lora_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = by_diffusers(pipeline, [1, 2], guidance_scale=5.0)
    for name in ("diffusers", "peft", "transformers"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        pipeline.load_lora_weights(lora_file)
    complaints = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    try:
        assert not complaints
        theirs = by_diffusers(pipeline, [1, 2], guidance_scale=5.0)
    finally:
        pipeline.unload_lora_weights()
    network = LoRANetwork.from_state(model.targets(), read_lora(lora_file)[0])
    try:
        mine = ours(model, monkeypatch, [1, 2], guidance_scale=5.0)
    finally:
        network.remove()
    assert np.abs(theirs - plain).max() > 0.05
    assert np.abs(mine - theirs).max() <= 1e-3


def test_every_weight_of_the_file_reaches_diffusers(model: Model, pipeline: Any, lora_file: Path) -> None:
    pipeline.load_lora_weights(lora_file)
    try:
        names = [name for part in (pipeline.unet, pipeline.text_encoder) for name, _ in part.named_parameters()]
    finally:
        pipeline.unload_lora_weights()
    assert sum(name.endswith("lora_A.default_0.weight") for name in names) == len(model.targets())


def test_batch_equals_single_pictures(model: Model) -> None:
    generator = Generator(model)
    prompts, seeds = ["a", "b", "c", "a"], [4, 5, 6, 7]
    together = list(generator.draw(prompts, seeds, steps=4, batch_size=3))
    for image, prompt, seed in zip(together, prompts, seeds, strict=True):
        (alone,) = generator.draw([prompt], [seed], steps=4)
        assert np.abs(np.asarray(image, dtype=int) - np.asarray(alone, dtype=int)).max() <= 1
    assert image.mode == "RGB" and image.size == (64, 64)


def test_size_and_long_prompts(model: Model) -> None:
    (image,) = Generator(model).draw(["tag, " * 60], [1], steps=1, size=(96, 64))
    assert image.size == (96, 64)
    with pytest.raises(UserError, match="size 70x70"):
        list(Generator(model).draw(["a"], [1], size=70))
    assert [token_length([text]) for text in ("a", "tag, " * 40, "tag, " * 75, "tag, " * 400)] == [75, 150, 150, 225]


def test_clip_skip_changes_the_picture(model: Model) -> None:
    first, second = (next(Generator(model, clip_skip).draw(["a cat"], [1], steps=2)).tobytes() for clip_skip in (1, 2))
    assert first != second


def test_generator_for_regularization_loads_a_base(tiny_base: Path) -> None:
    assert len(list(load_generator(str(tiny_base), clip_skip=2).draw(["a"], [1], steps=1))) == 1


def test_half_precision_draws_nearly_the_same(tiny_base: Path, lora_file: Path) -> None:
    whole, half = (load_generator(str(tiny_base), precision=precision) for precision in ("fp32", "bf16"))
    assert (half.model.unet.dtype, half.model.text_encoders[0].dtype, half.model.vae.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    drawn = []
    for generator in (whole, half):
        with attached(generator.model, [Weighted(lora_file)]):
            (image,) = generator.draw(["a cat"], [1], steps=3)
        drawn.append(np.asarray(image, np.float32) / 255)
    assert 0 < np.abs(drawn[0] - drawn[1]).mean() < 0.02


def test_what_is_drawn_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "base.safetensors"
    base.write_bytes(b"")
    for has_bf16, size, expected in ((True, 2 * 10**9, torch.bfloat16), (True, 10**6, torch.float32), (False, 2 * 10**9, torch.float32)):
        monkeypatch.setattr("train.sample.multiplies_bf16", lambda has_bf16=has_bf16: has_bf16)
        os.truncate(base, size)
        assert drawing_type("auto", False, str(base)) == expected
    assert drawing_type("auto", True, str(base)) == torch.float16 and drawing_type("fp32", True, str(base)) == torch.float32
    with pytest.raises(UserError, match="precision is fp16, but there is no GPU"):
        drawing_type("fp16", False, str(base))


def test_sheet_shows_every_picture_large_enough_and_in_place() -> None:
    colours = [[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 0)]]
    rows = [[Image.new("RGB", (64, 64), colour) for colour in row] for row in colours]
    sheet = grid(rows, ["without the LoRA", "with the LoRA, a long label that has to be broken into lines"], ["seed 1", "seed 2"])
    found = {colour: count for count, colour in sheet.getcolors(100000) or ()}
    assert all(found[colour] == 192 * 192 for row in colours for colour in row)
    bare = grid(rows)
    assert bare.width < sheet.width and bare.height < sheet.height
    assert grid(rows, scale=5).width > 2 * 5 * 64
    large = Image.new("RGB", (512, 512), (255, 0, 0))
    assert grid([[large]]).width < 540
