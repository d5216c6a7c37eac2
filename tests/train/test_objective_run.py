"""Settings of objective and optimizer in a whole run: they reach the file, and what is said of them is true."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import train.result
import train.run
from prep.options import UserError
from train.config import TrainConfig
from train.run import run

PLAIN = {
    "train_batch_size": 2, "sample_steps": 0, "min_bucket_reso": 64, "network_dim": 2, "save_precision": "fp32", "learning_rate": 1e-3,
    "max_train_steps": 4, "lr_scheduler": "constant",
}  # fmt: skip


def configured(base: Path, tree: Path, **table: Any) -> TrainConfig:
    return TrainConfig.load({"project": {"base": str(base), "keyword": "tok"}, "train": {**PLAIN, **table}}, {}).at(tree.parent)


def facts(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def test_the_linear_rule_is_said_and_is_the_same_as_the_rate_it_makes(tiny_base: Path, tiny_tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scaled = run(configured(tiny_base, tiny_tree, scale_lr=True, gradient_accumulation_steps=2, output_name="scaled"))
    said = capsys.readouterr().out
    assert "unet 0.004 (0.001 x 4 samples a step), text_encoder 0.004 (0.001 x 4 samples a step)" in said
    plain = run(configured(tiny_base, tiny_tree, learning_rate=4e-3, gradient_accumulation_steps=2, output_name="plain"))
    assert "samples a step" not in capsys.readouterr().out
    one, other = load_file(scaled.path), load_file(plain.path)
    assert all(torch.equal(one[key], other[key]) for key in other)
    assert facts(scaled.path)["ss_unet_lr"] == facts(plain.path)["ss_unet_lr"] == "0.004"


def test_zero_terminal_snr_reaches_the_schedule_and_the_file(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, real = [], train.run.take_step

    def take_step(group: Any, job: Any, state: Any) -> Any:
        seen.append(job.schedule.alphas_cumprod[-1].item())
        return real(group, job, state)

    monkeypatch.setattr(train.run, "take_step", take_step)
    path = run(configured(tiny_base, tiny_tree, prediction_type="v_prediction", zero_terminal_snr=True, debiased_estimation_loss=True)).path
    assert set(seen) == {0.0}
    assert (facts(path)["ss_zero_terminal_snr"], facts(path)["ss_debiased_estimation"]) == ("True", "True")
    with pytest.raises(UserError, match="set zero_terminal_snr = false"):
        run(configured(tiny_base, tiny_tree, zero_terminal_snr=True, output_name="noise"))


def test_a_schedule_free_run_saves_its_average_and_is_not_changed_by_looking(
    tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("schedulefree")
    table = {"optimizer": "adamwschedulefree", "max_train_steps": 6, "save_state_every_n_steps": 5}
    trained_at: list[dict[str, torch.Tensor]] = []
    real = train.result.save_checked

    def save_checked(path: Path, job: Any, state: Any) -> None:
        trained_at.append(state.network.state())
        real(path, job, state)

    monkeypatch.setattr(train.result, "save_checked", save_checked)
    plain = run(configured(tiny_base, tiny_tree, **table, output_name="plain")).path
    looked = run(configured(tiny_base, tiny_tree, **table, output_name="looked", save_every_n_steps=1, sample_every_n_steps=2, sample_steps=1)).path
    one, other = load_file(plain), load_file(looked)
    assert all(torch.equal(one[key], other[key]) for key in other)
    assert not any(torch.equal(one[key], trained_at[0][key]) for key in other if "lora_up" in key)


def test_an_optimizer_that_cannot_be_made_is_said_before_the_base_is_looked_for(tiny_tree: Path) -> None:
    with pytest.raises(UserError, match="weight_dekay"):
        run(configured(Path("no/such/base"), tiny_tree, optimizer_args="weight_dekay=1"))


def test_the_log_has_the_rate_of_each_step(tiny_base: Path, tiny_tree: Path) -> None:
    config = configured(tiny_base, tiny_tree, lr_scheduler="one_cycle", lr_warmup_ratio=0.5, gradient_accumulation_steps=3)
    run(config)
    lines = [json.loads(line) for line in config.output.file(".jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["lr_unet"] for line in lines] == pytest.approx([4e-5, 1e-3, 5.00002e-4, 4e-9], rel=1e-4), "counted in optimizer steps"
