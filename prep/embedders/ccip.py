"""CCIP, contrastive anime character image pre-training (deepghs/ccip_onnx), through onnxruntime: is it the same character?

Contract: model_feat.onnx takes float32 (N, 3, 384, 384), RGB, the picture stretched bilinearly, CLIP's mean and deviation, and gives
(N, 768); model_metrics.onnx takes such features (N, 768) and gives the differences (N, N) of all pairs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from prep.embedders import Judged
from prep.embedders.cluster import judge
from prep.options import UserError, load_object

if TYPE_CHECKING:
    from prep.embedders import EmbedderRow

OPEN = "prep.taggers.sessions:open_session"
SIDE = 384
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
PREPROCESSING = 1


class Ccip:
    """The two models of one release; see `prep.embedders.Embedder`."""

    def __init__(self, row: EmbedderRow, files: Sequence[Path], version: str, device: str = "auto") -> None:
        self.features, self.metrics = files
        self.device = device
        self.version = f"ccip {version} {PREPROCESSING}"
        self.limit = _own_limit(self.features.with_name("metrics.json")) or row.limit

    @cached_property
    def _session(self) -> Any:
        session = load_object(OPEN)(self.features, self.device)
        shape = session.get_inputs()[0].shape
        if len(shape) != 4 or shape[1] != 3 or any(isinstance(side, int) and side != SIDE for side in shape[2:]):
            raise UserError(f"{self.features} takes input of shape {shape}, not (pictures, 3, {SIDE}, {SIDE}); it is not CCIP")
        return session

    @cached_property
    def _comparer(self) -> Any:
        return load_object(OPEN)(self.metrics, self.device)

    def embed(self, images: Sequence[Image.Image]) -> list[np.ndarray]:
        name = self._session.get_inputs()[0].name
        # One by one: a picture's vector must not depend on its neighbours, and on a CPU it is as fast.
        return [self._session.run(None, {name: _prepared(image)})[0][0].astype(np.float32) for image in images]

    def judge(self, vectors: np.ndarray, limit: float | None = None) -> list[Judged]:
        def differences(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
            both = vectors[np.concatenate([rows, columns])]
            table = self._comparer.run(None, {self._comparer.get_inputs()[0].name: both})[0]
            if table.shape != (len(both), len(both)):
                raise UserError(f"{self.metrics} gives {table.shape} for {len(both)} pictures; take both files from one release of CCIP")
            return table[: len(rows), len(rows) :]

        return judge(len(vectors), differences, self.limit if limit is None else limit)


def _prepared(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    return np.ascontiguousarray(((pixels - MEAN) / DEVIATION).transpose(2, 0, 1)[None])


def _own_limit(path: Path) -> float | None:
    """Read the threshold from the metrics.json that may lie beside a model."""
    if not path.is_file():
        return None
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["threshold"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} names no threshold; fetch the file again, or delete it") from None
