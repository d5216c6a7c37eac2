"""LoRA files: precision, hashes against a second implementation, wholeness, and what is no LoRA file."""

import errno
import hashlib
import json
import struct
from pathlib import Path

import pytest
import torch

from prep.options import UserError
from train.export import read_lora, save_lora


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    found = {}
    for i in range(40):  # over 1 MiB in fp16, where the short hash begins to see bytes
        found[f"lora_unet_x{i}.lora_down.weight"] = torch.randn(16, 640, generator=generator)
        found[f"lora_unet_x{i}.lora_up.weight"] = torch.randn(1280, 16, generator=generator)
        found[f"lora_unet_x{i}.alpha"] = torch.tensor(8.0)
    return found


def canonical_bytes(file: bytes, keep: str) -> bytes:
    """Serialise a file's tensors anew with only the metadata that begins with `keep`, from the format's description alone."""
    size = struct.unpack("<Q", file[:8])[0]
    header = json.loads(file[8 : 8 + size])
    metadata = {key: value for key, value in header.pop("__metadata__").items() if key.startswith(keep)}
    text = json.dumps({"__metadata__": metadata, **header} if metadata else header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + file[8 + size :]


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_comes_back_in_its_precision_with_right_hashes(state: dict, tmp_path: Path, precision: str, dtype: torch.dtype) -> None:
    path = tmp_path / "new" / "mine.safetensors"
    save_lora(path, state, {"ss_output_name": "mine", "modelspec.title": "mine"}, precision)
    found, metadata = read_lora(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key].to(dtype)) for key in state)
    assert found["lora_unet_x0.alpha"].shape == ()
    file = path.read_bytes()
    header = 8 + struct.unpack("<Q", file[:8])[0]
    assert metadata["sshs_model_hash"] == hashlib.sha256(file[header:]).hexdigest()
    legacy = hashlib.sha256(canonical_bytes(file, "ss_")[0x100000:0x110000]).hexdigest()[:8]
    assert metadata["sshs_legacy_hash"] == legacy != "e3b0c442"
    assert (metadata["ss_output_name"], metadata["modelspec.title"]) == ("mine", "mine")


def test_model_hash_does_not_depend_on_metadata(state: dict, tmp_path: Path) -> None:
    hashes = []
    for i, metadata in enumerate([{}, {"ss_steps": "7"}]):
        save_lora(tmp_path / f"{i}.safetensors", state, metadata, "fp16")
        hashes.append(read_lora(tmp_path / f"{i}.safetensors")[1]["sshs_model_hash"])
    assert hashes[0] == hashes[1]


def test_old_file_stays_until_the_new_one_is_whole(state: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.safetensors"
    save_lora(path, state, {}, "fp16")
    before = path.read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prep.options.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_lora(path, state, {"ss_steps": "9"}, "fp32")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(state: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.safetensors"
    save_lora(path, state, {}, "fp16")
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("prep.options.os.fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*mine.safetensors \(No space left on device\); make room for 5 MB"):
        save_lora(path, state, {}, "fp32")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_what_the_precision_cannot_hold_is_not_saved(state: dict, tmp_path: Path, value: float) -> None:
    state["lora_unet_x3.lora_up.weight"][0, 0] = value
    with pytest.raises(UserError, match=r"1 of 120 weights are not finite in fp16 \(lora_unet_x3.lora_up.weight first\)"):
        save_lora(tmp_path / "mine.safetensors", state, {}, "fp16")
    assert not list(tmp_path.iterdir())


def test_what_is_no_lora_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(UserError, match="there is no file"):
        read_lora(tmp_path / "nothing.safetensors")
    (tmp_path / "text.safetensors").write_text("hello there, this is not one")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        read_lora(tmp_path / "text.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="holds no LoRA"):
        read_lora(tmp_path / "other.safetensors")
