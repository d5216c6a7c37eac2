"""The LoRA file: safetensors in kohya's layout or diffusers', written whole or not at all, with the hashes that readers look for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prep.options import UserError, atomic_write
from train.adapters import kind_of
from train.diffusers_layout import from_diffusers, is_diffusers, to_diffusers

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# The setting save_precision -> the name of torch's type.
PRECISIONS = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
# Where the web UI's first, short hash of a file is taken from: 64 KiB at 1 MiB.
LEGACY_OFFSET, LEGACY_LENGTH = 0x100000, 0x10000


def save_lora(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str], precision: str, layout: str = "kohya") -> None:
    """Write a LoRA's weights (kohya's names) and metadata in fp16, bf16 or fp32, hashes added; the file appears whole.

    Raises UserError, and leaves nothing half written, if a weight is not a finite number in that precision, the layout cannot hold the
    adapter, or the disk is full.
    """
    from safetensors.torch import save

    tensors, added = LAYOUTS[layout](in_precision(state, precision))
    metadata = {**metadata, **added}
    data = save(tensors, {**metadata, **lora_hashes(tensors, metadata)})
    try:
        atomic_write(path, data)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}); make room for {len(data) / 2**20:.0f} MB, or give another folder") from error


def _kohya(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    return state, {}


# The setting save_format -> what makes a file's tensors, and the metadata it adds, of a state in kohya's names.
LAYOUTS: dict[str, Callable[[dict[str, Tensor]], tuple[dict[str, Tensor], dict[str, str]]]] = {"kohya": _kohya, "diffusers": to_diffusers}


def in_precision(state: Mapping[str, Tensor], precision: str) -> dict[str, Tensor]:
    """Return the weights on the CPU as a file of that precision holds them."""
    import torch

    dtype: torch.dtype = getattr(torch, PRECISIONS[precision])
    tensors = {key: tensor.detach().to("cpu", dtype).contiguous() for key, tensor in state.items()}
    broken = [key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise UserError(
            f"{len(broken)} of {len(tensors)} weights are not finite in {precision} ({broken[0]} first), so nothing was saved; "
            "train at a lower learning rate, or save in bf16"
        )
    return tensors


def lora_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """Compute the hashes by which readers know a LoRA: of its tensor bytes alone, and the short one of additional-networks.

    The short one is taken from a file whose metadata holds only the keys that begin with ss_.
    """
    from safetensors.torch import save

    data = save(dict(tensors), {key: value for key, value in metadata.items() if key.startswith("ss_")})
    header = 8 + int.from_bytes(data[:8], "little")  # 8 bytes of length, then the JSON header
    legacy = hashlib.sha256(data[LEGACY_OFFSET : LEGACY_OFFSET + LEGACY_LENGTH])
    return {"sshs_model_hash": hashlib.sha256(data[header:]).hexdigest(), "sshs_legacy_hash": legacy.hexdigest()[:8]}


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a LoRA file as it is: its tensors in the precision they have, and its metadata; raises UserError if it is no such file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"there is no file {path}; give a LoRA file (.safetensors)")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file ({error}); give a LoRA file (.safetensors)") from None
    if not is_diffusers(tensors) and kind_of(tensors) is None:
        raise UserError(f"{path} holds no LoRA in kohya's layout or diffusers' (keys such as NAME.lora_down.weight); give a LoRA file")
    return tensors, metadata


def read_lora(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a LoRA file's weights under kohya's names, whatever its layout, and its metadata; raises UserError if it is no such file."""
    tensors, metadata = read_file(path)
    return (from_diffusers(tensors, metadata) if is_diffusers(tensors) else tensors), metadata
