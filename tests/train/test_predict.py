"""The predicted memory of a step against what is measured: weights and optimizer to the byte, the step against torch's own count."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.test_run import configured
from train.adapters import ADAPTERS
from train.families import load_model
from train.ladder import RUNGS
from train.memory import make_room, placed_parts
from train.predict import Need, Shape, held_tensors, predict
from train.processes import Processes
from train.run import groups_left, open_base, prepare, start, take_step
from train.runtime import Runtime

HOLDINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bf16": {"mixed_precision": "bf16"},
    "int8": {"base_precision": "int8"},
    "fp8": {"base_precision": "fp8", "mixed_precision": "bf16"},
    "nf4": {"base_precision": "nf4"},
    "swap": {"blocks_to_swap": 3},
    "nf4, swap": {"blocks_to_swap": 3, "base_precision": "nf4", "mixed_precision": "bf16"},
    "all": {"blocks_to_swap": 5, "base_precision": "int8", "gradient_checkpointing": True},
    "full": {"full": True, "network_dim": 16, "network_alpha": 8.0, "learning_rate": 1e-5},
}


@pytest.mark.parametrize("encoders_run", [True, False])
@pytest.mark.parametrize("settings", HOLDINGS.values(), ids=HOLDINGS)
def test_weights_to_the_byte(tiny_base: Path, tiny_tree: Path, settings: dict[str, Any], encoders_run: bool) -> None:
    config = configured(tiny_base, tiny_tree, **settings, train_text_encoder=encoders_run)
    runtime, model = Runtime.choose(config.output.mixed_precision), load_model(str(tiny_base))
    need = predict(config, runtime, model, Shape(1, (64, 64), 1, encoders_run))
    assert all(not hasattr(layer, "dense") for layer in model.unet.modules()), "the model itself is not touched"
    make_room(config, runtime, model, encoders_run)
    there = sum(tensor.nbytes for part in placed_parts(model, encoders_run) for tensor in held_tensors(part))
    if model.swap:
        there -= sum(layer.weight.nbytes for block in model.swap.blocks for layer in block.layers)
        there += sum(slot.buffer.nbytes for slot in model.swap.slots)
    assert need.weights + (need.trained if config.network.full else 0) == there


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("optimizer", ["adamw", "lion", "adafactor", "sgdnesterov", "adamw8bit"])
def test_optimizer_to_the_byte(tiny_base: Path, tiny_tree: Path, optimizer: str) -> None:
    if optimizer == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    config = configured(tiny_base, tiny_tree, optimizer=optimizer, learning_rate=1e-4, ema_decay=0.9)
    runtime, model = open_base(config, Processes())
    job = prepare(config, runtime, model, {})
    need = predict(config, runtime, model, Shape(1, (64, 64), 1, True))
    state = start(job, None)
    take_step(next(groups_left(job, state, 1)), job, state)
    assert state.ema
    assert need.trained == sum(tensor.nbytes for tensor in (*state.parameters, *state.ema.means))
    kept = [value for found in state.optimizer.state.values() for value in found.values() if isinstance(value, torch.Tensor)]
    assert need.optimizer == sum(value.nbytes for value in kept)


def measured(config: Any, runtime: Runtime, model: Any, shape: Shape) -> int:
    """Return the most bytes that torch's allocator had given out at once during a step, by its own profiler."""
    from train.adapters.build import build_network
    from train.families.sd import Conditioning

    make_room(config, runtime, model, shape.encoders_run)
    build_network(config.network, model, torch.Generator())
    latents = torch.zeros(shape.batch, 4, shape.size[1] // model.vae_scale, shape.size[0] // model.vae_scale)
    told = Conditioning(torch.zeros(shape.batch, 77, model.unet.config.cross_attention_dim))
    gc.collect()  # else what other tests left may go meanwhile, and count as memory given back
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        with runtime.autocast():
            if shape.encoders_run:
                told = model.conditioning(torch.zeros(shape.batch, 1, 77, dtype=torch.long))
            prediction = model.denoise(latents, torch.zeros(shape.batch), told)
        (prediction.float() - latents).square().mean().backward()
        del prediction
    now = most = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


STEPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "checkpointing": {"gradient_checkpointing": True},
    "int8": {"gradient_checkpointing": True, "base_precision": "int8"},
    "nf4": {"gradient_checkpointing": True, "base_precision": "nf4"},
    "swap": {"gradient_checkpointing": True, "blocks_to_swap": 99},
    "bf16": {"mixed_precision": "bf16"},
    "convolutions": {"conv_dim": 4},
}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("encoders_run", [True, False])
@pytest.mark.parametrize("settings", STEPS.values(), ids=STEPS)
def test_a_step_within_a_tenth(tiny_tree: Path, settings: dict[str, Any], encoders_run: bool) -> None:
    model = load_model("pocket")
    settings = {**settings, "blocks_to_swap": len(_blocks(model)) if "blocks_to_swap" in settings else 0}
    config = configured("pocket", tiny_tree, **settings, train_text_encoder=encoders_run)
    runtime, shape = Runtime.choose(config.output.mixed_precision), Shape(2, (128, 96), 1, encoders_run)
    predicted = predict(config, runtime, model, shape).step
    assert predicted == pytest.approx(measured(config, runtime, model, shape), rel=0.1)


def _blocks(model: Any) -> list[Any]:
    from train.swap import blocks_of

    return blocks_of(model.unet)


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_can_be_predicted(tiny_base: Path, tiny_tree: Path, name: str) -> None:
    config = configured(tiny_base, tiny_tree, network_algo=name)
    need = predict(config, Runtime.choose("no"), load_model(str(tiny_base)), Shape(1, (64, 64), 1, True))
    assert need.reads_base == (name != "lora") and need.trained and need.step


def test_it_grows_as_it_should(tiny_base: Path, tiny_tree: Path) -> None:
    config, runtime, model = configured(tiny_base, tiny_tree), Runtime.choose("no"), load_model(str(tiny_base))

    def step(*args: Any) -> int:
        return predict(config, runtime, model, Shape(*args)).step

    one = step(1, (64, 64), 1, False)
    assert 1.8 * one < step(2, (64, 64), 1, False) < 2.1 * one
    assert step(1, (128, 64), 1, False) > 1.6 * one
    assert one < step(1, (64, 64), 4, False) < 1.3 * one, "gradients wait for the next batch"
    assert Need(1, 1, 1, 1).total("cpu") == 4 and Need(1, 1, 1, 1).total("cuda") > 300e6
    assert RUNGS[0].applied(config, 7) == config
