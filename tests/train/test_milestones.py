"""Milestones: LoRAs and pictures kept on the way, the running mean, and requests to a running run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from prep.options import UserError
from tests.train.test_run import configured
from train.cli import main
from train.control import Control
from train.run import run
from train.runtime import StoppedError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_loras_and_pictures_are_kept_on_the_way(tiny_base: Path, tiny_tree: Path) -> None:
    options = {"num_epochs": 4, "max_train_steps": 18, "save_every_n_epochs": 1, "save_every_n_steps": 4, "save_last_n": 2}
    config = configured(tiny_base, tiny_tree, **options, sample_every_n_steps=8, sample_prompts="tok | a cat", sample_steps=1)
    result = run(config)
    per_epoch = json.loads((config.output.file(".jsonl")).read_text(encoding="utf-8").splitlines()[-1])["epoch"]
    assert per_epoch >= 3, "the tree gives some six steps an epoch"
    kept = [name for name in names(config.output.output_dir) if name.endswith(".safetensors")]
    name = config.output.output_name
    assert [entry for entry in kept if "step" in entry] == [f"{name}-step00000012.safetensors", f"{name}-step00000016.safetensors"]
    assert len([entry for entry in kept if entry.startswith(f"{name}-0000")]) == 2 and result.path.name in kept
    assert f"{name}-samples-00000008.png" in names(config.output.output_dir) and f"{name}-samples-00000016.png" in names(config.output.output_dir)
    with Image.open(config.output.file("-samples.png")) as sheet:
        assert "tok\nSteps: 1, Sampler: DDIM" in sheet.text["parameters"]  # type: ignore[attr-defined]


def test_drawing_on_the_way_changes_no_weight(tiny_base: Path, tiny_tree: Path, tmp_path: Path) -> None:
    states = []
    for number, every in enumerate((0, 2)):
        extra: dict[str, Any] = {"sample_every_n_steps": every, "sample_steps": 1, "save_every_n_steps": every}
        states.append(load_file(run(configured(tiny_base, tiny_tree, max_train_steps=5, output_dir=str(tmp_path / str(number)), **extra)).path))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_the_running_mean_is_saved_and_survives_a_stop(tiny_base: Path, tiny_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(folder: str, decay: float) -> dict[str, torch.Tensor]:
        return load_file(run(configured(tiny_base, tiny_tree, max_train_steps=8, ema_decay=decay, output_dir=str(tmp_path / folder))).path)

    plain, mean = trained("plain", 0.0), trained("mean", 0.9)
    ups = [key for key in plain if key.endswith("up.weight")]
    assert sum(mean[key].norm() for key in ups) < sum(plain[key].norm() for key in ups), "the mean lags behind"
    folder = tmp_path / "stopped"
    folder.mkdir()
    asked = iter(["", "", "stop"])

    def request(self: Control) -> str:
        if next(asked, "") == "stop":
            self.stopping = True
        return ""

    with monkeypatch.context() as patch:
        patch.setattr(Control, "asked", request)
        with pytest.raises(StoppedError, match="goes on from") as stop:
            trained("stopped", 0.9)
    assert stop.value.exit_code == 0
    again = trained("stopped", 0.9)
    assert all(torch.equal(again[key], mean[key]) for key in mean)


def test_a_run_is_asked_by_a_file(tmp_path: Path) -> None:
    control = Control(tmp_path / "x.control")
    assert control.asked() == ""
    for word, stopping in (("save", False), ("stop", True), ("none", False), ("nonsense", False)):
        control.path.write_text(word + "\n", encoding="utf-8")
        assert control.asked() == (word if word != "nonsense" else "") and control.stopping == stopping
        assert not control.path.exists() and control.asked() == ""


def test_save_now_keeps_the_lora(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(tiny_base, tiny_tree, max_train_steps=3)
    asked = iter(["", "save"])
    monkeypatch.setattr(Control, "asked", lambda self: next(asked, ""))
    run(config)
    assert config.output.file("-step00000002.safetensors").exists() and not config.output.file("-step00000001.safetensors").exists()


def test_the_command_asks_only_where_there_is_a_run(tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text('[project]\nname = "x"\n', encoding="utf-8")
    result = CliRunner().invoke(main, ["control", "save", str(tmp_path)])
    assert result.exit_code == 1 and "no run has been started" in result.output
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "x.jsonl").touch()
    assert CliRunner().invoke(main, ["control", "stop", str(tmp_path)]).exit_code == 0
    assert Control(tmp_path / "lora" / "x.control").asked() == "stop"
    assert CliRunner().invoke(main, ["control", "pause", str(tmp_path)]).exit_code == 2


def test_tensorboard_that_is_not_there_is_one_sentence(tiny_base: Path, tiny_tree: Path) -> None:
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="pip install tensorboard"):
            run(configured(tiny_base, tiny_tree, max_train_steps=1, log_with="tensorboard"))
    else:
        config = configured(tiny_base, tiny_tree, max_train_steps=1, log_with="tensorboard")
        run(config)
        assert list((config.output.output_dir / "tensorboard").rglob("events*"))
