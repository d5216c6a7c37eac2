"""Bad input and a full disk, over the command itself: one sentence, exit code 1, nothing half written, and the next run is sound."""

import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file, save_file

from train.cli import main
from train.families.single_file import SIGNS, UNET

pytestmark = pytest.mark.usefixtures("one_thread")

LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
Spoil = Callable[[Path], dict[str, str]]  # spoils a project, and says which settings lead there


class Code:
    """What a checkpoint of a bad person holds: it makes a file where it is opened."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple:
        return open, (str(self.made), "w")


@pytest.fixture
def project(tiny_base: Path, tiny_tree: Path) -> Path:
    """A project of its own with a copy of the base, so that either may be spoiled."""
    root = tiny_tree.parent
    shutil.copytree(tiny_base, root / "base")
    return root


def train(root: Path, *args: str, **settings: str) -> Result:
    table = {"base": "base", **settings}
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    more = "max_train_steps = 1\nmin_bucket_reso = 64\nnetwork_dim = 2\nsample_steps = 1\nsave_precision = 'fp32'\nsave_state_every_n_steps = 1\n"
    text = "[project]\nname = 'mine'\nkeyword = 'tok'\nclass = 'cls'\n[train]\n" + more + "\n".join(lines) + "\n"
    (root / "dataset.toml").write_text(text, encoding="utf-8")
    return CliRunner().invoke(main, ["run", str(root), *args])


def told(result: Result) -> str:
    """Return the sentence that a run ended with."""
    assert result.exit_code == 1, result.output
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ") and "unexpected" not in last and "Traceback" not in result.output
    return last


def checkpoint(root: Path, name: str, data: bytes) -> dict[str, str]:
    (root / name).write_bytes(data)
    return {"base": name}


def torch_file(root: Path, content: object, keep: float = 1.0) -> dict[str, str]:
    torch.save(content, root / "saved.ckpt")
    data = (root / "saved.ckpt").read_bytes()
    return checkpoint(root, "saved.ckpt", data[: int(len(data) * keep)])


def cut_checkpoint(root: Path) -> dict[str, str]:
    save_file({UNET: torch.ones(4, 4), SIGNS["sd1"]: torch.ones(4)}, root / "cut.safetensors")
    return checkpoint(root, "cut.safetensors", (root / "cut.safetensors").read_bytes()[:-8])


def cut_part(part: str) -> Spoil:
    def spoil(root: Path) -> dict[str, str]:
        file = next((root / "base" / part).glob("*.safetensors"))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        return {}

    return spoil


def index_is_a_list(root: Path) -> dict[str, str]:
    (root / "base" / "model_index.json").write_text("[1]")
    return {}


def vae_of_nan(root: Path) -> dict[str, str]:
    file = next((root / "base" / "vae").glob("*.safetensors"))
    save_file({key: torch.full_like(value, float("nan")) for key, value in load_file(file).items()}, file, {"format": "pt"})
    return {}


def lora(setting: str, width: int = 32, value: float = 1.0, cut: int = 0) -> Spoil:
    """Name a LoRA of one layer in a setting."""

    def spoil(root: Path) -> dict[str, str]:
        path = root / "other.safetensors"
        halves = {"lora_down.weight": torch.full((2, width), value), "lora_up.weight": torch.ones(32, 2), "alpha": torch.tensor(2.0)}
        save_file({f"{LAYER}.{suffix}": tensor for suffix, tensor in halves.items()}, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size - cut])
        return {setting: str(path)}

    return spoil


def half_a_picture(root: Path) -> dict[str, str]:
    path = root / "tree" / "img" / "2_tok" / "0.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return {}


def picture_of_nan(root: Path) -> dict[str, str]:
    folder = root / "tree" / "img" / "2_tok"
    Image.fromarray(np.full((96, 96), np.nan, dtype=np.float32)).save(folder / "nan.tif")
    (folder / "nan.txt").write_text("tok, smile\n")
    return {}


BAD: dict[str, tuple[Spoil, str]] = {
    "a .safetensors of noise": (lambda root: checkpoint(root, "x.safetensors", b"\xff" * 99), "is no readable .safetensors file"),
    "an empty .safetensors": (lambda root: checkpoint(root, "x.safetensors", b""), "is no readable .safetensors file"),
    "a .safetensors cut short": (cut_checkpoint, "cut.safetensors cannot be read"),
    "a .ckpt with code": (lambda root: checkpoint(root, "x.ckpt", pickle.dumps(Code(root / "ran"), 2)), "holds code besides weights"),
    "a zipped .ckpt with code": (lambda root: torch_file(root, {"state_dict": Code(root / "ran")}), "holds code besides weights"),
    "a .ckpt of noise": (lambda root: checkpoint(root, "x.ckpt", b"\xff" * 99), "x.ckpt"),
    "a .ckpt cut short": (lambda root: torch_file(root, {"state_dict": {UNET: torch.ones(99)}}, 0.5), "saved.ckpt"),
    "a .ckpt that is a list": (lambda root: torch_file(root, [torch.ones(2)]), "holds no tensors by name"),
    "a UNet cut short": (cut_part("unet"), "cannot be read"),
    "a text encoder cut short": (cut_part("text_encoder"), "cannot be read"),
    "a VAE cut short": (cut_part("vae"), "cannot be read"),
    "an index that is a list": (index_is_a_list, "model_index.json is not valid JSON"),
    "a VAE that gives no numbers": (vae_of_nan, "gives no finite latents"),
    "a LoRA of SDXL to go on from": (lora("network_weights", 2048), "is a LoRA for SDXL"),
    "a LoRA of SDXL to merge": (lora("base_weights", 2048), "is a LoRA for SDXL"),
    "a LoRA of NaN to go on from": (lora("network_weights", value=float("nan")), "not finite numbers"),
    "a LoRA of NaN to merge": (lora("base_weights", value=float("nan")), "not finite numbers"),
    "a LoRA cut short to merge": (lora("base_weights", cut=9), "is not a whole safetensors file"),
    "half a picture": (half_a_picture, "0.png"),
    "a picture of NaN": (picture_of_nan, "nan.tif"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(project: Path, name: str) -> None:
    spoil, words = BAD[name]
    assert words in told(train(project, **spoil(project)))
    assert not (project / "ran").exists()
    assert not list(project.glob("lora/*.safetensors")) and not list(project.rglob(".tmp-*"))


@pytest.mark.parametrize("place", ["mine.safetensors", "mine-state.pt", "mine.jsonl", "mine-samples.png", ".atelier/latents", ".atelier/looks.json"])
def test_a_full_disk_leaves_nothing_half_written(project: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    real = os.replace

    def replace(source: str, target: Path) -> None:
        if place in Path(target).as_posix():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("prep.options.os.replace", replace)
        sentence = told(train(project))
    assert "cannot write" in sentence and place in sentence and "No space left on device" in sentence
    assert not list(project.rglob(".tmp-*"))
    again = train(project)
    assert again.exit_code == 0, again.output
    assert load_file(project / "lora" / "mine.safetensors")


def broken_by_hand(file: Path, how: str) -> None:
    tensors = load_file(file)
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-5])
    elif how == "nan":
        save_file({key: torch.full_like(value, float("nan")) for key, value in tensors.items()}, file)
    elif how == "other names":
        save_file({f"{key}_": value for key, value in tensors.items()}, file)
    else:
        save_file({key: value[..., :-1].contiguous() for key, value in tensors.items()}, file)


@pytest.mark.parametrize("how", ["cut", "nan", "other names", "other size"])
def test_a_cache_that_was_broken_by_hand_is_made_anew(project: Path, how: str) -> None:
    assert train(project, sample_prompts="").exit_code == 0
    path, files = project / "lora" / "mine.safetensors", list((project / ".atelier" / "latents").rglob("*.safetensors"))
    wanted = load_file(path)
    for file in files:
        broken_by_hand(file, how)
    again = train(project, "--restart")
    assert again.exit_code == 0, again.output
    found = load_file(path)
    assert files and all(torch.equal(found[key], wanted[key]) for key in wanted)
