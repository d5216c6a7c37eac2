"""Timing a run's own steps: figures that fit together, and a bound that does the same work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from tests.train.test_run import configured
from train.bare import BareStep
from train.bench import STAGES, Watch, bench
from train.cli import main
from train.processes import Processes
from train.run import open_base, prepare, start, take_step

pytestmark = pytest.mark.usefixtures("one_thread")


FULL = {"full": True, "network_dim": 16, "network_alpha": 8.0}


@pytest.mark.parametrize("settings", [{}, FULL, {"network_algo": "loha"}], ids=["lora", "full", "loha"])
def test_the_figures_fit_together(tiny_base: Path, tiny_tree: Path, settings: dict[str, Any]) -> None:
    found = bench(configured(tiny_base, tiny_tree, gradient_accumulation_steps=2, **settings), steps=2)
    assert found["seconds"].keys() == {*STAGES, "rest"} and all(spent > 0 for spent in found["seconds"].values())
    assert found["blocks"] == "plain", "a processor compiles nothing unless it is told to"
    assert found["share_of_bound"] > 0 and found["bare_seconds_per_step"] > 0
    assert found["peak_bytes"] > 10**7
    assert not (tiny_tree.parent / "lora").exists(), "nothing is saved"


def test_the_command_prints_figures_alone(tiny_base: Path, tiny_tree: Path) -> None:
    lines = [f'[project]\nbase = "{tiny_base}"\nkeyword = "tok"\nclass = "cls"', "[train]\nmin_bucket_reso = 64"]
    (tiny_tree.parent / "dataset.toml").write_text("\n".join(lines), encoding="utf-8")
    result = CliRunner().invoke(main, ["bench", str(tiny_tree.parent), "--steps", "1", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["steps"] == 1
    shown = CliRunner().invoke(main, ["bench", str(tiny_tree.parent), "--steps", "1"]).stdout.splitlines()
    assert len(shown) == 5 and shown[0].endswith("pictures a second") and "of the bare bound" in shown[1]


def test_the_bare_step_computes_what_the_network_does(tiny_base: Path, tiny_tree: Path) -> None:
    config = configured(tiny_base, tiny_tree)
    runtime, model = open_base(config, Processes())
    job = prepare(config, runtime, model, {})
    state = start(job, None)
    batch = next(job.data.batches(0))
    for _ in range(2):
        take_step([batch], job, state)  # away from up = 0
    bare = BareStep(job, state)
    with torch.no_grad():
        for own, other in zip(state.parameters, bare.parameters, strict=True):
            other.copy_(own)

    def predicted() -> torch.Tensor:
        with torch.no_grad():
            return model.denoise(batch.latent_mean, torch.tensor([500]), model.conditioning(batch.input_ids))

    trained = predicted()
    with bare.attached():
        assert torch.allclose(predicted(), trained, rtol=1e-4, atol=1e-5)
        bare(*bare.inputs(batch))
    assert torch.allclose(predicted(), trained, rtol=1e-4, atol=1e-5), "the network is back, and has not learned"
    with state.network.aside():
        assert not torch.allclose(predicted(), trained, rtol=1e-4, atol=1e-5)


def test_a_module_is_timed_while_asked_for() -> None:
    watch, module = Watch(torch.device("cpu")), torch.nn.Linear(2, 2)
    with watch.on(module, "unet"):
        module(torch.zeros(1, 2))
    spent = watch.seconds["unet"]
    assert spent > 0
    module(torch.zeros(1, 2))
    assert watch.seconds["unet"] == spent
