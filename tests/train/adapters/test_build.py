"""From settings to a network on the tiny base: rates by group, a start from a file, LoRAs merged first, and what does not fit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from prep.options import UserError
from tests.train.adapters.bases import shaken
from tests.train.families.test_sdxl import base as sdxl_base  # noqa: F401 (a fixture)
from train.adapters.build import all_targets, build_network, merge_base_weights
from train.adapters.network import Network
from train.config import NetworkConfig
from train.export import read_lora, save_lora
from train.families import load_model
from train.families.sd import Model


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Model:
    return load_model(str(tiny_base))


def built(model: Model, seed: int = 1, **settings: Any) -> Network:
    network = build_network(NetworkConfig(**{"network_dim": 4, "network_alpha": 2.0, **settings}), model, torch.Generator().manual_seed(seed))
    network.remove()
    return network


@pytest.fixture
def file(model: Model, tmp_path: Path) -> Path:
    network = shaken(built(model, conv_dim=2, network_reg_dims="attn1=3"))
    save_lora(tmp_path / "old.safetensors", network.state(), {}, "fp32")
    return tmp_path / "old.safetensors"


def test_plain_settings_make_one_group_a_part(model: Model) -> None:
    groups = built(model).groups()
    assert [(group.name, group.factor, group.rate) for group in groups] == [("unet", 1.0, None), ("text_encoder", 1.0, None)]
    assert sum(len(group.parameters) for group in groups) == len(list(built(model).parameters()))
    assert [group.part for group in built(model, train_unet=False).groups()] == ["text_encoder"]


def test_rates_by_block_by_pattern_and_by_half(model: Model) -> None:
    network = built(
        model, down_lr_weight=",".join(["0.5"] * 12), network_reg_lrs="mlp=3e-5", loraplus_lr_ratio=16.0, loraplus_text_encoder_lr_ratio=4.0
    )
    groups = {group.name: group for group in network.groups()}
    rates = {name: group.learning_rate(1e-4) for name, group in groups.items()}
    assert rates == pytest.approx({
        "unet_x0.5": 5e-5, "unet_x0.5_up": 8e-4, "unet": 1e-4, "unet_up": 1.6e-3,
        "text_encoder": 1e-4, "text_encoder_up": 4e-4, "text_encoder_at_3e-05": 3e-5, "text_encoder_at_3e-05_up": 1.2e-4,
    })  # fmt: skip
    found = [parameter for group in groups.values() for parameter in group.parameters]
    assert len(found) == len(set(map(id, found))) == len(list(network.parameters()))
    ups = {id(layer.up) for layer in network.layers.values()}
    assert all((id(p) in ups) == name.endswith("_up") for name, group in groups.items() for p in group.parameters)


def test_a_run_starts_from_a_file(model: Model, file: Path) -> None:
    settings = {"conv_dim": 2, "network_reg_dims": "attn1=3", "network_weights": str(file)}
    first, again = shaken(built(model, conv_dim=2, network_reg_dims="attn1=3")).state(), built(model, seed=7, **settings).state()
    assert first.keys() == again.keys() and all(torch.equal(first[key], again[key]) for key in first)
    own = built(model, seed=7, network_weights=str(file), dim_from_weights=True, module_dropout=0.2, down_lr_weight="linear")
    assert all(torch.equal(first[key], tensor) for key, tensor in own.state().items()) and own.state().keys() == first.keys()
    assert all(layer.dropouts.module == 0.2 for layer in own.layers.values()) and len(own.groups()) > 2


def test_layers_that_the_file_lacks_begin_fresh(model: Model, tmp_path: Path) -> None:
    save_lora(tmp_path / "te.safetensors", shaken(built(model, train_unet=False)).state(), {}, "fp32")
    network = built(model, network_weights=str(tmp_path / "te.safetensors"))
    ups = {name: bool(layer.up.any()) for name, layer in network.layers.items()}
    assert all(trained == name.startswith("lora_te") for name, trained in ups.items())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, r"old.safetensors holds \d+ layers that these settings do not train \(lora_unet_down_blocks_0_\w+ first\)"),
        ({"conv_dim": 2, "train_text_encoder": False}, r"layers that these settings do not train \(lora_te_"),
        ({"conv_dim": 2}, "does not fit these settings: .* or set dim_from_weights = true"),
    ],
)
def test_a_file_that_does_not_fit_the_settings(model: Model, file: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        built(model, network_weights=str(file), **settings)


def test_a_lora_of_another_family_is_one_sentence(model: Model, sdxl_base: Path, tmp_path: Path) -> None:  # noqa: F811
    other = tmp_path / "xl.safetensors"
    save_lora(other, built(load_model(str(sdxl_base))).state(), {}, "fp32")
    for settings in ({"network_weights": str(other)}, {"base_weights": str(other)}):
        with pytest.raises(
            UserError, match=r"xl.safetensors is a LoRA for a base with text 80 wide, but this base model is a base with text 32 wide"
        ):
            merge_base_weights(NetworkConfig(**settings), model)
            built(model, **settings)


def test_merged_loras_are_the_base(tiny_base: Path, file: Path, tmp_path: Path) -> None:
    plain, merged = load_model(str(tiny_base)), load_model(str(tiny_base))
    save_lora(tmp_path / "second.safetensors", shaken(built(plain, network_algo="dora")).state(), {}, "fp32", "diffusers")
    config = NetworkConfig(base_weights=f"{file} | {tmp_path / 'second.safetensors'}", base_weights_multiplier="0.5,0")
    lines = merge_base_weights(config, merged)
    for line, words in zip(lines, (f"{len(all_targets(plain))} layers, times 0.5", f"{len(plain.targets())} layers, times 0"), strict=True):
        assert line.endswith(f"is merged into the base: {words}")
    network = Network.from_state(all_targets(plain), read_lora(file)[0])
    network.multiplier = 0.5
    ids, noisy = plain.tokenize(["tok, smile"]), torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, found = (m.denoise(noisy, torch.tensor([500]), m.conditioning(ids)) for m in (plain, merged))
        network.remove()
        bare = plain.denoise(noisy, torch.tensor([500]), plain.conditioning(ids))
    assert torch.allclose(found, wanted, atol=1e-4) and not torch.allclose(found, bare, atol=1e-2)
    assert merge_base_weights(NetworkConfig(), plain) == []


@pytest.mark.parametrize(("content", "words"), [(None, "there is no file"), (b"not a LoRA at all, surely", "is not a whole safetensors file")])
def test_broken_and_missing_files(model: Model, tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "x.safetensors"
    if content:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        built(model, network_weights=str(path))
