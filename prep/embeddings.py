"""Embeddings: what a base model's text encoders make of single tokens, read from its files with numpy alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from prep.options import UserError, load_object

SHIPPED = {"pocket": "pipelines.pocket:BASE"}  # by name: prep does not know pipelines
ENCODERS = ("text_encoder", "text_encoder_2")
FILES = ("model.safetensors", "model.fp16.safetensors")
TENSOR = "token_embedding.weight"
TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def token_embeddings(base: str) -> list[np.ndarray]:
    """Return the token embeddings of each text encoder, (49408, width) in float32; none if the base's files are not on this machine.

    `base` is pocket, a diffusers folder, or a hub id whose files are in the hub's cache; nothing is fetched.
    """
    return [read_tensor(path, TENSOR) for encoder in ENCODERS if (path := _file(base, encoder)) is not None]


def _file(base: str, encoder: str) -> Path | None:
    folder = Path(load_object(SHIPPED[base])) if base in SHIPPED else Path(base)
    found = next((folder / encoder / name for name in FILES if (folder / encoder / name).is_file()), None)
    return found or (None if folder.is_dir() else _cached(base, encoder))


def _cached(base: str, encoder: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        paths = [try_to_load_from_cache(base, f"{encoder}/{name}") for name in FILES]
    except HFValidationError:  # a path that does not exist
        return None
    return next((Path(path) for path in paths if isinstance(path, str)), None)


def read_tensor(path: Path, ending: str) -> np.ndarray:
    """Read the one tensor of a safetensors file whose name ends so, as float32; raises UserError if there is none.

    Format: github.com/huggingface/safetensors, "Format". bfloat16, which numpy lacks, is the upper half of a float32.
    """
    with path.open("rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            name = next(name for name in header if name.endswith(ending))
            start, end = header[name]["data_offsets"]
            file.seek(8 + length + start)
            values = np.frombuffer(file.read(end - start), TYPES[header[name]["dtype"]]).reshape(header[name]["shape"])
        except (struct.error, ValueError, StopIteration, KeyError, MemoryError):
            raise UserError(f"{path} holds no readable {ending}; it is damaged, or no text encoder") from None
    return (values.astype(np.uint32) << 16).view(np.float32) if values.dtype == np.uint16 else values.astype(np.float32)
