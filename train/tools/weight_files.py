"""A base model's files read one tensor at a time, so that of 7 GB only what is in use lies in memory.

The format of safetensors: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.options import UserError
from train.tensor_stream import NAMES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Bytes after which a mapped pickle is opened anew: until then the pages that were read count as memory of this process.
WINDOW = 2**29


class WeightFile(ABC):
    """Tensors by name, as they lie in a file."""

    metadata: dict[str, str]

    @abstractmethod
    def names(self) -> Iterable[str]:
        """List the tensors."""

    @abstractmethod
    def facts(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        """Return a tensor's shape and type, without reading it."""

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """Read one tensor."""


class SafetensorsFile(WeightFile):
    """A .safetensors file, read and not mapped: mapped pages would count as memory of this process."""

    def __init__(self, path: Path) -> None:
        import torch

        kinds = {theirs: getattr(torch, ours) for ours, theirs in NAMES.items()}
        self.path = path
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > path.stat().st_size:
                    raise ValueError("its header is longer than the file")
                header: dict[str, Any] = json.loads(file.read(length))
            self.metadata = dict(header.pop("__metadata__", None) or {})
            self._begin = 8 + length
            self._facts = {name: (tuple(entry["shape"]), kinds[entry["dtype"]], *entry["data_offsets"]) for name, entry in header.items()}
        except (OSError, struct.error, ValueError, TypeError, AttributeError, LookupError) as error:
            raise UserError(f"{path} is no readable .safetensors file ({error}); fetch it anew") from None
        if self._begin + max((end for *_, end in self._facts.values()), default=0) > path.stat().st_size:
            raise UserError(f"{path} ends too early; fetch it anew")

    def names(self) -> Iterable[str]:
        return self._facts

    def facts(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        shape, dtype, *_ = self._facts[name]
        return shape, dtype

    def read(self, name: str) -> Tensor:
        import torch

        shape, dtype, begin, end = self._facts[name]
        data = bytearray(end - begin)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self._begin + begin)
            view, done = memoryview(data), 0
            while done < len(data):
                count = file.readinto(view[done:])
                if not count:
                    raise UserError(f"{self.path} ends too early; fetch it anew")
                done += count
        return torch.frombuffer(data, dtype=dtype).view(shape) if data else torch.empty(shape, dtype=dtype)


class PickleFile(WeightFile):
    """A .ckpt, .pt or .bin file, opened for weights alone; one of torch's oldest, which is no zip, lies whole in memory."""

    def __init__(self, path: Path) -> None:
        self.path, self.metadata, self._read = path, dict[str, str](), 0
        self._tensors = self._open()
        self._facts = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in self._tensors.items()}

    def _open(self) -> dict[str, Tensor]:
        from train.families.single_file import read

        return read(self.path)

    def names(self) -> Iterable[str]:
        return self._facts

    def facts(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        return self._facts[name]

    def read(self, name: str) -> Tensor:
        import zipfile

        if self._read > WINDOW and zipfile.is_zipfile(self.path):
            self._tensors, self._read = {}, 0  # the old pages are given back before the new ones come
            self._tensors = self._open()
        found = self._tensors[name]
        self._read += found.numel() * found.element_size()
        return found.clone()


class Shards(WeightFile):
    """Several files that hold one part of a model, as an index says."""

    def __init__(self, index: Path) -> None:
        try:
            places: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f"{index} is no index of weights ({error}); fetch the base model anew") from None
        files = {name: open_weights(index.parent / name) for name in sorted(set(places.values()))}
        self.metadata = {"format": "pt"}
        self._places = {name: files[place] for name, place in places.items()}

    def names(self) -> Iterable[str]:
        return self._places

    def facts(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        return self._places[name].facts(name)

    def read(self, name: str) -> Tensor:
        return self._places[name].read(name)


def open_weights(path: Path) -> WeightFile:
    """Open a file of weights or an index of shards; raises UserError if it is neither, or holds code."""
    if path.suffix == ".json":
        return Shards(path)
    return SafetensorsFile(path) if path.suffix == ".safetensors" else PickleFile(path)
