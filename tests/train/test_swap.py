"""Blocks that wait in the CPU's memory: the same losses, few of them on the device at a time, fetched in the order of their use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from prep.options import UserError
from tests.train.test_run import configured, fail_at, logged, power_cut, same
from train.families import load_model
from train.memory import checkpoint_gradients, hold_base
from train.memory_config import MemoryConfig
from train.run import run
from train.runtime import Runtime
from train.swap import SLOTS, Block, Swap, blocks_of, pool_bytes

QUICK: dict[str, Any] = {"max_train_steps": 3, "report_pictures": False}
ALL = 7  # blocks of the tiny base
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "checkpointing": {"gradient_checkpointing": True},
    "dropout": {"network_dropout": 0.2, "rank_dropout": 0.2, "module_dropout": 0.2},
    "bf16": {"mixed_precision": "bf16"},
    "convolutions": {"conv_dim": 2},
    "frozen text": {"train_text_encoder": False},
    "samples": {"sample_steps": 2, "sample_every_n_steps": 1},
}


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Note each fetch: its block, and what is on the device after it."""
    found: list[tuple[str, list[str]]] = []
    real = Swap._fetch

    def fetch(self: Swap, block: Block) -> Any:
        slot = real(self, block)
        found.append((block.name, self.resident()))
        return slot

    monkeypatch.setattr(Swap, "_fetch", fetch)
    return found


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("count", [1, 2, ALL])
def test_the_losses_are_the_same(tiny_base: Path, tiny_tree: Path, fetched: list[Any], settings: dict[str, Any], count: int) -> None:
    plain = configured(tiny_base, tiny_tree, **QUICK, **settings, output_dir="plain")
    run(plain)
    assert not fetched
    config = configured(tiny_base, tiny_tree, **QUICK, **settings, blocks_to_swap=count)
    run(config)
    for key in ("loss", "grad_norm"):
        assert [line[key] for line in logged(config)] == pytest.approx([line[key] for line in logged(plain)], rel=1e-5)
    assert fetched and max(len(resident) for _, resident in fetched) == min(SLOTS, count)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", ["fp8", "int8", "nf4"])
def test_they_swap_in_fewer_bits_too(tiny_base: Path, tiny_tree: Path, kind: str) -> None:
    whole = run(configured(tiny_base, tiny_tree, **QUICK, base_precision=kind, output_dir="plain"))
    assert same(whole.path, run(configured(tiny_base, tiny_tree, **QUICK, base_precision=kind, blocks_to_swap=ALL)).path)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_next_block_is_fetched_before_it_is_needed(tiny_base: Path, fetched: list[tuple[str, list[str]]], checkpointing: bool) -> None:
    model = load_model(str(tiny_base))
    names = [block.name for block in blocks_of(model.unet)]
    assert names == ["down_blocks.0.0", "down_blocks.1.0", "mid_block", *(f"up_blocks.{i}.{j}" for i in range(2) for j in range(2))]
    hold_base(MemoryConfig(blocks_to_swap=len(names)), Runtime.choose("no"), model, [])
    if checkpointing:
        checkpoint_gradients(model, False)
    text = model.conditioning(model.tokenize(["tok"]))
    for _ in range(2):
        fetched.clear()
        latents = torch.randn(1, 4, 16, 16, requires_grad=True)
        prediction = model.denoise(latents, torch.tensor([5]), text)
        forwards = [name for name, _ in fetched]
        assert forwards[-len(names) + 2 :] == names[2:], "each but the last is followed by the next; the first two may be there yet"
        prediction.square().mean().backward()
        assert [name for name, _ in fetched[len(forwards) :]] == names[-3::-1], "the last two are there, and all others come back in turn"
        assert model.swap.resident() in (names[:2], names[1::-1]) and latents.grad is not None


def test_the_base_is_whole_afterwards(tiny_base: Path) -> None:
    model, plain = load_model(str(tiny_base)), load_model(str(tiny_base))
    hold_base(MemoryConfig(blocks_to_swap=3), Runtime.choose("no"), model, [])
    sizes = [block.size for block in model.swap.blocks]
    assert sorted(sizes)[0] >= sorted(block.size for block in blocks_of(plain.unet))[-3]
    assert sum(slot.buffer.nbytes for slot in model.swap.slots) == pool_bytes(sizes) == 2 * max(sizes)
    with torch.no_grad():
        text = model.conditioning(model.tokenize(["tok"]))
        predictions = [one.denoise(torch.ones(1, 4, 16, 16), torch.tensor([5]), text) for one in (model, plain)]
    torch.testing.assert_close(*predictions)
    model.to("cpu")
    swap = model.swap
    swap.end()
    assert not swap.slots and not any(getattr(layer, "block", None) for layer in model.unet.modules())
    for (name, one), (other, two) in zip(model.unet.state_dict().items(), plain.unet.state_dict().items(), strict=True):
        assert name == other and torch.equal(one, two)


@pytest.mark.usefixtures("one_thread")
def test_a_stopped_run_may_go_on_with_it(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(tiny_base, tiny_tree, **QUICK, save_state_every_n_steps=1)
    with monkeypatch.context() as patch:
        fail_at(patch, 2, power_cut)
        with pytest.raises(MemoryError):
            run(config)
    run(configured(tiny_base, tiny_tree, **QUICK, blocks_to_swap=2))
    whole = configured(tiny_base, tiny_tree, **QUICK, output_dir="whole")
    run(whole)
    assert [line["loss"] for line in logged(config)] == pytest.approx([line["loss"] for line in logged(whole)], rel=1e-5)


def test_more_than_there_are_is_said(tiny_base: Path, tiny_tree: Path) -> None:
    with pytest.raises(UserError, match="blocks_to_swap = 99, but the UNet has 7 blocks; give 7 or fewer"):
        run(configured(tiny_base, tiny_tree, **QUICK, blocks_to_swap=99))
