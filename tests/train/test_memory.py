"""Less memory changes nothing of what is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import checkpoint

from tests.train.adapters.bases import LoRANetwork
from tests.train.test_run import configured, fail_at, logged, power_cut
from train.families import load_model
from train.memory import checkpoint_gradients, hold_base
from train.memory_config import MemoryConfig
from train.run import run
from train.runtime import Runtime

DROPOUTS = {"network_dropout": 0.2, "rank_dropout": 0.2, "module_dropout": 0.2}
QUICK: dict[str, Any] = {"max_train_steps": 2, "report_pictures": False}
KINDS: list[dict[str, Any]] = [
    DROPOUTS,
    {"full": True, "learning_rate": 1e-4, "network_dim": 16, "network_alpha": 8.0},
    {"network_algo": "lokr", "network_args": "factor=4", "module_dropout": 0.3, "rank_dropout": 0.2},
    {"mixed_precision": "bf16"},
]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("settings", KINDS, ids=["dropout", "full", "lokr", "bf16"])
def test_checkpointing_gives_the_same_losses(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    plain = configured(tiny_base, tiny_tree, **QUICK, **settings, output_dir="plain")
    run(plain)
    counted, real = [], checkpoint.checkpoint
    monkeypatch.setattr(checkpoint, "checkpoint", lambda *args, **options: counted.append(1) or real(*args, **options))
    config = configured(tiny_base, tiny_tree, **QUICK, **settings, gradient_checkpointing=True)
    run(config)
    tolerance = 1e-2 if settings.get("mixed_precision") else 1e-4
    for key in ("loss", "grad_norm"):
        assert [line[key] for line in logged(config)] == pytest.approx([line[key] for line in logged(plain)], rel=tolerance)
    assert counted, "the UNet's blocks are computed again"


def test_only_inputs_of_blocks_are_kept(tiny_base: Path) -> None:
    kept = []
    for checkpointed in (False, True):
        model = load_model(str(tiny_base))
        for part in (model.unet, *model.text_encoders):
            part.requires_grad_(True)
        if checkpointed:
            checkpoint_gradients(model, True)
        sizes: dict[int, int] = {}
        weights = {p.data_ptr() for part in (model.unet, *model.text_encoders) for p in part.parameters()}

        def pack(tensor: torch.Tensor, sizes: dict[int, int] = sizes, weights: set[int] = weights) -> torch.Tensor:
            if tensor.data_ptr() not in weights:
                sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            ids = model.tokenize(["tok, smile"])
            conditioning = model.conditioning(ids)
            encoder = sum(sizes.values())
            prediction = model.denoise(torch.zeros(1, 4, 16, 16), torch.tensor([5]), conditioning)
        kept.append((encoder, sum(sizes.values()) - encoder))
        del prediction
    assert kept[1][0] < 0.5 * kept[0][0] and kept[1][1] < 0.5 * kept[0][1]


@pytest.mark.usefixtures("one_thread")
def test_a_stopped_run_may_go_on_with_it(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = configured(tiny_base, tiny_tree, **QUICK, output_dir="whole")
    run(whole)
    config = configured(tiny_base, tiny_tree, **QUICK, save_state_every_n_steps=1)
    with monkeypatch.context() as patch:
        fail_at(patch, 2, power_cut)
        with pytest.raises(MemoryError):
            run(config)
    run(configured(tiny_base, tiny_tree, **QUICK, gradient_checkpointing=True))
    assert [line["loss"] for line in logged(config)] == pytest.approx([line["loss"] for line in logged(whole)], rel=1e-4)


LAST = "lora_unet_up_blocks_1_attentions_1"  # the tiny base's last transformer


def operations(loss: torch.Tensor) -> int:
    """Count the operations that a backward pass goes through."""
    seen, left = set(), [loss.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [before for before, _ in node.next_functions]
    return len(seen)


@pytest.mark.parametrize("held", ["", "int8", "checkpointing"])
def test_no_gradient_goes_below_the_first_trained_layer(tiny_base: Path, held: str) -> None:
    model = load_model(str(tiny_base))
    hold_base(MemoryConfig(held if held == "int8" else "auto"), Runtime.choose("no"), model, [])
    if held == "checkpointing":
        checkpoint_gradients(model, False)
    reached: dict[str, bool] = {}
    places = ["conv_in", "time_embedding", "mid_block", "up_blocks.0", "up_blocks.1.resnets.1", "up_blocks.1.attentions.1", "conv_out"]
    places += [f"down_blocks.{i}.resnets.0" for i in range(2)]
    for place in places:
        model.unet.get_submodule(place).register_forward_hook(lambda *found, place=place: reached.update({place: found[2].requires_grad}))
    states = model.conditioning(model.tokenize(["tok"]))
    assert not states.states.requires_grad, "the text encoder is frozen"
    counts = {}
    for start in (LAST, "lora_unet"):
        targets = [target for target in model.targets() if target.name.startswith(start)]
        network = LoRANetwork(targets, 2, 2.0, torch.Generator().manual_seed(0))
        loss = model.denoise(torch.ones(1, 4, 16, 16), torch.tensor([500]), states).square().mean()
        counts[start] = operations(loss)
        if start == LAST:
            assert [place for place, found in reached.items() if found] == ["up_blocks.1.attentions.1", "conv_out"]
        loss.backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
        network.remove()
    assert counts[LAST] < counts["lora_unet"] / 3
