"""A base held in 8 bits: less memory, the gradient of the weight that is computed with, nearly the same losses."""

from __future__ import annotations

import copy
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from prep.options import UserError
from tests.train.test_run import configured, fail_at, logged, power_cut, same
from train.adapters import ADAPTERS
from train.adapters.build import all_targets
from train.config import TrainConfig
from train.families import load_model
from train.fingerprint import weights_digest
from train.memory import hold_base
from train.memory_config import MemoryConfig
from train.processes import Processes
from train.run import open_base, prepare, run
from train.runtime import Runtime
from train.stored import HIGHEST, Stored, base_weight, quantized, store

QUICK: dict[str, Any] = {"max_train_steps": 3, "report_pictures": False}
# Root of the mean squared error over that of the weight: int8 has 127 steps to each side, fp8 three bits of mantissa.
ERRORS = {"int8": 0.01, "fp8": 0.03}
LAYERS = [nn.Linear(24, 16), nn.Linear(24, 16, bias=False), nn.Conv2d(8, 6, 3, stride=2, padding=1), nn.Conv2d(8, 6, 1)]


def given(layer: nn.Module) -> torch.Tensor:
    return torch.randn(2, 5, 24) if isinstance(layer, nn.Linear) else torch.randn(2, 8, 7, 7)


def copied(layer: Any) -> Any:
    return copy.deepcopy(layer).requires_grad_(False)


@pytest.mark.parametrize("kind", HIGHEST)
def test_each_output_is_rounded_by_its_own_scale(kind: str) -> None:
    weight = torch.randn(12, 40) * torch.logspace(-6, 2, 12)[:, None]
    raw, scale = quantized(weight, kind)
    layer: Any = nn.Linear(40, 12, bias=False).requires_grad_(False)
    layer.weight.data = weight
    store(layer, kind)
    assert raw.itemsize == 1 and scale.shape == (12, 1)
    for dtype in (torch.float32, torch.bfloat16):
        found = layer.dense(dtype).float()
        errors = (found - weight).norm(dim=1) / weight.norm(dim=1)
        assert errors.max() < ERRORS[kind] + (0.004 if dtype == torch.bfloat16 else 0)
    assert layer.dense(torch.float16).isfinite().all() and torch.equal(base_weight(layer), layer.dense(torch.float32))


def test_a_row_of_zeros_stays_so() -> None:
    for kind in HIGHEST:
        layer: Any = nn.Linear(4, 3).requires_grad_(False)
        layer.weight.data.zero_()
        store(layer, kind)
        assert torch.equal(layer.dense(torch.float32), torch.zeros(3, 4))


@pytest.mark.parametrize("kind", ["", *HIGHEST])
@pytest.mark.parametrize("number", range(len(LAYERS)))
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_outputs_and_gradients_are_those_of_the_weight_computed_with(kind: str, number: int, precision: torch.dtype | None) -> None:
    stored, x = copied(LAYERS[number]), given(LAYERS[number])
    store(stored, kind)
    plain = copied(LAYERS[number])
    plain.weight.data = stored.dense(torch.float32)
    found = []
    for layer in (stored, plain):
        own = x.clone().requires_grad_()
        with torch.autocast("cpu", precision, enabled=precision is not None):
            output = layer(own)
        output.float().square().sum().backward()
        assert own.grad is not None and not any(p.requires_grad for p in layer.parameters())
        found.append((output.detach().float(), own.grad))
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if precision else {"rtol": 1e-5, "atol": 1e-5}
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


def test_nothing_of_the_weight_is_kept_for_the_backward_pass() -> None:
    layer: Any = nn.Linear(64, 64).requires_grad_(False)
    store(layer, "int8")
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        layer(torch.randn(3, 64, requires_grad=True))
    assert not kept


@pytest.mark.parametrize("kind", HIGHEST)
def test_casts_and_moves_leave_the_8_bits(kind: str) -> None:
    layer: Any = nn.Linear(8, 4).requires_grad_(False)
    store(layer, kind)
    before = layer.dense(torch.float32).clone()
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        nn.Module.to(layer, dtype=dtype)
    assert torch.equal(layer.dense(torch.float32), before) and layer.weight.itemsize == 1


def _bytes(model: Any) -> int:
    parts = (model.unet, *model.text_encoders)
    scales = [layer.scale for part in parts for layer in part.modules() if isinstance(layer, Stored) and layer.scale is not None]
    return sum(tensor.nbytes for tensor in (*(p for part in parts for p in part.parameters()), *scales))


