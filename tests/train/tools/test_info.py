"""`train info`: what it says of a file, and that it notices a changed one."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from train.export import read_lora, save_lora
from train.tools.info import count_tags, info

METADATA = {
    "ss_sd_model_name": "pocket", "ss_steps": "160", "ss_clip_skip": "None", "ss_unet_lr": "0.0001",
    "ss_tag_frequency": json.dumps({"4_tok": {"tok": 8, "smile [big]": 2}, "2_tok": {"tok": 3}}),
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    state = {}
    for prefix, dim in (("lora_unet_a", 8), ("lora_unet_b", 4), ("lora_te_text_model_c", 8)):
        state |= {
            f"{prefix}.lora_down.weight": torch.ones(dim, 6),
            f"{prefix}.lora_up.weight": torch.ones(5, dim),
            f"{prefix}.alpha": torch.tensor(4.0),
        }
    state["lora_te_text_model_c.lora_up.weight"].zero_()
    save_lora(tmp_path / "mine.safetensors", state, METADATA, "bf16")
    return tmp_path / "mine.safetensors"


def run(*args: object) -> Result:
    return CliRunner().invoke(info, [str(arg) for arg in args], env={"COLUMNS": "120"})


def test_table_says_what_matters(file: Path) -> None:
    result = run(file)
    assert result.exit_code == 0
    parts = ("2 layers; dim 8 (1), 4 (1), alpha 4", "1 layers, 1 of them all zero; dim 8, alpha 4")
    for words in (*parts, "bfloat16", "tok 11, smile [big] 2", "160", "(right)"):
        assert words in result.output
    assert "clip skip" not in result.output


def test_json_holds_everything(file: Path) -> None:
    facts = json.loads(run(file, "--json").output)
    assert facts["parts"]["UNet"] == {"layers": 2, "dims": {"8": 1, "4": 1}, "alphas": {"4": 2}, "zero_layers": 0}
    assert facts["settings"]["base model"] == "pocket" and facts["bytes"] == file.stat().st_size
    assert {found["verdict"] for found in facts["hashes"].values()} == {"right"}
    assert facts["metadata"]["ss_steps"] == "160"


def test_changed_weights_are_noticed(file: Path) -> None:
    tensors, metadata = load_file(file), read_lora(file)[1]
    tensors["lora_unet_a.lora_up.weight"] += 1
    save_file(tensors, file, metadata)
    assert json.loads(run(file, "--json").output)["hashes"]["sshs_model_hash"]["verdict"].startswith("wrong")


def test_file_of_another_program_without_metadata(file: Path) -> None:
    save_file(load_file(file), file)
    result = run(file)
    assert result.exit_code == 0 and "not stored" in result.output


@pytest.mark.parametrize("text", ["", "no json", "[1, 2]", '{"a": 3}', "{}"])
def test_odd_tag_counts_are_none(text: str) -> None:
    assert count_tags(text) == {}
