"""Faults that are planted in a project, over the command itself: each ends in a sentence that names it."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.train.test_bad_input import project, told, train
from train.latents import LatentCache

pytestmark = pytest.mark.usefixtures("one_thread")
__all__ = ["project"]  # the fixture


def test_a_picture_whose_latents_are_nan(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = LatentCache.latents

    def latents(cache: LatentCache, digest: str, view: Any, image: Any) -> Any:
        mean, std = real(cache, digest, view, image)
        spoiled = image.args and image.args[0].match("img/2_tok/1.png")
        return (mean * float("nan") if spoiled else mean), std

    monkeypatch.setattr(LatentCache, "latents", latents)
    found = told(train(project, train_batch_size=12))  # type: ignore[arg-type]
    assert re.search(r"the loss is not a number at step \d+: the latents of img/2_tok/1\.png hold numbers that are not finite", found)


def test_a_file_of_latents_that_somebody_spoiled(project: Path) -> None:
    assert train(project).exit_code == 0
    for file in (project / ".atelier" / "latents").rglob("*.safetensors"):
        save_file({name: tensor * 1e30 for name, tensor in load_file(file).items()}, file)
    found = told(train(project, "--restart"))
    assert "where 5 is usual" in found and "delete .atelier" in found


def test_a_base_with_a_weight_that_is_nan(project: Path) -> None:
    file = next((project / "base" / "unet").glob("*.safetensors"))
    weights = load_file(file)
    weights["conv_out.weight"][0, 0, 0, 0] = float("nan")
    save_file(weights, file, {"format": "pt"})
    found = told(train(project))
    assert "the base's weight unet.conv_out.weight is not finite" in found and "base anew" in found
    assert torch.isnan(load_file(file)["conv_out.weight"]).sum() == 1
