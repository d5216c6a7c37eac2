"""Base models of the real dimensions with random weights take two steps, from a folder and from one file, and are the same base."""

from __future__ import annotations

import gc
import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from prep.clip_bpe import write_tokenizer
from tests.train.families.ldm import to_ldm
from train.config import TrainConfig
from train.families import FAMILIES, single_file
from train.families.sd import Model
from train.families.sdxl import SDXLModel
from train.fingerprint import MARK
from train.run import run

DATA = Path(__file__).parents[1] / "data"
GOLDEN = {"sd1": "lora-sd15-dim32-keys.json.gz", "sd2": "lora-sd21-dim32-keys.json.gz", "sdxl": "lora-sdxl-dim32-keys.json.gz"}
MEMORY = {"sd1": 8, "sd2": 8, "sdxl": 20}  # GB: SDXL's weights are 14 in float32
PLAIN: dict[str, Any] = {
    "max_train_steps": 2, "network_dim": 32, "network_alpha": 16, "resolution": 64, "min_bucket_reso": 64, "sample_steps": 0,
    "save_precision": "fp32", "save_state_every_n_steps": 0, "lr_scheduler": "constant", "learning_rate": 1e-3,
}  # fmt: skip


def free_memory() -> float:
    """Return the gigabytes that a program may still take; 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1e6


def parts_of(name: str) -> dict[str, nn.Module]:
    """Make the parts of a family in float16 from the configurations that the project ships."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def config(part: str) -> dict[str, Any]:
        return json.loads((single_file.CONFIGS / name / part / "config.json").read_text(encoding="utf-8"))

    with torch.device("meta"):
        parts: dict[str, nn.Module] = {
            "unet": UNet2DConditionModel.from_config(config("unet")),
            "vae": AutoencoderKL.from_config(config("vae")),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**config("text_encoder"))),
        }
        if name == "sdxl":
            parts["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**config("text_encoder_2")))
    noise = 0.02 * torch.randn(2**20, generator=torch.Generator().manual_seed(0))  # repeated: to draw 3 billion numbers takes minutes
    for part in parts.values():
        part.to_empty(device="cpu").half()
        for key, value in part.state_dict().items():
            if value.is_floating_point():
                norm = "norm" in key and key.endswith("weight")
                value.copy_(torch.ones(()) if norm else noise.repeat(-(-value.numel() // len(noise)))[: value.numel()].view_as(value))
            else:
                value.copy_(torch.arange(value.numel()).view_as(value))  # the numbers of the positions
    return parts


@pytest.fixture(params=[*GOLDEN])
def bases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path, Path]]:
    """Write a family's name, its folder, and the same weights as one file with the names that were first given to them."""
    name = request.param
    if free_memory() < MEMORY[name]:
        pytest.skip(f"{name} needs {MEMORY[name]} GB of free memory")
    parts, folder, file = parts_of(name), tmp_path / name, tmp_path / f"{name}.safetensors"
    shutil.copytree(single_file.CONFIGS / name, folder)
    for tokenizer in ("tokenizer", "tokenizer_2")[: len(parts) - 2]:
        write_tokenizer(folder / tokenizer)
    for part, module in parts.items():
        module.save_pretrained(folder / part)  # type: ignore[operator]
    kind: Any = SDXLModel if name == "sdxl" else Model
    encoders = [part for key, part in parts.items() if key.startswith("text")]
    model = kind(FAMILIES[name], folder, unet=parts["unet"], vae=parts["vae"], text_encoders=encoders, scheduler_config={})
    save_file({key: value.contiguous().clone() for key, value in to_ldm(model).items()}, file)
    del parts, encoders, model
    gc.collect()
    yield name, folder, file
    shutil.rmtree(folder)
    file.unlink()


@pytest.mark.slow
def test_two_steps_from_folder_and_file(bases: tuple[str, Path, Path], tiny_tree: Path) -> None:
    name, *places = bases
    wanted = json.loads(gzip.decompress((DATA / GOLDEN[name]).read_bytes()))
    marks = []
    for number, base in enumerate(places):
        project = {"base": str(base), "keyword": "tok"}
        # a file of SD 2 does not say what it predicts
        table = {**PLAIN, "output_name": f"from{number}", **({"prediction_type": "v_prediction"} if name == "sd2" else {})}
        result = run(TrainConfig.load({"project": project, "train": table}, {}).at(tiny_tree.parent))
        assert result.steps == 2
        one = load_file(result.path)
        assert {key: list(value.shape) for key, value in one.items()} == wanted
        # not all layers learn: SDXL's second encoder ends in layers that nothing reads
        assert sum(bool(value.any()) for key, value in one.items() if "lora_up" in key) > 0.9 * sum("lora_up" in key for key in one)
        with safe_open(result.path, "pt") as saved:
            marks.append(json.loads(saved.metadata()[MARK]))
        gc.collect()
    assert marks[0]["run"] == marks[1]["run"], "the weights of the base are part of it"
    assert marks[0]["loss"] == pytest.approx(marks[1]["loss"], rel=1e-4)
