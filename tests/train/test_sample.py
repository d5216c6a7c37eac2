"""Drawn pictures: the same as diffusers draws, alone or in a batch, with and without a saved LoRA; and the sheet."""

import logging
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
from train.sample import Generator, load_generator, token_length
from train.sheet import grid

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
