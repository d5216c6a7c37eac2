"""Reading a saved LoRA back: rounding passes, anything else is found."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prep.options import UserError
from train.adapters.build import build_network
from train.config import NetworkConfig
from train.export import save_lora
from train.families import load_model
from train.result import ROUNDING, as_saved, check_saved, ranks_and_alphas, told_by_readers

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def weights() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    down = torch.randn(4, 300, generator=draw) * 10 ** torch.empty(4, 300).uniform_(-9, 2, generator=draw)
    return {"lora_unet_a.lora_down.weight": down, "lora_unet_a.lora_up.weight": torch.zeros(300, 4), "lora_unet_a.alpha": torch.tensor(8.0)}


@pytest.mark.parametrize("precision", ROUNDING)
def test_rounding_is_no_fault_but_a_changed_value_is(tmp_path: Path, precision: str) -> None:
    path, wanted = tmp_path / "x.safetensors", weights()
    saved = {key: tensor.to(DTYPES[precision], copy=True) for key, tensor in wanted.items()}
    save_file(saved, path)
    check_saved(path, wanted, precision)
    saved["lora_unet_a.lora_down.weight"][1, 7] *= 1.02
    save_file(saved, path)
    with pytest.raises(UserError, match=r"1 tensors differ, lora_unet_a\.lora_down\.weight"):
        check_saved(path, wanted, precision)


def test_missing_misshapen_and_broken_tensors_are_found(tmp_path: Path) -> None:
    path, wanted = tmp_path / "x.safetensors", weights()
    for change in ({"lora_unet_a.alpha": None}, {"lora_unet_a.lora_up.weight": torch.zeros(4, 300)}, {"lora_unet_a.alpha": torch.tensor(torch.nan)}):
        save_file({key: tensor for key, tensor in {**wanted, **change}.items() if tensor is not None}, path)
        with pytest.raises(UserError, match="does not hold what was trained"):
            check_saved(path, wanted, "fp32")


def test_what_is_saved_is_the_same_update_in_numbers_that_survive() -> None:
    wanted = weights() | {"lora_unet_b.lora_down.weight": torch.ones(2, 8), "lora_unet_b.lora_up.weight": torch.full((8, 2), 1e-6)}
    wanted["lora_unet_b.alpha"] = torch.tensor(4.0)
    found = as_saved(wanted, "fp16")
    assert ranks_and_alphas(wanted) == {"dims": [2, 4], "alphas": [4.0, 8.0]} and len(ranks_and_alphas(found)["alphas"]) == 1
    for state in (wanted, found):
        state["update"] = state["lora_unet_b.alpha"] / 2 * state["lora_unet_b.lora_up.weight"] @ state["lora_unet_b.lora_down.weight"]
    assert torch.equal(found["update"], wanted["update"]) and float(found["lora_unet_b.lora_up.weight"].min()) > 1e-4
    same = as_saved(wanted, "fp32", "diffusers")
    assert all(torch.equal(same[key], wanted[key]) for key in wanted), "that layout has a place for each alpha"


@pytest.mark.parametrize(
    ("algo", "words"),
    [
        ("lora", "A1111, ComfyUI and diffusers take all 97 layers"),
        ("dora", "ComfyUI takes all 97 layers; A1111 and diffusers cannot read this kind of adapter"),
        ("lokr", "A1111 and ComfyUI take all 97 layers; diffusers cannot read this kind of adapter"),
    ],
)
def test_one_line_says_who_reads_a_file(tiny_base: Path, tmp_path: Path, algo: str, words: str) -> None:
    model = load_model(str(tiny_base))
    network = build_network(NetworkConfig(network_algo=algo, network_dim=2, conv_dim=2), model, torch.Generator().manual_seed(0))
    save_lora(tmp_path / "x.safetensors", network.state(), {"ss_v2": "False"}, "fp16")
    assert told_by_readers(tmp_path / "x.safetensors", model, algo) == words
    if algo == "lora":
        save_lora(tmp_path / "y.safetensors", network.state(), {}, "fp16", "diffusers")
        assert told_by_readers(tmp_path / "y.safetensors", model, algo).startswith("97 layers in the layout of diffusers")
        save_lora(tmp_path / "x.safetensors", network.state(), {"ss_v2": "True"}, "fp16")
        assert "A1111 does not (it shows the file for sd2 only" in told_by_readers(tmp_path / "x.safetensors", model, algo)
