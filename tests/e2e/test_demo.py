"""The demo keeps its promises: what it sets aside, what it draws, and the three numbers of the LoRA that it trains."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(command, tmp_path_factory) -> Path:
    """Run the demo once for all tests of this file."""
    out = tmp_path_factory.mktemp("demo") / "demo"
    result = command("prep", "demo", out, timeout=1500)
    assert result.returncode == 0, result.stderr
    assert "before-after.png" in result.stdout and "mira.safetensors" in result.stdout
    return out


def test_dirt_is_found_and_the_rest_is_kept(demo):
    report = json.loads((demo / "work" / ".atelier" / "report.json").read_text("utf-8"))
    reasons = {row["picture"]: row["reason"] for row in report["set_aside"]}
    assert reasons == {
        "copy of mira_03": "duplicate",
        "mira_05_reposted": "duplicate",
        "mira_20_thumbnail": "too_small",
        "mira_21_broken": "truncated",
    }
    assert report["kept"] == 20


def test_before_and_after_differ(demo):
    picture = np.asarray(Image.open(demo / "before-after.png").convert("RGB"), dtype=int)
    assert picture.shape[0] > 200 and picture.shape[1] > 600 and picture.std() > 20


def test_three_numbers(demo):
    from pipelines.judge import judge

    verdict = judge(demo / "lora" / "mira.safetensors", "mira")
    assert verdict.learned >= 0.8, verdict
    assert verdict.base <= 0.05, verdict
    assert verdict.bleed <= 0.2, verdict


def test_file_draws_the_same_in_diffusers(demo, caplog, monkeypatch):
    import torch
    from diffusers import StableDiffusionPipeline

    from pipelines.judge import draw
    from pipelines.pocket import BASE

    file = demo / "lora" / "mira.safetensors"
    pipeline = StableDiffusionPipeline.from_pretrained(BASE, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for name in ("diffusers", "peft", "transformers"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    with caplog.at_level(logging.WARNING):
        pipeline.load_lora_weights(file)
    # transformers says on import that it does without torchvision; that is not about the file.
    records = [record for record in caplog.records if record.name != "transformers.utils.import_utils"]
    assert not [record.getMessage() for record in records if record.levelno >= logging.WARNING]
    latents = torch.randn((4, 16, 16), generator=torch.Generator().manual_seed(3))[None]
    prompt = "mira, 1girl, solo, smile, blue background"
    theirs = pipeline(prompt, latents=latents, num_inference_steps=25, guidance_scale=5.0, output_type="np").images[0] * 255
    (ours,) = draw(file, [prompt], [3])
    assert np.abs(theirs - np.asarray(ours, dtype=float)).max() <= 0.5 + 0.255 + 1e-3  # rounding to 8 bits, and 1e-3 of full scale
