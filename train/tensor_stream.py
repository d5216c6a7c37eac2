"""Safetensors files written and compared one tensor at a time, so that a checkpoint of 7 GB never lies in memory twice.

The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from prep.options import UserError
from train.atomic import atomic_write

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# torch's type -> the name that the header has for it
NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
ALIGNMENT = 8  # readers map the tensors into memory where they lie


@dataclass(frozen=True)
class Entry:
    """A tensor of a file that is made when it is its turn."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]
    checked: bool = True  # False for what was not made here, and is written as it is

    @property
    def size(self) -> int:
        """Bytes in the file."""
        count = 1
        for side in self.shape:
            count *= side
        return count * self.dtype.itemsize

    def tensor(self) -> Tensor:
        """Make the tensor as the file holds it; raises UserError if its type cannot hold it."""
        found = self.make().detach()
        tensor = found.to("cpu", self.dtype).contiguous()
        if self.checked and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            kind = str(self.dtype).rpartition(".")[2]
            raise UserError(f"{self.name} is not finite in {kind}, so nothing was saved; train at a lower learning rate, or save in bf16 or fp32")
        return tensor


def write_stream(path: Path, entries: Iterable[Entry], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file; raises UserError, and leaves nothing half written, if a tensor is not finite or the disk is full."""
    ordered = sorted(entries, key=lambda entry: (-entry.dtype.itemsize, entry.name))  # the widest first: all then are aligned

    def write(file: BinaryIO) -> None:
        file.write(_header(ordered, metadata))
        for entry in ordered:
            tensor = entry.tensor()
            if tuple(tensor.shape) != entry.shape:
                raise ValueError(f"{entry.name} is {tuple(tensor.shape)}, not {entry.shape}")
            file.write(_bytes(tensor))

    try:
        atomic_write(path, write)
    except OSError as error:
        size = sum(entry.size for entry in ordered) / 2**20
        raise UserError(f"cannot write {path} ({error.strerror}); make room for {size:.0f} MB, or give another folder") from error


def _header(entries: Sequence[Entry], metadata: Mapping[str, str]) -> bytes:
    import torch

    kinds = {getattr(torch, ours): theirs for ours, theirs in NAMES.items()}
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    begin = 0
    for entry in entries:
        header[entry.name] = {"dtype": kinds[entry.dtype], "shape": list(entry.shape), "data_offsets": [begin, begin + entry.size]}
        begin += entry.size
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bytes(tensor: Tensor) -> memoryview | bytes:
    import torch

    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy()) if tensor.numel() else b""


def differing(path: Path, entries: Iterable[Entry]) -> list[str]:
    """Read a file back and list the tensors that are not what they should be, or that are missing or too many."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            left, wrong = set(file.keys()), list[str]()
            for entry in entries:
                if entry.name not in left or not torch.equal(file.get_tensor(entry.name), entry.tensor()):
                    wrong.append(entry.name)
                left.discard(entry.name)
            return wrong + sorted(left)
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read back ({error}); check the disk, and run again: the trained state is kept") from None