@pytest.mark.parametrize("kind", HIGHEST)
def test_the_base_takes_a_quarter_of_the_memory(kind: str) -> None:
    model = load_model("pocket")
    before, embeddings = _bytes(model), model.text_encoders[0].text_model.embeddings.token_embedding.weight.nbytes
    hold_base(MemoryConfig(base_precision=kind), Runtime.choose("no"), model, model.text_encoders)
    gc.collect()
    assert _bytes(model) - embeddings < 0.3 * (before - embeddings)
    held = [target.module for target in all_targets(model)]
    assert held and all(isinstance(layer, Stored) and layer.scale is not None for layer in held)
    assert model.unet.dtype == torch.float32 and not isinstance(model.unet.conv_in, Stored)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", HIGHEST)
@pytest.mark.parametrize(
    "more", [{}, {"mixed_precision": "bf16"}, {"train_text_encoder": False, "gradient_checkpointing": True}], ids=["", "bf16", "unet"]
)
def test_losses_are_near_those_of_the_whole_base(tiny_tree: Path, kind: str, more: dict[str, Any]) -> None:
    settings = {**QUICK, **more, "resolution": 64, "learning_rate": 1e-3}
    plain = configured("pocket", tiny_tree, **settings, output_dir="plain")
    config = configured("pocket", tiny_tree, **settings, base_precision=kind)
    run(plain)
    run(config)
    for key, tolerance in (("loss", 0.03), ("grad_norm", 0.2)):
        assert [line[key] for line in logged(config)] == pytest.approx([line[key] for line in logged(plain)], rel=tolerance)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", HIGHEST)
def test_a_stopped_run_goes_on(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    config = configured(tiny_base, tiny_tree, **QUICK, base_precision=kind, save_state_every_n_steps=1)
    with monkeypatch.context() as patch:
        fail_at(patch, 2, power_cut)
        with pytest.raises(MemoryError):
            run(config)
    resumed = run(config)
    assert same(resumed.path, run(configured(tiny_base, tiny_tree, **QUICK, base_precision=kind, output_dir="whole")).path)


def test_the_base_stays_the_file_that_it_is(tiny_base: Path, tiny_tree: Path) -> None:
    config = configured(tiny_base, tiny_tree, base_precision="int8")
    runtime, model = open_base(config, Processes())
    digest = weights_digest((model.unet, model.vae, *model.text_encoders))
    prepare(config, runtime, model, {})
    prepare(config, runtime, model, {})  # as the runs of a sweep do
    assert model.digest == digest
    with pytest.raises(UserError, match="held in int8 already"):
        prepare(configured(tiny_base, tiny_tree, base_precision="fp8"), runtime, model, {})


@pytest.mark.parametrize("setting", [{"base_precision": "fp8"}, {"blocks_to_swap": 2}], ids=str)
@pytest.mark.parametrize("network", [{"full": True}, *({"network_algo": name} for name in ADAPTERS if name != "lora")], ids=str)
def test_what_reads_the_base_is_refused(setting: dict[str, Any], network: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"leave {next(iter(setting))} away"):
        TrainConfig.load({"train": {**network, **setting}}, {})


def test_a_file_of_an_adapter_that_reads_the_base_is_refused(tiny_base: Path, tiny_tree: Path) -> None:
    first = run(configured(tiny_base, tiny_tree, **QUICK, network_algo="dora", output_dir="first"))
    again = {"network_weights": str(first.path), "dim_from_weights": True}
    with pytest.raises(UserError, match="network_weights holds dora"):
        run(configured(tiny_base, tiny_tree, **QUICK, **again, base_precision="int8"))


@pytest.mark.usefixtures("one_thread")
def test_the_file_names_the_same_base(tiny_base: Path, tiny_tree: Path) -> None:
    found = []
    for settings in ({}, {"base_precision": "int8"}, {"blocks_to_swap": 2}):
        result = run(configured(tiny_base, tiny_tree, **QUICK, **settings, output_dir=f"as-{len(found)}"))
        with safe_open(result.path, "pt") as file:
            found.append({key: value for key, value in file.metadata().items() if "sd_model" in key})
    assert found[0] == found[1] == found[2] and "ss_sd_model_name" in found[0]
