"""Full fine-tunes: they change the base's own weights, go on bit for bit where they were stopped, and end in a whole model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from prep.options import UserError
from tests.train.families.test_sdxl import base as xl_base  # noqa: F401  (a fixture)
from tests.train.test_run import TRAIN, fail_at, killed_after, power_cut, same
from train.config import NetworkConfig, TrainConfig
from train.families import load_model, single_file
from train.families.sd import Model
from train.full import FullNetwork
from train.run import run
from train.stability import parts_of

FULL = {key: value for key, value in TRAIN.items() if not key.startswith("network_")} | {"full": True, "learning_rate": 1e-4}
pytestmark = pytest.mark.usefixtures("one_thread")


def configured(base: Path, tree: Path, **train: Any) -> TrainConfig:
    project = {"base": str(base), "keyword": "tok", "class": "cls", "name": "mine"}
    return TrainConfig.load({"project": project, "train": {**FULL, **train}}, {}).at(tree.parent)


def changed(first: Model, second: Model) -> dict[str, bool]:
    """Say of each part whether its weights differ."""
    pairs = zip(parts_of(first).items(), parts_of(second).values(), strict=True)
    return {name: not all(map(torch.equal, one.state_dict().values(), other.state_dict().values())) for (name, one), other in pairs}


def test_a_run_ends_in_a_whole_model(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = configured(tiny_base, tiny_tree, max_train_steps=3, sample_steps=1, save_every_n_steps=2)
    result = run(config)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "sd1").symlink_to(tiny_base)
    monkeypatch.setattr(single_file, "CONFIGS", tmp_path / "configs")
    model, base = load_model(str(result.path)), load_model(str(tiny_base))
    assert changed(model, base) == {"unet": True, "vae": False, "text_encoder": True}
    assert not any(changed(model, load_model(str(config.output.file("")))).values())
    assert result.samples and config.output.file("-step00000002.safetensors").exists() and not config.output.file("-state.pt").exists()
    with safe_open(result.path, "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.title"] == "mine" and metadata["modelspec.architecture"] == "stable-diffusion-v1"
    assert not [key for key in metadata if key.startswith("ss_network")]
    again = run(config)
    assert again.steps == 3 and again.path == result.path, "a finished run is found by its mark"


def test_a_stopped_run_goes_on_bit_for_bit(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"max_train_steps": 5, "ema_decay": 0.9, "save_state_every_n_steps": 2}
    whole = run(configured(tiny_base, tiny_tree, **settings, output_dir="whole"))
    stopped = configured(tiny_base, tiny_tree, **settings)
    with monkeypatch.context() as patch:
        fail_at(patch, 4, power_cut)
        with pytest.raises(MemoryError):
            run(stopped)
    assert same(run(stopped).path, whole.path)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_one_part_alone(tiny_base: Path, tiny_tree: Path, part: str) -> None:
    config = configured(tiny_base, tiny_tree, max_train_steps=2, train_unet=part == "unet", train_text_encoder=part != "unet")
    run(config)
    assert changed(load_model(str(config.output.file(""))), load_model(str(tiny_base))) == {
        "unet": part == "unet", "vae": False, "text_encoder": part != "unet",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"mixed_precision": "bf16"}, {"optimizer": "adafactor"}, {"train_unet": False}])
def test_sdxl(xl_base: Path, tiny_tree: Path, settings: dict[str, Any]) -> None:  # noqa: F811
    config = configured(xl_base, tiny_tree, max_train_steps=2, resolution=64, **settings)
    run(config)
    after = changed(load_model(str(config.output.file(""))), load_model(str(xl_base)))
    assert after == {"unet": settings.get("train_unet", True), "vae": False, "text_encoder": True, "text_encoder_2": True}


def test_each_part_has_its_rate(tiny_base: Path) -> None:
    from train.config import OptimizerConfig
    from train.optimizers import build_optimizer

    network = FullNetwork.of(NetworkConfig(full=True), load_model(str(tiny_base)))
    groups = build_optimizer(OptimizerConfig(unet_lr=1e-5, text_encoder_lr=1e-6), network).param_groups
    assert [(group["name"], group["lr"]) for group in groups] == [("unet", 1e-5), ("text_encoder", 1e-6)]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters())) == len(network.state())


def test_a_multiplier_of_0_is_the_base(tiny_base: Path) -> None:
    model, base = load_model(str(tiny_base)), load_model(str(tiny_base))
    network = FullNetwork.of(NetworkConfig(full=True), model)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.rand_like(parameter))
    own = {name: tensor.clone() for name, tensor in network.state().items()}
    network.multiplier = 0.0
    assert not any(changed(model, base).values())
    network.multiplier = 1.0
    assert all(torch.equal(tensor, own[name]) for name, tensor in network.state().items())
    with pytest.raises(ValueError, match="only 1 and 0"):
        network.multiplier = 0.5
    network.remove()
    assert not any(changed(model, base).values()) and not any(parameter.requires_grad for parameter in network.parameters())


def test_weights_of_another_model_are_a_sentence(tiny_base: Path) -> None:
    network = FullNetwork.of(NetworkConfig(full=True), load_model(str(tiny_base)))
    with pytest.raises(UserError, match=r"do not fit this base model \(1 differ, unet.conv_in.bias first\)"):
        network.load({name: tensor for name, tensor in network.state().items() if name != "unet.conv_in.bias"})


def test_a_run_is_judged_against_the_base(tiny_base: Path, tiny_tree: Path) -> None:
    config = configured(tiny_base, tiny_tree, max_train_steps=4, validation_folds=0)
    from train.processes import Processes
    from train.run import open_base, prepare, start
    from train.validate import Panel

    runtime, model = open_base(config, Processes())
    job = prepare(config, runtime, model, {})
    panel = Panel(job, list(job.data.pictures[:3]), list(job.data.pictures[3:]))
    state = start(job, None)
    assert panel.judge(state).learned == 0
    with torch.no_grad():
        for parameter in state.parameters:
            parameter.mul_(1.01)
    panel.base = {}  # as in a run that was stopped: the base is read again
    judgement = panel.judge(state)
    assert judgement.learned != 0 and judgement.bleed > 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"network_dim": 4}, "network_dim cannot apply to; leave it away"),
        ({"network_algo": "loha", "scale_weight_norms": 1.0, "save_format": "diffusers"}, "network_algo, scale_weight_norms, save_format cannot"),
        ({"base_weights": "x.safetensors"}, "base_weights cannot apply to"),
    ],
)
def test_what_an_adapter_has_is_a_conflict(tiny_base: Path, tiny_tree: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        configured(tiny_base, tiny_tree, **settings)


def test_an_adapters_rate_is_told(tiny_base: Path, tiny_tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(configured(tiny_base, tiny_tree, max_train_steps=1))
    assert "0.0001 is an adapter's and high for whole weights" in capsys.readouterr().out
    run(configured(tiny_base, tiny_tree, max_train_steps=1, learning_rate=1e-5, output_dir="slower"))
    assert "adapter's" not in capsys.readouterr().out


def test_a_folder_of_something_else_is_not_replaced(tiny_base: Path, tiny_tree: Path) -> None:
    config = configured(tiny_base, tiny_tree, max_train_steps=1)
    config.output.file("").mkdir(parents=True)
    with pytest.raises(UserError, match="is no model that the result could replace"):
        run(config)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_killed_run_goes_on(tiny_base: Path, tiny_tree: Path) -> None:
    whole = run(configured(tiny_base, tiny_tree, max_train_steps=6, output_dir="whole"))
    config = configured(tiny_base, tiny_tree, max_train_steps=6)
    for step in (2, 5):
        killed_after(step, config)
    assert same(run(config).path, whole.path)
    assert not list(config.output.output_dir.glob(".*")), "nothing half written is left"
