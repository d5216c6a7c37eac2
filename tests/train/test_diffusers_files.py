"""Files of every adapter that diffusers reads, in both layouts: they load without a word and draw the same pictures."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from prep.options import UserError
from tests.train.adapters.bases import shaken
from tests.train.families.test_sdxl import base as sdxl_base  # noqa: F401 (a fixture)
from train.adapters import ADAPTERS
from train.adapters.build import all_targets, build_network
from train.adapters.network import Network
from train.balance import balanced, levelled
from train.config import NetworkConfig
from train.diffusers_layout import from_diffusers, to_diffusers
from train.export import LAYOUTS, read_file, read_lora, save_lora
from train.families import load_model
from train.families.sd import Model
from train.sample import Generator

PROMPTS = ["tok, 1girl, smile", "a photo of a cat"]
CASES = {
    "plain": {},
    "convolutions": {"conv_dim": 3, "conv_alpha": 1.0},
    "many ranks": {"network_reg_dims": "attn1=2 mlp=6", "rs_lora": True},
    "unet only": {"train_text_encoder": False},
}
# What diffusers says of every LoRA of the UNet alone.
SAFE = "This is safe to ignore if LoRA state dict didn't originally have any CLIPTextModel"
LIBRARIES = ("diffusers", "peft", "transformers")


def loaded(base: Path) -> tuple[Model, Any]:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    return load_model(str(base)), pipeline


@pytest.fixture(scope="module")
def sd1(tiny_base: Path) -> tuple[Model, Any]:
    return loaded(tiny_base)


@pytest.fixture(scope="module")
def sdxl(sdxl_base: Path) -> tuple[Model, Any]:  # noqa: F811
    return loaded(sdxl_base)


ALL = [
    *(("lora", case, layout) for case in CASES for layout in LAYOUTS),
    # diffusers leaves the lengths of a DoRA in kohya's layout out, with a warning
    *(("dora", case, "diffusers") for case in ("plain", "convolutions")),
]


@pytest.mark.parametrize(("algo", "case", "layout"), ALL)
def test_sd1_loads_without_a_word_and_draws_the_same(
    sd1: tuple[Model, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture, algo: str, case: str, layout: str
) -> None:
    check(sd1, tmp_path, caplog, NetworkConfig(network_algo=algo, network_dim=4, network_alpha=2.0, **CASES[case]), layout)


@pytest.mark.slow
@pytest.mark.parametrize(("algo", "case", "layout"), ALL)
def test_sdxl_loads_without_a_word_and_draws_the_same(
    sdxl: tuple[Model, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture, algo: str, case: str, layout: str
) -> None:
    check(sdxl, tmp_path, caplog, NetworkConfig(network_algo=algo, network_dim=4, network_alpha=2.0, **CASES[case]), layout)


def check(loaded: tuple[Model, Any], folder: Path, caplog: pytest.LogCaptureFixture, config: NetworkConfig, layout: str) -> None:
    (model, pipeline), file = loaded, folder / "mine.safetensors"
    network = build_network(config, model, torch.Generator().manual_seed(1))
    shaken(network)
    save_lora(file, balanced(levelled(network.state())), {}, "fp32", layout)
    network.remove()
    plain = drawn_by_diffusers(pipeline)
    with pytest.MonkeyPatch.context() as patch:
        for name in LIBRARIES:
            patch.setattr(logging.getLogger(name), "propagate", True)
        with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
            warnings.simplefilter("error")
            pipeline.load_lora_weights(file)
    try:
        assert not [text for record in caplog.records if (text := record.getMessage()) and record.name.startswith(LIBRARIES) and SAFE not in text]
        assert loaded_layers(pipeline) == len(network.layers)
        theirs = drawn_by_diffusers(pipeline)
    finally:
        pipeline.unload_lora_weights()
    read = Network.from_state(all_targets(model), read_lora(file)[0])
    try:
        ours = drawn(model)
    finally:
        read.remove()
    assert len(read.layers) == len(network.layers)
    assert np.abs(theirs - plain).max() > 0.05, "it does something"
    assert np.abs(ours - theirs).max() <= 1e-3


def drawn_by_diffusers(pipeline: Any) -> np.ndarray:
    latents = torch.stack([torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)])
    options = {"num_inference_steps": 2, "guidance_scale": 5.0, "negative_prompt": [""] * 2, "height": 64, "width": 64}
    return pipeline(PROMPTS, latents=latents, output_type="np", **options).images


def drawn(model: Model) -> np.ndarray:
    """Our pictures before they are rounded to bytes."""
    found: list[np.ndarray] = []

    def keep(pixels: torch.Tensor) -> list[None]:
        found.extend(pixels.permute(0, 2, 3, 1).numpy())
        return [None] * len(pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.sample.to_images", keep)
        list(Generator(model).draw(PROMPTS, [1, 2], steps=2, guidance_scale=5.0))
    return np.stack(found)


def loaded_layers(pipeline: Any) -> int:
    parts = [getattr(pipeline, name, None) for name in ("unet", "text_encoder", "text_encoder_2")]
    return sum(name.endswith("lora_A.default_0.weight") for part in parts if part is not None for name, _ in part.named_parameters())


@pytest.mark.parametrize("algo", ["lora", "dora"])
def test_the_layout_of_diffusers_is_read_back_whole(tiny_base: Path, tmp_path: Path, algo: str) -> None:
    network = build_network(NetworkConfig(network_algo=algo, network_dim=4, conv_dim=2), load_model(str(tiny_base)), torch.Generator())
    state = shaken(network).state()
    save_lora(tmp_path / "x.safetensors", state, {"ss_steps": "3"}, "fp32", "diffusers")
    found, metadata = read_lora(tmp_path / "x.safetensors")
    assert metadata["ss_steps"] == "3" and found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)
    raw, _ = read_file(tmp_path / "x.safetensors")
    facts = json.loads(metadata["lora_adapter_metadata"])
    assert all(key.startswith(("unet.", "text_encoder.")) for key in raw)
    assert facts["unet.r"] == 4 and set(facts["unet.rank_pattern"].values()) == {2} and facts["unet.use_dora"] == (algo == "dora")
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert not any(key.endswith("alpha") for key in file.keys())  # noqa: SIM118


def test_pefts_own_file_without_metadata_is_read_with_alpha_as_rank() -> None:
    layer = "unet.mid_block.attentions.0.proj_in"
    tensors = {f"{layer}.lora_A.weight": torch.ones(4, 8), f"{layer}.lora_B.weight": torch.ones(8, 4)}
    state = from_diffusers(tensors, {"lora_adapter_metadata": "broken"})
    assert state["lora_unet_mid_block_attentions_0_proj_in.alpha"] == 4.0 and len(state) == 3


@pytest.mark.parametrize("algo", [name for name in ADAPTERS if name not in ("lora", "dora")])
def test_what_diffusers_cannot_hold_is_one_sentence(tiny_base: Path, algo: str) -> None:
    network = build_network(NetworkConfig(network_algo=algo, network_dim=4), load_model(str(tiny_base)), torch.Generator().manual_seed(0))
    network.remove()
    with pytest.raises(UserError, match="has no place in the layout of diffusers"):
        to_diffusers(network.state())


def test_keys_of_another_program_are_one_sentence() -> None:
    with pytest.raises(UserError, match="is of no layer of SD"):
        from_diffusers({"transformer.blocks.0.attn.lora_A.weight": torch.ones(4, 8)}, {})
