"""Every optimizer of the table: steps, learns, and goes on from a saved state as if never stopped."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from train.adapters.lora import LoRANetwork
from train.config import OptimizerConfig
from train.lion import Lion
from train.optimizers import OPTIMIZERS, build_optimizer, learning_rates, set_rates

from .adapters.test_lora import FakeTarget


def network() -> LoRANetwork:
    torch.manual_seed(0)
    return LoRANetwork([FakeTarget("a", nn.Linear(6, 6), "unet"), FakeTarget("b", nn.Linear(6, 6), "text_encoder")], 2, 2.0)


def learn(net: LoRANetwork, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    goal, losses = torch.ones(6, 6), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = sum((layer.up @ layer.down - goal).square().mean() for layer in net.layers.values())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_learns(name: str) -> None:
    net = network()
    losses = learn(net, build_optimizer(OptimizerConfig(optimizer=name, learning_rate=0.02), net), 60)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resumed_equals_never_stopped(name: str) -> None:
    config = OptimizerConfig(optimizer=name, learning_rate=0.02)
    whole, stopped = network(), network()
    learn(whole, build_optimizer(config, whole), 8)
    first = build_optimizer(config, stopped)
    learn(stopped, first, 5)
    resumed = network()
    resumed.load(stopped.state())
    second = build_optimizer(config, resumed)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    learn(resumed, second, 3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_parts_have_their_own_rates_and_share_the_course() -> None:
    config = OptimizerConfig(learning_rate=1e-3, text_encoder_lr=5e-4, lr_scheduler="linear", lr_warmup_ratio=0.1)
    assert learning_rates(config) == {"unet": 1e-3, "text_encoder": 5e-4}
    optimizer = build_optimizer(config, network())
    assert set_rates(optimizer, config, 0, 100) == {"unet": 0.0, "text_encoder": 0.0}
    assert set_rates(optimizer, config, 55, 100) == pytest.approx({"unet": 5e-4, "text_encoder": 2.5e-4})
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-4, 2.5e-4])


def test_a_part_that_is_not_trained_has_no_group() -> None:
    net = LoRANetwork([FakeTarget("a", nn.Linear(6, 6), "unet")], 2, 2.0)
    assert [group["name"] for group in build_optimizer(OptimizerConfig(), net).param_groups] == ["unet"]


def test_a_rate_of_zero_holds_a_part_still() -> None:
    net = network()
    before = copy.deepcopy(net.state())
    config = OptimizerConfig(learning_rate=0.1, text_encoder_lr=0.0)
    learn(net, build_optimizer(config, net), 3)
    after = net.state()
    assert torch.equal(before["b.lora_down.weight"], after["b.lora_down.weight"])
    assert not torch.equal(before["a.lora_up.weight"], after["a.lora_up.weight"])


def test_lion_takes_the_papers_step() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = Lion([weight], lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    expected, momentum = [1.0, -2.0], [0.0, 0.0]
    for gradient in ([0.3, -0.2], [-4.0, 0.1]):
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        for i, g in enumerate(gradient):
            expected[i] = expected[i] * (1 - 0.1 * 0.5) - 0.1 * math.copysign(1, 0.9 * momentum[i] + 0.1 * g)
            momentum[i] = 0.99 * momentum[i] + 0.01 * g
    assert weight.tolist() == pytest.approx(expected, rel=1e-6)


def test_every_row_says_what_it_is() -> None:
    assert all(dataclasses.asdict(row)["description"].endswith(".") for row in OPTIMIZERS.values())
