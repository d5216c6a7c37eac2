"""The three readers' rules: they take all of a good file, and each trips over what it trips over in life."""

import gzip
import json
from pathlib import Path

import pytest

from tests.train.adapters.full_size import full_size
from train.adapters.build import all_targets
from train.layouts import diffusers_path, kohya_name, layer_names, stability_path
from train.readers import BaseLayers, a1111_family, layers_of, read_back, sentence

DATA = Path(__file__).parent / "data"
SAYS = {"sd1": {"ss_v2": "False"}, "sd2": {"ss_v2": "True"}, "sdxl": {"ss_base_model_version": "sdxl_base_v1-0"}}
SETS = {"lora-sd15-dim32-keys": "sd1", "lora-sd15-dim32-conv16-keys": "sd1", "lora-sd21-dim32-keys": "sd2", "lora-sdxl-dim32-keys": "sdxl"}
ALL = ("A1111", "ComfyUI", "diffusers")


def golden(name: str) -> dict[str, list[int]]:
    return json.loads(gzip.decompress((DATA / f"{name}.json.gz").read_bytes()))


def base(family: str) -> BaseLayers:
    model = full_size(family)
    return layers_of(family, model.unet, model.text_encoders)


def told(keys: dict[str, list[int]], family: str, metadata: dict[str, str] | None = None) -> str:
    layers = len(layer_names(keys))
    return sentence(read_back(keys, SAYS[family] if metadata is None else metadata, base(family)), ALL, layers)


@pytest.mark.parametrize("name", SETS)
def test_all_take_what_sd_scripts_writes(name: str) -> None:
    keys = golden(name)
    assert told(keys, SETS[name]) == f"A1111, ComfyUI and diffusers take all {len(layer_names(keys))} layers"


@pytest.mark.parametrize("family", SAYS)
def test_all_take_every_layer_that_we_can_train(family: str) -> None:
    keys = {f"{t.name}.lora_{half}.weight": [1] * t.module.weight.ndim for t in all_targets(full_size(family)) for half in ("down", "up")}
    assert told(keys, family).startswith("A1111, ComfyUI and diffusers take all")


def test_a1111_goes_by_the_metadata_alone() -> None:
    assert [a1111_family(m) for m in ({}, {"ss_steps": "1"}, *SAYS.values())] == ["all", "sd1", "sd1", "sd2", "sdxl"]
    text = told(golden("lora-sdxl-dim32-keys"), "sdxl", {"ss_steps": "1"})
    assert text == "ComfyUI and diffusers take all 986 layers; A1111 does not (it shows the file for sd1 only, by ss_base_model_version and ss_v2)"


def test_diffusers_wants_as_many_axes_as_its_layer_has() -> None:
    keys = golden("lora-sd21-dim32-keys")
    keys["lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"] += [1, 1]
    assert told(keys, "sd2").startswith("A1111 and ComfyUI take all 330 layers; diffusers does not (lora_unet_mid_block_attentions_0_proj_in")


def test_kinds_that_diffusers_does_not_know() -> None:
    keys = {f"lora_unet_mid_block_attentions_0_proj_in.hada_w{i}_{half}": [8, 4] for i in (1, 2) for half in "ab"}
    readings = read_back(keys, {}, base("sd1"))
    assert sentence(readings, ("A1111", "ComfyUI"), 1) == "A1111 and ComfyUI take all 1 layers; diffusers cannot read this kind of adapter"


def test_a_name_from_a_module_path_of_today_is_found_by_nobody() -> None:
    """transformers 5 dropped `text_model`: names taken from its paths are what every reader leaves out."""
    keys = {f"lora_te_encoder_layers_0_mlp_fc1.lora_{half}.weight": [4, 4] for half in ("down", "up")}
    assert told(keys, "sd1").startswith("no reader takes all 1 layers; A1111 does not (it has no layer lora_te_encoder_layers_0_mlp_fc1)")


@pytest.mark.parametrize("name", SETS)
def test_names_go_to_paths_and_back(name: str) -> None:
    for layer in layer_names(golden(name)):
        found = diffusers_path(layer)
        assert found, layer
        component, path = found
        if component == "unet":
            assert kohya_name("lora_unet", stability_path(path) if SETS[name] == "sdxl" else path) == layer


@pytest.mark.parametrize("name", ["lora_unet_conv_in", "lora_te_encoder_layers_0_mlp_fc1", "lora_unet_input_blocks_0_0", "other_unet_mid_block", "x"])
def test_names_of_no_layer(name: str) -> None:
    assert diffusers_path(name) is None
