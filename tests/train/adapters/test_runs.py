"""Whole runs with every adapter and its settings: stopped and resumed they equal one that never stopped, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.train.test_run import configured, fail_at, power_cut
from train.adapters import ADAPTERS
from train.export import read_lora
from train.run import run

SETTINGS: dict[str, dict[str, Any]] = {
    **{f"all of {name}": {"network_algo": name, **dict.fromkeys(row.dropouts, 0.1)} for name, row in ADAPTERS.items()},
    "convolutions": {"conv_dim": 2, "conv_alpha": 1.0, "rs_lora": True},
    "blocks and patterns": {"down_lr_weight": "cosine+.2", "network_reg_dims": "attn1=3 ff_net=0", "network_reg_lrs": "mlp=1e-3"},
    "LoRA+ and limited norms": {"loraplus_lr_ratio": 4.0, "scale_weight_norms": 0.05, "ema_decay": 0.9},
    "limited norms of lokr": {"network_algo": "lokr", "network_args": "factor=4", "scale_weight_norms": 0.05},
    "diffusers' layout": {"network_algo": "dora", "save_format": "diffusers", "conv_dim": 2},
}


SLOW = {f"all of {name}" for name in ("lokr", "glora", "ia3", "diag-oft")}


@pytest.mark.parametrize("case", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in SETTINGS])
def test_a_run_that_was_stopped_equals_one_that_was_not(
    case: str, tiny_base: Path, tiny_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**SETTINGS[case], "max_train_steps": 6, "save_state_every_n_steps": 2}
    whole = configured(tiny_base, tiny_tree, output_dir=str(tmp_path / "whole"), **settings)
    wanted = load_file(run(whole).path)
    assert " take" in capsys.readouterr().out or case == "diffusers' layout"
    stopped = configured(tiny_base, tiny_tree, output_dir=str(tmp_path / "stopped"), **settings)
    with monkeypatch.context() as patch:
        fail_at(patch, 4, power_cut)
        with pytest.raises(MemoryError, match="the power is gone"):
            run(stopped)
    found = load_file(run(stopped).path)
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_a_run_goes_on_from_a_file_over_a_merged_base(tiny_base: Path, tiny_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(configured(tiny_base, tiny_tree, output_dir=str(tmp_path / "first"), max_train_steps=3)).path
    settings = {"output_dir": str(tmp_path / "second"), "max_train_steps": 1, "learning_rate": 1e-9, "base_weights": str(first)}
    second = run(configured(tiny_base, tiny_tree, network_weights=str(first), **settings)).path
    assert f"{first} is merged into the base" in capsys.readouterr().out
    old, new = read_lora(first)[0], read_lora(second)[0]
    assert all(torch.allclose(new[key], old[key], atol=1e-6) for key in old)
