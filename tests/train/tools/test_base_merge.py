"""Merging into a base and extracting from it, by files alone: each kind of file in, the same pictures and the same updates out."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from prep.options import UserError
from tests.train.adapters.bases import shaken
from tests.train.families.ldm import to_ldm
from tests.train.families.test_sdxl import base as xl_base  # noqa: F401  (a fixture)
from tests.train.tools.test_tools import run, updates
from train.adapters.build import all_targets, build_network
from train.adapters.network import Network
from train.config import NetworkConfig
from train.export import read_lora, save_lora
from train.families import load_model, single_file
from train.families.sd import Model
from train.sample import Generator
from train.tools.base_merge import merge_into_base
from train.tools.extract import low_rank, rounding_noise
from train.tools.updates import DOWN, UP
from train.tools.weight_files import open_weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def base_of(tiny_base: Path, xl_base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:  # noqa: F811
    """Give a tiny base of a family as a folder, a .safetensors or a .ckpt."""
    folders = {"sd1": tiny_base, "sdxl": xl_base}
    (tmp_path / "configs").mkdir()
    for family, folder in folders.items():
        (tmp_path / "configs" / family).symlink_to(folder)
    monkeypatch.setattr(single_file, "CONFIGS", tmp_path / "configs")

    def make(family: str, kind: str, dtype: torch.dtype = torch.float32) -> Path:
        if kind == "folder":
            return folders[family]
        state = {name: value.to(dtype).contiguous().clone() for name, value in to_ldm(load_model(str(folders[family]))).items()}
        state["model_ema.num_updates"] = torch.tensor(7)
        path = tmp_path / f"{family}.{kind}"
        save_file(state, path, {"modelspec.title": "mine"}) if kind == "safetensors" else torch.save({"state_dict": state, "epoch": 3}, path)
        return path

    return make


def lora_for(base: Path, path: Path, size: float = 1.0, seed: int = 1, **more: Any) -> Path:
    network = build_network(NetworkConfig(network_dim=3, conv_dim=2, **more), load_model(str(base)), torch.Generator().manual_seed(seed))
    network.remove()
    state = {key: value * size if "up" in key else value for key, value in shaken(network, seed).state().items()}
    save_lora(path, state, {}, "fp32")
    return path


def drawn(model: Model, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    found: list[Tensor] = []

    def keep(pixels: Tensor) -> list[None]:
        found.append(pixels.clone())
        return [None] * len(pixels)

    with monkeypatch.context() as patch:
        patch.setattr("train.sample.to_images", keep)
        list(Generator(model).draw(["a cat", "a dog"], [1, 2], steps=4))
    return torch.cat(found)


@pytest.mark.parametrize(("family", "kind"), [("sd1", "folder"), ("sd1", "ckpt"), ("sdxl", "safetensors"), ("sdxl", "folder")])
def test_a_merged_base_draws_what_the_base_with_the_lora_draws(
    base_of: Callable[..., Path], family: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_of(family, kind)
    one, two = (lora_for(base, tmp_path / f"{seed}.safetensors", 0.2, seed) for seed in (1, 2))
    output = tmp_path / ("out" if kind == "folder" else "out.safetensors")
    result = run("merge", one, two, "-s", "0.5,-0.3", "--base", base, "-o", output)
    assert result.exit_code == 0, result.output
    model = load_model(str(base))
    plain = drawn(model, monkeypatch)
    for path, strength in ((one, 0.5), (two, -0.3)):
        Network.from_state(all_targets(model), read_lora(path)[0]).multiplier = strength
    applied, merged = drawn(model, monkeypatch), drawn(load_model(str(output)), monkeypatch)
    assert (applied - plain).abs().max() > 0.02
    assert (merged - applied).abs().max() <= 1e-3


@pytest.mark.parametrize(("algo", "args"), [("dora", ""), ("loha", ""), ("lokr", "factor=2")])
def test_every_kind_is_merged(base_of: Callable[..., Path], algo: str, args: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_of("sd1", "safetensors")
    lora = lora_for(base, tmp_path / "a.safetensors", network_algo=algo, network_args=args)
    merge_into_base([lora], [1.0], str(base), tmp_path / "out.safetensors")
    model = load_model(str(base))
    Network.from_state(all_targets(model), read_lora(lora)[0])
    assert (drawn(load_model(str(tmp_path / "out.safetensors")), monkeypatch) - drawn(model, monkeypatch)).abs().max() <= 1e-3


@pytest.mark.parametrize("kind", ["safetensors", "ckpt"])
def test_what_no_lora_changes_stays_as_it_is(base_of: Callable[..., Path], kind: str, tmp_path: Path) -> None:
    base = base_of("sdxl", kind, torch.bfloat16)
    network = build_network(NetworkConfig(network_dim=2, train_unet=False), load_model(str(base)), torch.Generator().manual_seed(1))
    save_lora(tmp_path / "te.safetensors", shaken(network).state(), {}, "fp16")
    merge_into_base([tmp_path / "te.safetensors"], [1.0], str(base), tmp_path / "out.safetensors")
    before, after = open_weights(base), load_file(tmp_path / "out.safetensors")
    assert set(before.names()) == set(after)
    assert all(after[name].dtype == before.facts(name)[1] for name in after)
    changed = {name for name in after if not torch.equal(after[name], before.read(name))}
    assert changed and all(".layers." in name or ".resblocks." in name for name in changed)
    assert sum(name.endswith("in_proj_weight") for name in changed) == 3, "OpenCLIP's q, k and v in one"
    if kind == "safetensors":
        with safe_open(tmp_path / "out.safetensors", "pt") as file:
            assert file.metadata() == {"modelspec.title": "mine"}
    merge_into_base([tmp_path / "te.safetensors"], [1.0], str(base), tmp_path / "half.safetensors", "fp16")
    halves = load_file(tmp_path / "half.safetensors")
    assert {value.dtype for name, value in halves.items() if "num_updates" not in name} == {torch.float16}


def test_wrong_merges_are_told(base_of: Callable[..., Path], tmp_path: Path) -> None:
    base, other = base_of("sd1", "safetensors"), base_of("sdxl", "safetensors")
    lora = lora_for(base, tmp_path / "a.safetensors")
    for args, words in (
        ((lora, "--base", base, "-o", tmp_path / "out"), "does not end in .safetensors"),
        ((lora, "--base", base, "-o", base), "is there already"),
        ((lora, "--base", other, "-o", tmp_path / "x.safetensors"), "give a LoRA of the same family"),
        ((lora, "--base", tmp_path / "none.safetensors", "-o", tmp_path / "x.safetensors"), "there is no base model"),
    ):
        result = run("merge", *args)
        assert result.exit_code == 1 and words in result.output, result.output
    assert not list(tmp_path.glob("x*")) and not list(tmp_path.glob(".tmp-*"))


def test_a_merge_that_overflows_leaves_nothing(base_of: Callable[..., Path], tmp_path: Path) -> None:
    base = base_of("sd1", "safetensors", torch.float16)
    lora = lora_for(base, tmp_path / "a.safetensors", size=1e6)
    with pytest.raises(UserError, match="not finite in float16"):
        merge_into_base([lora], [1.0], str(base), tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists() and not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("kind", ["safetensors", "ckpt"])
def test_an_extracted_lora_is_the_one_merged(base_of: Callable[..., Path], kind: str, tmp_path: Path) -> None:
    base = base_of("sdxl", kind)
    lora = lora_for(base, tmp_path / "a.safetensors")
    merge_into_base([lora], [1.0], str(base), tmp_path / "out.safetensors")
    result = run("extract", base, tmp_path / "out.safetensors", "-o", tmp_path / "again.safetensors", "-d", 16, "--conv-dim", 16)
    assert result.exit_code == 0, result.output
    wanted, found = updates(lora), updates(tmp_path / "again.safetensors")
    assert wanted.keys() == found.keys()
    assert max(float((found[name] - wanted[name]).norm() / wanted[name].norm()) for name in wanted) < 1e-4
    state = read_lora(tmp_path / "again.safetensors")[0]
    assert max(len(value) for key, value in state.items() if key.endswith(DOWN)) <= 3, "no more ranks than were merged: the rest is rounding"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rounding_alone_is_no_difference(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    weight = 0.05 * torch.randn(200, 120, generator=draw, dtype=torch.float64) * torch.logspace(-2, 0, 120, dtype=torch.float64)
    rounded = weight.to(dtype)
    difference, noise = (rounded.double() - weight).float(), rounding_noise(rounded)
    largest = float(torch.linalg.matrix_norm(difference.double(), 2))
    assert noise / 3 < largest < noise
    assert len(low_rank(difference, 64, noise)[0][DOWN]) == 0
    spike = 20 * noise * torch.outer(torch.nn.functional.normalize(torch.ones(200), dim=0), torch.nn.functional.normalize(torch.ones(120), dim=0))
    assert low_rank(difference + spike, 64, noise)[0][UP].shape == (200, 1)


def test_a_tensor_is_read_alone(tmp_path: Path) -> None:
    state = {f"{i}": torch.full((500, 1000), float(i)) for i in range(8)}
    save_file({**state, "none": torch.zeros(0)}, tmp_path / "a.safetensors")
    tracemalloc.start()
    file = open_weights(tmp_path / "a.safetensors")
    assert torch.equal(file.read("3"), state["3"]) and file.read("none").numel() == 0
    assert all(float(file.read(name).mean()) == float(name) for name in state)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * 4 * 500 * 1000, "of eight tensors two at a time"
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-1])
    with pytest.raises(UserError, match="ends too early"):
        open_weights(tmp_path / "cut.safetensors")
