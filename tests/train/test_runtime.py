"""Precision, broken numbers and signals."""

import math
import signal
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from prep.options import UserError
from train.runtime import NotFiniteError, Runtime, StoppedError, StopSignals, choose_precision


@pytest.mark.parametrize(
    ("setting", "device", "has_bf16", "precision"),
    [
        ("auto", "cpu", False, "no"),
        ("auto", "mps", False, "no"),
        ("auto", "cuda", True, "bf16"),
        ("auto", "cuda", False, "fp16"),
        ("no", "cuda", True, "no"),
        ("fp16", "cuda", True, "fp16"),
        ("bf16", "cpu", False, "bf16"),
    ],
)
def test_precision(setting: str, device: str, has_bf16: bool, precision: str) -> None:
    found, why = choose_precision(setting, device, has_bf16)
    assert found == precision
    assert why


def test_bf16_on_a_gpu_without_it_is_refused() -> None:
    with pytest.raises(UserError, match="has no bf16"):
        choose_precision("bf16", "cuda", False)


def test_update_clips_and_returns_the_norm_before() -> None:
    runtime, weight = Runtime.choose("no"), nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    assert runtime.backward((weight * torch.tensor([30.0, 40.0])).sum() + 2) == 2.0
    assert runtime.update(optimizer, [weight], 1.0) == pytest.approx(50.0)
    assert weight.tolist() == pytest.approx([-0.6, -0.8], rel=1e-4)
    assert weight.grad is None
    runtime.backward((weight * torch.tensor([3.0, 4.0])).sum())
    assert runtime.update(optimizer, [weight], 0.0) == pytest.approx(5.0), "0 leaves gradients as they are"
    assert weight.tolist() == pytest.approx([-3.6, -4.8], rel=1e-4)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_broken_numbers_never_reach_the_weights(broken: float) -> None:
    runtime, weight = Runtime.choose("no"), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    with pytest.raises(NotFiniteError):
        runtime.backward((weight + broken).sum())
    weight.grad = torch.tensor([broken])
    with pytest.raises(NotFiniteError):
        runtime.update(optimizer, [weight], 1.0)
    assert weight.tolist() == [0.0]


def test_fp16_scales_the_loss_and_steps_alike() -> None:
    runtime, weight = Runtime.choose("fp16"), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    runtime.backward((weight * 3).sum())
    assert weight.grad.item() > 3
    assert runtime.update(optimizer, [weight], 0.0) == pytest.approx(3.0)
    assert weight.item() == pytest.approx(-3.0)


def test_frozen_modules_take_no_gradient() -> None:
    module = nn.Linear(2, 2)
    Runtime.choose("bf16").place(module)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not module.training


def test_moving_a_batch_keeps_what_is_no_tensor() -> None:
    @dataclass
    class Batch:
        pixels: torch.Tensor
        captions: list[str]

    runtime = Runtime.choose("no")
    runtime.device = torch.device("meta")
    moved = runtime.moved(Batch(torch.zeros(1), ["a"]))
    assert moved.pixels.device.type == "meta"
    assert moved.captions == ["a"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_while_held_and_stops_else(number: int) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        with signals.held():
            signal.raise_signal(number)
            assert signals.caught == number
            with pytest.raises(StoppedError):  # the second one does not wait
                signal.raise_signal(number)
        with pytest.raises(StoppedError) as stopped:
            signal.raise_signal(number)
        assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) == before
