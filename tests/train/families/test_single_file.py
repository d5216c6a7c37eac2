"""Single files: what they are is found by their tensors, they compute what the folder computes, and broken ones end in a sentence."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from prep.options import UserError
from tests.train.families.ldm import to_ldm
from tests.train.families.test_sdxl import base as xl_base  # noqa: F401  (a fixture)
from train.families import FAMILIES, find_family, load_model, single_file
from train.families.sd import Model
from train.noise import NoiseSchedule


def written(model: Model, path: Path, **more: Tensor) -> Path:
    save_file({name: value.contiguous().clone() for name, value in (to_ldm(model) | more).items()}, path)
    return path


@pytest.fixture
def tiny(tiny_base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Write the tiny base as a single file whose family's configurations are those of the tiny base."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "sd1").symlink_to(tiny_base)
    monkeypatch.setattr(single_file, "CONFIGS", tmp_path / "configs")
    return lambda name="model.safetensors", **more: written(load_model(str(tiny_base)), tmp_path / name, **more)


def same(first: Model, second: Model) -> bool:
    parts = zip((first.unet, first.vae, *first.text_encoders), (second.unet, second.vae, *second.text_encoders), strict=True)
    states = [(a.state_dict(), b.state_dict()) for a, b in parts]
    return all(a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in states)


def test_sd1_from_a_file_is_the_folder(tiny: Callable[..., Path], tiny_base: Path) -> None:
    file = tiny()
    assert find_family(file) is FAMILIES["sd1"]
    model = load_model(str(file))
    assert same(model, load_model(str(tiny_base)))
    assert not any(parameter.requires_grad for part in (model.unet, model.vae, *model.text_encoders) for parameter in part.parameters())
    assert model.prediction_type == "epsilon" and load_model(str(file), torch.float16).unet.dtype == torch.float16


def test_the_names_of_the_first_anime_models(tiny: Callable[..., Path], tiny_base: Path, tmp_path: Path) -> None:
    state = {name.replace("transformer.text_model.", "transformer."): value for name, value in to_ldm(load_model(str(tiny_base))).items()}
    tiny()
    save_file({name: value.contiguous().clone() for name, value in state.items()}, tmp_path / "nai.safetensors")
    assert same(load_model(str(tmp_path / "nai.safetensors")), load_model(str(tiny_base)))


def test_a_ckpt_is_read_and_one_with_code_is_not(tiny: Callable[..., Path], tiny_base: Path, tmp_path: Path) -> None:
    tiny()
    torch.save({"state_dict": to_ldm(load_model(str(tiny_base))), "global_step": 7}, tmp_path / "model.ckpt")
    assert same(load_model(str(tmp_path / "model.ckpt")), load_model(str(tiny_base)))

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("this must never be printed",)

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.ckpt", "old.ckpt"):
        with pytest.raises(UserError, match=f"{name} holds code besides weights"):
            load_model(str(tmp_path / name))


def test_sdxl_says_what_it_predicts(xl_base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "sdxl").symlink_to(xl_base)
    monkeypatch.setattr(single_file, "CONFIGS", tmp_path / "configs")
    folder = load_model(str(xl_base))
    plain = load_model(str(written(folder, tmp_path / "plain.safetensors")))
    assert plain.family is FAMILIES["sdxl"] and same(plain, folder) and plain.prediction_type == "epsilon"
    marked = load_model(str(written(folder, tmp_path / "noob.safetensors", v_pred=torch.tensor([]), ztsnr=torch.tensor([]))))
    assert marked.prediction_type == "v_prediction"
    schedule = NoiseSchedule.from_config(marked.scheduler_config, marked.prediction_type)
    assert schedule.alphas_cumprod[-1].item() == pytest.approx(0, abs=1e-12)
    assert load_model(str(tmp_path / "noob.safetensors"), prediction_type="epsilon").prediction_type == "epsilon"


def test_a_vae_of_its_own_takes_the_bases_place(tiny: Callable[..., Path], tiny_base: Path, tmp_path: Path) -> None:
    file = tiny()
    other = load_model(str(tiny_base)).vae
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    (tmp_path / "vae").mkdir()
    shutil.copy(tiny_base / "vae" / "config.json", tmp_path / "vae")
    save_file(other.state_dict(), tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    model = load_model(str(file), vae=str(tmp_path / "vae"))
    plain = load_model(str(file))
    assert torch.equal(model.vae.encoder.conv_in.weight, plain.vae.encoder.conv_in.weight * 1.5) and model.vae.dtype == torch.float32
    single = {name.removeprefix("first_stage_model."): value for name, value in to_ldm(plain).items() if name.startswith("first_stage_model.")}
    save_file({name: value.contiguous().clone() for name, value in single.items()}, tmp_path / "vae.safetensors")
    again = load_model(str(tiny_base), vae=str(tmp_path / "vae.safetensors")).vae.state_dict()
    assert all(torch.equal(again[key], value) for key, value in plain.vae.state_dict().items())
    with pytest.raises(UserError, match="there is no VAE at"):
        load_model(str(file), vae=str(tmp_path / "nothing.safetensors"))
    with pytest.raises(UserError, match="cannot be loaded as a VAE"):
        load_model(str(file), vae=str(tmp_path))


def test_what_an_sd2_file_predicts_is_asked(tmp_path: Path) -> None:
    save_file({single_file.UNET: torch.zeros(1), single_file.SIGNS["sd2"]: torch.zeros(1)}, tmp_path / "sd2.safetensors")
    assert find_family(tmp_path / "sd2.safetensors") is FAMILIES["sd2"]
    with pytest.raises(UserError, match="give --prediction-type epsilon"):
        load_model(str(tmp_path / "sd2.safetensors"))


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"lora_unet_x.alpha": torch.zeros(1)}, "is a LoRA"),
        ({"x": torch.zeros(1)}, "is no Stable Diffusion checkpoint"),
        ({single_file.UNET: torch.zeros(1)}, "holds no text encoder"),
        ({single_file.UNET: torch.zeros(1), single_file.SIGNS["sd1"]: torch.zeros(1)}, "cannot be loaded as Stable Diffusion 1.x"),
    ],
)
def test_a_file_that_is_no_base_model_is_one_sentence(tmp_path: Path, tensors: dict[str, Tensor], sentence: str) -> None:
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=sentence):
        load_model(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("data", [b"", b"\x08", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{]", b"not a checkpoint at all"])
@pytest.mark.parametrize("name", ["broken.safetensors", "broken.ckpt"])
def test_a_broken_file_is_one_sentence(tmp_path: Path, data: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=name):
        load_model(str(tmp_path / name))
