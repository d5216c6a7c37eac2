"""Less memory changes nothing of what is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import checkpoint

from tests.train.test_run import configured, fail_at, logged, power_cut
from train.families import load_model
from train.memory import checkpoint_gradients
from train.run import run

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
