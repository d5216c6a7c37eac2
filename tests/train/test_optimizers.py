"""Every optimizer of the table: steps, learns, and goes on from a saved state as if never stopped."""

import copy
import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from prep.options import UserError
from tests.train.adapters.bases import LoRANetwork
from train.config import OptimizerConfig, TrainConfig
from train.lion import Lion
from train.optimizer_classes import parse_arguments, uncompiled
from train.optimizers import (
    OPTIMIZERS,
    build_optimizer,
    describe_rates,
    learning_rates,
    optimizer_maker,
    resulting_weights,
    row_of,
    samples_per_step,
    set_rates,
)
from train.state import TrainState, read_state

from .adapters.bases import FakeTarget


def network(seed: int = 0) -> LoRANetwork:
    torch.manual_seed(seed)
    return LoRANetwork([FakeTarget("a", nn.Linear(6, 6), "unet"), FakeTarget("b", nn.Linear(6, 6), "text_encoder")], 2, 2.0)


def learn(net: LoRANetwork, optimizer: torch.optim.Optimizer, steps: int, config: OptimizerConfig | None = None, done: int = 0) -> list[float]:
    goal, losses = torch.ones(6, 6), []
    for step in range(done, done + steps):
        if config:
            set_rates(optimizer, dataclasses.replace(config, lr_scheduler="constant_with_warmup"), step, 120)
        optimizer.zero_grad()
        loss = sum((layer.up @ layer.down - goal).square().mean() for layer in net.layers.values())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# Rates at which each row gets somewhere on a problem of two 6 x 6 matrices within 120 steps.
RATES = {"prodigy": 1.0, "dadaptadam": 1.0, "dadaptlion": 1.0, "sgdnesterov": 0.3, "pytorch_optimizer:ScheduleFreeAdamW": 0.05}
FOREIGN = ["pytorch_optimizer:AdaBelief", "pytorch_optimizer:ScheduleFreeAdamW"]


@pytest.fixture(params=[*OPTIMIZERS, *FOREIGN])
def config(request: pytest.FixtureRequest) -> OptimizerConfig:
    """Each row of the table, and some that it does not list; those whose package is not installed are left out."""
    name = request.param
    pytest.importorskip(row_of(name).optimizer_class.partition(":")[0])
    return OptimizerConfig(optimizer=name, learning_rate=RATES.get(name, 0.02), lr_warmup_ratio=0.05)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_it_learns_from_a_warm_up_on(config: OptimizerConfig) -> None:
    net = network()
    losses = learn(net, build_optimizer(config, net), 120, config)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_resumed_equals_never_stopped(config: OptimizerConfig, tmp_path: Path) -> None:
    whole, stopped = (TrainState(net, build_optimizer(config, net), torch.Generator()) for net in (network(), network()))
    learn(whole.network, whole.optimizer, 9, config)
    for steps in (2, 3, 1):  # stopped three times
        learn(stopped.network, stopped.optimizer, steps, config, stopped.step)
        stopped.step += steps
        stopped.save(tmp_path / "state.pt", {})
        saved, net = read_state(tmp_path / "state.pt", {}), network(seed=1)
        stopped = TrainState(net, build_optimizer(config, net), torch.Generator())
        assert saved
        stopped.restore(saved)
    learn(stopped.network, stopped.optimizer, 3, config, stopped.step)
    assert all(torch.equal(*pair) for pair in zip(whole.network.parameters(), stopped.network.parameters(), strict=True))
    with resulting_weights(whole.optimizer), resulting_weights(stopped.optimizer):
        assert all(torch.equal(*pair) for pair in zip(whole.network.parameters(), stopped.network.parameters(), strict=True))


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_looking_at_the_result_changes_nothing(config: OptimizerConfig) -> None:
    net, watched = network(), network()
    one, other = build_optimizer(config, net), build_optimizer(config, watched)
    for step in range(6):
        learn(net, one, 1, config, step)
        learn(watched, other, 1, config, step)
        with resulting_weights(other):
            result = [parameter.detach().clone() for parameter in watched.parameters()]
    assert all(torch.equal(*pair) for pair in zip(net.parameters(), watched.parameters(), strict=True))
    averaging = "ScheduleFree" in row_of(config.optimizer).optimizer_class
    assert all(torch.equal(*pair) for pair in zip(net.parameters(), result, strict=True)) != averaging


def test_adamw_is_fused_and_the_same_as_plain_adamw() -> None:
    net, plain = network(), network()
    fused = build_optimizer(OptimizerConfig(learning_rate=0.02), net)
    assert fused.param_groups[0]["fused"]
    learn(net, fused, 5)
    learn(plain, torch.optim.AdamW(plain.parameters(), lr=0.02, weight_decay=0.01, foreach=False), 5)
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(net.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("name", ["adamw8bit", "lion8bit"])
def test_eight_bits_hold_the_state_and_go_on_exactly(name: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")

    def fresh() -> TrainState:
        net = LoRANetwork([FakeTarget("a", nn.Linear(2100, 16), "unet")], 2, 2.0, torch.Generator().manual_seed(0))
        return TrainState(net, build_optimizer(OptimizerConfig(optimizer=name), net), torch.Generator().manual_seed(0))

    def walk(state: TrainState) -> None:
        state.generator.manual_seed(len(state.optimizer.state))
        for parameter in state.parameters:
            parameter.grad = torch.randn(parameter.shape, generator=state.generator)
        state.optimizer.step()

    whole, other = fresh(), fresh()
    walk(whole)
    assert whole.optimizer.state[whole.parameters[0]]["state1"].dtype == torch.uint8
    whole.save(tmp_path / "s.pt", {})
    other.restore(read_state(tmp_path / "s.pt", {}) or {})
    walk(whole)
    walk(other)
    assert all(torch.equal(*pair) for pair in zip(whole.parameters, other.parameters, strict=True))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("weight_decay=0.1 betas=0.9,0.99", {"weight_decay": 0.1, "betas": (0.9, 0.99)}),
        ("decouple=true  d_coef=2 mode=fast", {"decouple": True, "d_coef": 2, "mode": "fast"}),
        ("decouple=False eps=1e-6 beta3=none betas=(0.9,0.95)", {"decouple": False, "eps": 1e-6, "beta3": None, "betas": (0.9, 0.95)}),
    ],
)
def test_arguments_are_read(text: str, found: dict) -> None:
    assert parse_arguments(text) == found


