"""Single files: what they are is found by their tensors, they compute what the folder computes, and broken ones end in a sentence."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prep.options import UserError
from tests.train.families.ldm import to_ldm
from tests.train.families.test_sdxl import base as xl_base  # noqa: F401  (a fixture)
from train.config import TrainConfig
from train.families import FAMILIES, find_family, load_model, single_file
from train.families.sd import Model
from train.noise import NoiseSchedule
from train.processes import Processes
from train.run import open_base
from train.runtime import Runtime


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


class Made(TorchDispatchMode):
    """Counts the bytes of the float32 tensors on the processor that operations make, views of others left out."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        before = {tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor) and tensor.dtype == torch.float32 and tensor.device.type == "cpu":
                self.bytes += 0 if tensor.untyped_storage()._cdata in before else tensor.nbytes
        return found


def halves(tiny: Callable[..., Path], tmp_path: Path) -> Path:
    """Write the tiny base in fp16."""
    state = load_file(tiny())
    save_file({name: value.half() for name, value in state.items()}, tmp_path / "half.safetensors")
    return tmp_path / "half.safetensors"


def size_of(*modules: Any) -> int:
    return sum(4 * parameter.numel() for module in modules for parameter in module.parameters())


def test_what_a_gpu_casts_is_never_widened_on_the_way(tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = halves(tiny, tmp_path)
    with Made() as made:
        model = load_model(str(file), as_stored=True)
    assert made.bytes == size_of(model.vae), "whose own precision stays"
    parts = (model.unet, *model.text_encoders)
    assert {parameter.dtype for part in parts for parameter in part.parameters()} == {torch.float16}
    runtime = Runtime.choose("bf16")
    runtime.device = torch.device("meta")
    monkeypatch.setattr(Runtime, "casts_base", True)
    with Made() as made:
        runtime.place(*parts)
    assert not made.bytes
    assert {(parameter.dtype, parameter.device.type) for part in parts for parameter in part.parameters()} == {(torch.bfloat16, "meta")}
    with Made() as made:
        wide = load_model(str(file))
    assert made.bytes == size_of(wide.vae, wide.unet, *wide.text_encoders), "as a processor computes"


@pytest.mark.parametrize(("settings", "straight"), [({}, True), ({"full": True, "network_dim": 16, "network_alpha": 8.0}, False)])
def test_a_run_on_a_gpu_takes_the_unet_as_it_is_stored(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], straight: bool
) -> None:
    config = TrainConfig.load({"train": {"base": str(halves(tiny, tmp_path)), "tree": str(tmp_path), "mixed_precision": "bf16", **settings}}, {})
    _, wide = open_base(config, Processes())
    monkeypatch.setattr(Runtime, "casts_base", True)
    _, model = open_base(config, Processes())
    assert model.unet.dtype == (torch.float16 if straight else torch.float32)
    assert model.vae.dtype == torch.float32 and all(encoder.dtype == torch.float32 for encoder in model.text_encoders)
    assert model.digest == wide.digest, "it is the same base to the run that goes on"
