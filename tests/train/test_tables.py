"""Every row of every table of the training trains: whole runs that between them use each row at least once."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import train.run
from train.adapters import ADAPTERS
from train.adapters.build import build_network
from train.config import TrainConfig
from train.export import LAYOUTS, PRECISIONS, read_lora
from train.families import load_model
from train.loss import HUBER_SCHEDULES, LOSSES
from train.noise import PREDICTIONS
from train.optimizers import FOREIGN, OPTIMIZERS, row_of
from train.run import run
from train.schedules import SCHEDULES
from train.timesteps import DENSITIES

NOISES: list[dict[str, Any]] = [
    {"noise_offset": 0.05},
    {"noise_offset": 0.05, "noise_offset_random_strength": True, "adaptive_noise_scale": 0.01},
    {"multires_noise_iterations": 6},
    {"ip_noise_gamma": 0.1, "ip_noise_gamma_random_strength": True},
]
WEIGHTS: list[dict[str, Any]] = [{}, {"min_snr_gamma": 5.0}, {"debiased_estimation_loss": True}]
COMPUTED = ["no", "bf16", "fp16"]
RATES = {"sgdnesterov": 1.0}
SLOW_TO_START = {"radamschedulefree": 6}  # its variance is not known before the sixth step, and until then it stays where it is


def combinations() -> list[dict[str, Any]]:
    """One run per optimizer, the longest table, with the rows of all others in turn."""
    losses = [(loss, by) for loss in LOSSES for by in (HUBER_SCHEDULES if loss in ("huber", "smooth_l1") else ["snr"])]
    optimizers = [*OPTIMIZERS, f"{FOREIGN}AdaBelief", f"{FOREIGN}ScheduleFreeAdamW"]
    tables = [SCHEDULES, losses, DENSITIES, PREDICTIONS, NOISES, WEIGHTS, COMPUTED]
    assert all(len(table) <= len(optimizers) for table in tables), "a table has outgrown the optimizers: let it set the number of runs"
    return [_settings(*row) for row in zip(optimizers, *map(itertools.cycle, tables), strict=False)]


def _settings(optimizer: str, scheduler: str, loss: tuple[str, str], density: str, kind: str, noise: dict, weight: dict, precision: str) -> dict:
    row = row_of(optimizer)
    return {
        "optimizer": optimizer,
        "learning_rate": 1.0 if row.finds_rate else RATES.get(optimizer, 1e-3),
        "lr_scheduler": "constant_with_warmup" if row.schedule_free else scheduler,
        "loss_type": loss[0],
        "huber_schedule": loss[1],
        "timestep_density": density,
        "prediction_type": kind,
        "mixed_precision": precision,
        **noise,
        **weight,
    }


PLAINLY = {"optimizer": "adamw", "learning_rate": 1e-3}
CASES: dict[str, dict[str, Any]] = {
    **{settings["optimizer"]: settings for settings in combinations()},
    **{f"adapter {name}": {**PLAINLY, "network_algo": name} for name in ADAPTERS},
    **{f"saved as {layout}": {**PLAINLY, "save_format": layout} for layout in LAYOUTS},
    **{f"saved in {precision}": {**PLAINLY, "save_precision": precision} for precision in PRECISIONS},
}
PLAIN = {
    "train_batch_size": 2, "sample_steps": 0, "min_bucket_reso": 64, "network_dim": 2, "save_precision": "fp32", "lr_warmup_ratio": 0.0,
    "save_state_every_n_steps": 2, "flip_aug": True, "output_name": "lora",
}  # fmt: skip


def configured(base: str, tree: Path, **table: Any) -> TrainConfig:
    pytest.importorskip(row_of(table["optimizer"]).optimizer_class.partition(":")[0])
    project = {"base": base, "keyword": "tok", "class": "cls"}
    return TrainConfig.load({"project": project, "train": {**PLAIN, **table}}, {}).at(tree.parent)


def trained(config: TrainConfig, steps: int) -> dict[str, torch.Tensor]:
    """Run it and return its weights, having seen that each layer learned something and each loss was a number."""
    result = run(config)
    lines = [json.loads(line) for line in config.output.file(".jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == result.steps == steps
    assert all(math.isfinite(line["loss"]) for line in lines)
    weights = read_lora(result.path)[0]
    assert all(weight.isfinite().all() for weight in weights.values())
    assert all(weight.any() for key, weight in weights.items() if "lora_up" in key)
    if config.network.network_algo != "lora":  # what such a layer holds at its start is not 0 everywhere
        fresh = build_network(config.network, load_model(config.model.base), torch.Generator().manual_seed(config.output.seed)).state()
        learned = {key.partition(".")[0] for key, weight in weights.items() if key in fresh and not torch.equal(weight, fresh[key])}
        assert learned == {key.partition(".")[0] for key in weights}
    return weights


pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU"),
    pytest.mark.parametrize("settings", CASES.values(), ids=CASES),
]


def test_each_row_trains(tiny_base: Path, tiny_tree: Path, settings: dict) -> None:
    steps = SLOW_TO_START.get(settings["optimizer"], 3)
    trained(configured(str(tiny_base), tiny_tree, **settings, max_train_steps=steps), steps)


@pytest.mark.slow
def test_each_row_resumes_bit_for_bit_however_often(tiny_base: Path, tiny_tree: Path, settings: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(str(tiny_base), tiny_tree, **settings, max_train_steps=6)
    real = train.run.take_step
    for stop in (1, 3, 5):  # steps that are done: once before anything was saved, twice behind the last saved state

        def take_step(group: Any, job: Any, state: Any, stop: int = stop) -> Any:
            if state.step == stop:
                raise MemoryError("the power is gone")
            return real(group, job, state)

        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(train.run, "take_step", take_step)
            run(config)
    resumed = trained(config, 6)
    whole = trained(configured(str(tiny_base), tiny_tree, **settings, max_train_steps=6, output_dir="whole"), 6)
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


@pytest.mark.slow
def test_each_row_trains_the_pocket_base_for_20_steps(tiny_tree: Path, settings: dict) -> None:
    trained(configured("pocket", tiny_tree, **settings, max_train_steps=20, num_epochs=20, resolution=64), 20)