@pytest.mark.parametrize("text", ["weight_decay", "weight_decay= 0.1", "lr=0.1", "eps=1 eps=2", "=3", "params=1"])
def test_arguments_that_are_none_are_said(text: str) -> None:
    with pytest.raises(UserError, match="optimizer_args holds"):
        parse_arguments(text)


def test_arguments_reach_the_optimizer_and_beat_the_rows_defaults() -> None:
    made = build_optimizer(OptimizerConfig(optimizer_args="weight_decay=0.3 betas=0.8,0.9 fused=false"), network())
    assert (made.defaults["weight_decay"], made.defaults["betas"], made.defaults["fused"]) == (0.3, (0.8, 0.9), False)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer_args": "weight_dekay=0.1"}, "weight_dekay, which AdamW does not take, did you mean weight_decay?"),
        ({"optimizer": "pytorch_optimizer:AdaBelif"}, "no optimizer 'AdaBelif', did you mean AdaBelief?"),
        ({"optimizer": "pytorch_optimizer:get_supported_optimizers"}, "no optimizer"),
        ({"optimizer": "pytorch_optimizer:AliG"}, "cannot train a LoRA .*closure"),
        ({"optimizer": "pytorch_optimizer:BSAM"}, "cannot train a LoRA .*num_data"),
        ({"optimizer": "pytorch_optimizer:Conda"}, "state that cannot be saved"),
        ({"optimizer": "pytorch_optimizer:Kron"}, "goes another way after it was saved"),
    ],
)
def test_what_cannot_be_made_is_said(settings: dict, words: str) -> None:
    pytest.importorskip("pytorch_optimizer")
    with pytest.raises(UserError, match=words):
        optimizer_maker(OptimizerConfig(**settings))


def test_an_optimizer_that_finds_its_rate_takes_one_for_all() -> None:
    pytest.importorskip("prodigyopt")
    with pytest.raises(UserError, match="prodigy finds one rate"):
        build_optimizer(OptimizerConfig(optimizer="prodigy", learning_rate=1.0, unet_lr=0.5), network())


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    with pytest.raises(UserError, match=r"prodigyopt, which has the optimizer Prodigy.*pip install 'lora-atelier\[optimizers\]'"):
        optimizer_maker(OptimizerConfig(optimizer="prodigy", learning_rate=1.0))


def test_the_linear_rule_multiplies_all_rates_and_says_so() -> None:
    config = OptimizerConfig(learning_rate=1e-4, text_encoder_lr=5e-5, scale_lr=True)
    assert learning_rates(config, 8) == pytest.approx({"unet": 8e-4, "text_encoder": 4e-4})
    assert describe_rates(config, network(), 8) == "unet 0.0008 (0.0001 x 8 samples a step), text_encoder 0.0004 (5e-05 x 8 samples a step)"
    assert [group["base_lr"] for group in build_optimizer(config, network(), 8).param_groups] == pytest.approx([8e-4, 4e-4])
    with pytest.raises(ValueError, match="scale_lr"):
        build_optimizer(config, network())


def test_a_steps_samples_are_those_of_all_batches_and_processes() -> None:
    config = TrainConfig.load({"train": {"train_batch_size": 3, "gradient_accumulation_steps": 2}}, {})
    assert (samples_per_step(config), samples_per_step(config, processes=4)) == (6, 24)


def test_without_the_linear_rule_samples_change_nothing() -> None:
    config = OptimizerConfig(learning_rate=1e-4, unet_lr=2e-4)
    assert learning_rates(config, 8) == learning_rates(config) == {"unet": 2e-4, "text_encoder": 1e-4}
    assert describe_rates(config, network(), 8) == "unet 0.0002, text_encoder 0.0001"


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


STEP = """
import sys, torch
from train.optimizer_classes import load_class, uncompiled
own, plain = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
kind = load_class("torch.optim:" + sys.argv[1], "")
ours = uncompiled(kind)([{"params": [own], "lr": 0.1}])
for parameter, optimizer in ((own, ours), (plain, None)):
    optimizer = optimizer or kind([{"params": [plain], "lr": 0.1}])
    for step in range(3):
        parameter.grad = torch.tensor([1.0, -2.0, 0.5]) * (step + 1)
        optimizer.step()
        optimizer.zero_grad()
        assert parameter.grad is None
    assert optimizer is not ours or "torch._dynamo" not in sys.modules, "it imports the compiler"
assert type(ours).__name__ == sys.argv[1] and own.requires_grad and own.grad_fn is None
assert torch.equal(own, plain) and ours.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()
"""


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Adagrad"])
def test_torchs_optimizers_step_without_the_compiler(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", STEP, name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_other_optimizers_are_as_they_are() -> None:
    assert uncompiled(Lion) is Lion
