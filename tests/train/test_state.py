"""State files: a round trip, and counting steps over epochs."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from prep.options import UserError
from tests.train.adapters.bases import LoRANetwork
from train.config import OptimizerConfig
from train.optimizers import build_optimizer
from train.state import RECENT, TrainState, read_state

from .adapters.bases import FakeTarget


def fresh(seed: int = 0) -> TrainState:
    generator = torch.Generator().manual_seed(seed)
    network = LoRANetwork([FakeTarget("lora_unet_a", nn.Linear(4, 4), "unet")], 2, 1.0, generator)
    return TrainState(network, build_optimizer(OptimizerConfig(learning_rate=0.1), network), generator)


def walk(state: TrainState, steps: int) -> None:
    for _ in range(steps):
        state.generator.manual_seed(state.step)  # as each batch does
        for parameter in state.network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=state.generator)
        state.optimizer.step()
        state.advance(1, 4, 0.5)


def test_a_restored_state_goes_the_same_way(tmp_path: Path) -> None:
    path, one, other = tmp_path / "s.pt", fresh(), fresh(seed=1)
    walk(one, 6)
    one.save(path, {"seed": 1})
    saved = read_state(path, {"seed": 1})
    assert saved is not None
    other.restore(saved)
    assert (other.step, other.epoch, other.batch, other.started_at) == (6, 1, 2, one.started_at)
    walk(one, 3)
    walk(other, 3)
    assert all(torch.equal(a, b) for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True))
    assert one.losses == other.losses
    assert [file.name for file in tmp_path.iterdir()] == ["s.pt"]


def test_no_file_is_no_state_and_another_runs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    assert read_state(path, {}) is None
    fresh().save(path, {"seed": 1, "network_dim": 4})
    with pytest.raises(UserError, match="seed was 1, is 2"):
        read_state(path, {"seed": 2, "network_dim": 4})
    with pytest.raises(UserError, match="flip_aug was None, is True"):
        read_state(path, {"seed": 1, "network_dim": 4, "flip_aug": True})


@given(batches=st.integers(1, 20), size=st.integers(1, 6), steps=st.integers(1, 60))
def test_epochs_are_counted_as_the_run_walks_them(batches: int, size: int, steps: int) -> None:
    state = fresh()
    for _ in range(steps):
        left = batches - state.batch
        assert 0 < left <= batches
        state.advance(min(size, left), batches, 1.0)
    per_epoch = -(-batches // size)
    assert (state.epoch, state.step) == (steps // per_epoch, steps)
    assert state.batch == (steps % per_epoch) * size
    assert len(state.losses) == min(steps, RECENT)
