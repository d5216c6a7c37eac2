"""Blocks compiled one by one: the same losses, one graph for all blocks of a shape, and none but training passes that uses it."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import train.regions
import train.run
from prep.options import UserError
from tests.train.test_diagnose import ready, told
from tests.train.test_run import configured, fail_at, logged, power_cut, same
from tests.train.test_validate import configured as judged
from tests.train.test_validate import judgements, wide_tree
from train.adapters.dropout import Dropouts
from train.adapters.lora import LoRALayer
from train.compiled import compiled, regions_of
from train.modules.unet import BasicTransformerBlock
from train.regions import Adapted, TracedDraw, forward_of, twin_of
from train.replay import forward
from train.run import run, take_step

pytestmark = pytest.mark.usefixtures("one_thread")
__all__ = ["wide_tree"]  # a fixture, found here by its name

QUICK: dict[str, Any] = {"max_train_steps": 3, "report_pictures": False}
DROPOUT: dict[str, Any] = {"network_dropout": 0.2, "rank_dropout": 0.2}
SIZES: dict[str, Any] = {"resolution": 96, "bucket_reso_steps": 32}  # let the tree's wide pictures have a bucket of their own
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two sizes": SIZES,
    "checkpointing": {"gradient_checkpointing": True},
    "dropout": DROPOUT,
    "checkpointing and dropout": {"gradient_checkpointing": True, **DROPOUT},
    "frozen text": {"train_text_encoder": False},
    "frozen UNet": {"train_unet": False},
    "convolutions": {"conv_dim": 2},
    "bf16": {"mixed_precision": "bf16"},
    "running mean": {"ema_decay": 0.9},
    "gathered": {"gradient_accumulation_steps": 2},
    "samples": {"sample_steps": 2, "sample_every_n_steps": 1},
    "full": {"full": True, "learning_rate": 1e-4, "network_dim": 16, "network_alpha": 8.0},
}
needs_compiler = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch compiles for a processor by a C++ compiler")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let compiling be nothing, and note each block that is computed as if it were compiled."""
    found: list[Any] = []

    def compile_nothing(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def compute(block: Any, *args: Any) -> Any:
            found.append(block)
            return function(block, *args)

        return compute

    monkeypatch.setattr(torch, "compile", compile_nothing)
    return found


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Trace and differentiate as torch.compile does, but generate no code and leave out blocks of more shapes, which take long; yields its counts."""
    from torch._dynamo.utils import counters

    real = train.regions.compilable
    monkeypatch.setattr(train.regions, "compilable", lambda block, layers: real(block, layers) and getattr(block, "conv_shortcut", None) is None)
    monkeypatch.setattr(train.regions, "BACKEND", "aot_eager")
    torch.compiler.reset()
    counters.clear()
    yield counters
    torch.compiler.reset()


def alike(base: Path, tree: Path, settings: dict[str, Any], tolerance: float) -> None:
    """Train with compiled blocks and without, and compare losses and gradients."""
    plain = configured(base, tree, **{**QUICK, **settings}, compile="off", output_dir="plain")
    config = configured(base, tree, **{**QUICK, **settings}, compile="max")
    run(plain)
    run(config)
    for key in ("loss", "grad_norm"):
        assert [line[key] for line in logged(config)] == pytest.approx([line[key] for line in logged(plain)], rel=tolerance)


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_twins_compute_what_their_blocks_do(tiny_base: Path, tiny_tree: Path, calls: list[Any], settings: dict[str, Any]) -> None:
    alike(tiny_base, tiny_tree, settings, 1e-6)
    assert calls


def test_traced_blocks_give_the_same_losses(tiny_base: Path, tiny_tree: Path, counters: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made, shapes, real = list[int](), set[Any](), train.run.take_step

    def counted(group: Any, job: Any, state: Any) -> Any:
        made.append(counters["stats"]["unique_graphs"])
        shapes.add(group[0].latent_mean.shape)
        return real(group, job, state)

    monkeypatch.setattr(train.run, "take_step", counted)
    alike(tiny_base, tiny_tree, {"gradient_checkpointing": True, "max_train_steps": 4, **DROPOUT, **SIZES}, 1e-5)
    made.append(counters["stats"]["unique_graphs"])
    assert made[:4] == [0] * 4 and len(set(made[4:])) == 1, "other seeds and sizes make no new graphs"
    assert len(shapes) > 1 and not counters["graph_break"]


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("kind", ["two sizes", "checkpointing", "dropout", "bf16"])  # plain ones: test_same_curve.py
def test_compiled_blocks_give_the_same_losses(tiny_base: Path, tiny_tree: Path, kind: str) -> None:
    alike(tiny_base, tiny_tree, KINDS[kind], 2e-2 if kind == "bf16" else 1e-4)


@pytest.mark.slow
@needs_compiler
def test_a_judged_run_is_judged_the_same(tiny_base: Path, wide_tree: Path) -> None:
    plain, config = (judged(tiny_base, wide_tree, compile=how, output_dir=how, num_epochs=2) for how in ("off", "max"))
    run(plain)
    run(config)
    for one, other in zip(judgements(config), judgements(plain), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4) and one["bleed"] == pytest.approx(other["bleed"], rel=1e-2)


def test_blocks_of_one_shape_share_a_graph(tiny_base: Path, tiny_tree: Path, counters: Any) -> None:
    job, state = ready(tiny_base, tiny_tree, compile="max")
    with compiled(job, state) as choice:
        assert choice.way == "compiled" and state.regions and not state.regions.varying
        made = counters["stats"]["unique_graphs"]
        assert 0 < made < len(state.regions.twins)
        for batch in itertools.islice(job.data.batches(0), 3):
            take_step([batch], job, state)
    assert counters["stats"]["unique_graphs"] == made and not counters["graph_break"]
    assert state.regions is None and not any(getattr(module, "compiled", None) for module in job.model.unet.modules())


def test_a_stopped_run_ends_where_one_that_never_stopped_does(tiny_base: Path, tiny_tree: Path, counters: Any, monkeypatch: Any) -> None:
    settings = {**QUICK, "compile": "max", "save_state_every_n_steps": 1}
    config = configured(tiny_base, tiny_tree, **settings)
    with monkeypatch.context() as patch:
        fail_at(patch, 3, power_cut)
        with pytest.raises(MemoryError):
            run(config)
    assert same(run(config).path, run(configured(tiny_base, tiny_tree, **settings, output_dir="whole")).path)


def test_a_stopped_run_may_go_on_without(tiny_base: Path, tiny_tree: Path, calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, 2, power_cut)
        with pytest.raises(MemoryError):
            run(configured(tiny_base, tiny_tree, **QUICK, compile="max", save_state_every_n_steps=1))
    count = len(calls)
    run(configured(tiny_base, tiny_tree, **QUICK, compile="off"))
    assert count and len(calls) == count


@needs_compiler
def test_one_graph_of_real_code_serves_two_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    compute = torch.compile(forward_of, dynamic=False)
    torch.manual_seed(0)
    for _ in range(2):
        block, twin, layers = small_block()
        x, states = torch.randn(2, 16, 32), torch.randn(2, 7, 24)
        found = compute(twin, x, states)
        found.square().mean().backward()
        gradient, layers[0].up.grad = layers[0].up.grad, None
        expected = hooked(block, layers, x, states)
        expected.square().mean().backward()
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert gradient is not None and torch.allclose(gradient, layers[0].up.grad, rtol=1e-4, atol=1e-7)  # type: ignore[arg-type]
    assert counters["stats"]["unique_graphs"] == 1
    torch.compiler.reset()


def small_block() -> tuple[BasicTransformerBlock, Any, list[LoRALayer]]:
    """Make a block, its twin, and the adapters of both."""
    block = BasicTransformerBlock(32, 4, 24)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.1)
    bases: list[Any] = [module for module in block.requires_grad_(False).modules() if isinstance(module, nn.Linear)]
    layers = [LoRALayer(base, 2, 1.0) for base in bases]
    for layer in layers:
        nn.init.normal_(layer.down, std=0.1)
        nn.init.normal_(layer.up, std=0.1)
    return block, twin_of(block, {base: Adapted(base, layer, None) for base, layer in zip(bases, layers, strict=True)}), layers


def hooked(block: Any, layers: list[LoRALayer], *args: Any) -> torch.Tensor:
    """Compute a block with its adapters attached by hooks."""
    bases = [module for module in block.modules() if isinstance(module, nn.Linear)]
    for base, layer in zip(bases, layers, strict=True):
        base.register_forward_hook(lambda module, inputs, output, layer=layer: layer(inputs[0], output, 1.0, None))
    found: torch.Tensor = block(*args)
    return found


def test_a_twin_shares_all_weights_and_leaves_its_block_alone() -> None:
    block, twin, _ = small_block()
    assert type(twin) is BasicTransformerBlock and twin.attn1 is not block.attn1 and twin.norm1 is block.norm1
    assert isinstance(twin.attn1.to_q, Adapted) and twin.attn1.to_q.base is block.attn1.to_q
    assert {id(p) for p in block.parameters()} < {id(p) for p in twin.parameters()}
    assert twin_of(block, {}) is block


def test_a_traced_draw_leaves_out_what_a_draw_does() -> None:
    from train.adapters.dropout import Draw

    hidden = torch.randn(2, 5, 4, requires_grad=True)
    for dropouts in (Dropouts(value=0.5), Dropouts(rank=0.5), Dropouts(0.3, 0.3)):
        thinned = TracedDraw(torch.tensor(7)).thin(hidden, dropouts, -1)
        assert torch.equal(thinned, Draw(7).thin(hidden, dropouts, -1)) and bool((thinned == 0).any())
        (gradient,) = torch.autograd.grad(thinned.sum(), hidden)
        assert torch.equal(gradient == 0, thinned == 0)


def test_only_training_with_the_whole_network_is_compiled(tiny_base: Path, tiny_tree: Path, calls: list[Any]) -> None:
    job, state = ready(tiny_base, tiny_tree, compile="max")
    batch = next(job.data.batches(0))

    def computed() -> int:
        calls.clear()
        forward(batch, job, state, full=False)
        return len(calls)

    with compiled(job, state):
        assert state.regions and computed() == len(state.regions.twins)
        with torch.no_grad():
            assert not computed(), "judging and sampling"
        with state.network.aside():
            assert not computed(), "the network is off the base"
        state.network.multiplier = 0.0
        assert not computed(), "the base alone"
        state.network.multiplier = 1.0
        assert computed()
    assert not computed()


def test_dropout_waits_for_its_seed(tiny_base: Path, tiny_tree: Path, calls: list[Any]) -> None:
    job, state = ready(tiny_base, tiny_tree, **DROPOUT)
    regions = regions_of(job, state)
    assert not regions.ready(), "nothing is dropped before a batch has drawn"
    state.network.seed = 5
    assert regions.ready()


@pytest.mark.parametrize(
    ("settings", "some"),
    [
        ({"base_precision": "int8", "train_text_encoder": False}, False),
        ({"blocks_to_swap": 2}, True),
        ({"module_dropout": 0.3, "train_text_encoder": False}, True),
        ({"network_algo": "loha", "conv_dim": 2}, False),
        ({"network_algo": "dora"}, True),
    ],
    ids=["int8", "swapped", "module_dropout", "loha", "dora"],
)
def test_what_cannot_be_compiled_is_said(
    tiny_base: Path, tiny_tree: Path, calls: list[Any], capsys: pytest.CaptureFixture[str], settings: dict[str, Any], some: bool
) -> None:
    alike(tiny_base, tiny_tree, settings, 1e-6)
    words = capsys.readouterr().out
    assert bool(calls) == some and ("blocks are compiled, in" in words) == some
    assert "for 8-bit or swapped weights, module_dropout and other adapters than lora cannot be" in words


def test_a_broken_step_is_explained_as_without(tiny_base: Path, tiny_tree: Path, calls: list[Any]) -> None:
    sentences = []
    for setting in ("off", "max"):
        job, state = ready(tiny_base, tiny_tree, compile=setting)
        with compiled(job, state):
            layer: Any = next(layer for name, layer in state.network.layers.items() if name.endswith("attn2_to_q"))
            with torch.no_grad():
                layer.down.fill_(float("nan"))
            sentences.append(told(job, state))
    assert sentences[0] == sentences[1] and "attn2" in sentences[1] and calls


def test_a_compiler_that_is_missing_is_said(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_not(*_: Any, **__: Any) -> Any:
        def compute(*_: Any) -> Any:
            raise RuntimeError("backend='inductor' raised:") from RuntimeError("No working C++ compiler found in ['g++']\nSet TORCH_LOGS")

        return compute

    monkeypatch.setattr(torch, "compile", compile_not)
    job, state = ready(tiny_base, tiny_tree, compile="max")
    sentence = r"cannot compile here \(No working C\+\+ compiler found in \['g\+\+'\]\); install a C\+\+ compiler such as g\+\+, or set"
    with pytest.raises(UserError, match=sentence), compiled(job, state):
        pass
    assert not any(getattr(module, "compiled", None) for module in job.model.unet.modules())
    assert all(parameter.grad is None for parameter in state.parameters)
