"""A base held in fewer bits: less memory, the gradient of the weight that is computed with, nearly the same losses."""

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
from train.precisions import PRECISIONS
from train.processes import Processes
from train.run import open_base, prepare, run
from train.runtime import Runtime
from train.stored import Stored, base_shape, base_weight, store

QUICK: dict[str, Any] = {"max_train_steps": 3, "report_pictures": False}
# By how much losses and gradients may differ from those of the whole base.
TOLERANCES = {"int8": (0.03, 0.2), "fp8": (0.03, 0.2), "nf4": (0.1, 0.5)}
LAYERS = [nn.Linear(24, 16), nn.Linear(24, 16, bias=False), nn.Conv2d(8, 6, 3, stride=2, padding=1), nn.Conv2d(8, 6, 1)]


def given(layer: nn.Module) -> torch.Tensor:
    return torch.randn(2, 5, 24) if isinstance(layer, nn.Linear) else torch.randn(2, 8, 7, 7)


def copied(layer: Any) -> Any:
    return copy.deepcopy(layer).requires_grad_(False)


@pytest.mark.parametrize("kind", PRECISIONS)
@pytest.mark.parametrize("layer", LAYERS)
def test_the_weight_keeps_its_shape(kind: str, layer: nn.Module) -> None:
    stored = copied(layer)
    store(stored, kind)
    shape = layer.get_parameter("weight").shape
    assert base_shape(layer) == base_shape(stored) == stored.dense(torch.float32).shape == shape
    assert stored.weight.itemsize == 1 and stored.dense(torch.float16).isfinite().all()
    assert torch.equal(base_weight(stored), stored.dense(torch.float32)) and torch.equal(base_weight(layer), layer.get_parameter("weight"))


def test_what_is_in_8_bits_is_rounded_further() -> None:
    layer: Any = copied(LAYERS[0])
    store(layer, "int8")
    eight = layer.dense(torch.float32)
    store(layer, "nf4")
    whole = nn.Linear(24, 16).requires_grad_(False)
    whole.weight.data = eight
    store(whole, "nf4")
    assert layer.kind == "nf4" and torch.equal(layer.dense(torch.float32), whole.dense(torch.float32))  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["", *PRECISIONS])
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


@pytest.mark.parametrize("kind", PRECISIONS)
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


@pytest.mark.parametrize("kind", PRECISIONS)
def test_the_base_takes_the_memory_of_its_bits(kind: str) -> None:
    model = load_model("pocket")
    before, embeddings = _bytes(model), model.text_encoders[0].text_model.embeddings.token_embedding.weight.nbytes
    hold_base(MemoryConfig(base_precision=kind), Runtime.choose("no"), model, model.text_encoders)
    gc.collect()
    # Scales, norms and the layers that stay as they are come on top.
    assert _bytes(model) - embeddings < (PRECISIONS[kind].bits / 32 + 0.05) * (before - embeddings)
    held = [target.module for target in all_targets(model)]
    assert held and all(isinstance(layer, Stored) and layer.scale is not None for layer in held)
    assert model.unet.dtype == torch.float32 and not isinstance(model.unet.conv_in, Stored)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", PRECISIONS)
@pytest.mark.parametrize(
    "more", [{}, {"mixed_precision": "bf16"}, {"train_text_encoder": False, "gradient_checkpointing": True}], ids=["", "bf16", "unet"]
)
def test_losses_are_near_those_of_the_whole_base(tiny_tree: Path, kind: str, more: dict[str, Any]) -> None:
    settings = {**QUICK, **more, "resolution": 64, "learning_rate": 1e-3}
    plain = configured("pocket", tiny_tree, **settings, output_dir="plain")
    config = configured("pocket", tiny_tree, **settings, base_precision=kind)
    run(plain)
    run(config)
    for key, tolerance in zip(("loss", "grad_norm"), TOLERANCES[kind], strict=True):
        assert [line[key] for line in logged(config)] == pytest.approx([line[key] for line in logged(plain)], rel=tolerance)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", PRECISIONS)
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
    for other in ("fp8", "nf4"):
        with pytest.raises(UserError, match="held in int8 already"):
            prepare(configured(tiny_base, tiny_tree, base_precision=other), runtime, model, {})


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
    for settings in ({}, {"base_precision": "int8"}, {"base_precision": "nf4"}, {"blocks_to_swap": 2}):
        result = run(configured(tiny_base, tiny_tree, **QUICK, **settings, output_dir=f"as-{len(found)}"))
        with safe_open(result.path, "pt") as file:
            found.append({key: value for key, value in file.metadata().items() if "sd_model" in key})
    assert all(one == found[0] for one in found) and "ss_sd_model_name" in found[0]


def test_readers_are_told_of_all_layers(tiny_base: Path, tiny_tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for settings in ({}, {"base_precision": "nf4"}, {"blocks_to_swap": 2}):
        run(configured(tiny_base, tiny_tree, **QUICK, **settings, output_dir=f"as-{len(settings)}-{settings}"))
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mine.safetensors: ")]
    assert len(said) == 3 and set(said) == {said[0]} and "A1111, ComfyUI and diffusers take all" in said[0]
