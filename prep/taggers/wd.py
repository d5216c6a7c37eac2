"""WD taggers (SmilingWolf's v1.4 v2 and v3 families, and all that follow their contract) through onnxruntime.

Contract: input float32 (N, size, size, 3), BGR, 0..255; the picture centred on a white square; output probabilities (N, labels);
labels in selected_tags.csv (tag_id,name,category,count), a row per output.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prep.options import UserError
from prep.scores import Labels

CATEGORIES = {"0": "general", "1": "artist", "3": "copyright", "4": "character", "5": "meta", "9": "rating"}
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# A picture that is taller than this is resized in bands, else a long strip would need memory for its whole white square.
BAND = 512


class WDTagger:
    """One model file and its labels; see `prep.taggers.Tagger`."""

    version = 1

    def __init__(self, files: tuple[Path, Path], device: str = "auto", batch: int = 16) -> None:
        self.path, labels = files
        self.labels = read_labels(labels)
        self.device = device
        self.batch = batch
        self.provider = ""

    @cached_property
    def session(self) -> Any:
        """The loaded model; raises UserError if it cannot run on the asked device or does not fit its labels."""
        session = open_session(self.path, self.device)
        self.provider = session.get_providers()[0]
        width = session.get_outputs()[0].shape[-1]
        if isinstance(width, int) and width != len(self.labels.names):
            raise self._misfit(width)
        shape = session.get_inputs()[0].shape
        if len(shape) != 4 or shape[3] != 3 or not isinstance(shape[1], int) or shape[1] != shape[2]:
            raise UserError(f"{self.path} takes input of shape {shape}, not (pictures, size, size, 3); it is not a WD tagger")
        return session

    def _misfit(self, width: int) -> UserError:
        count = len(self.labels.names)
        return UserError(f"{self.path} gives {width} scores but selected_tags.csv beside it names {count} tags; take both files from one release")

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Return an RGB picture as the model wants it, BGR uint8 (size, size, 3); the cast to float is left for `score`."""
        size = self.session.get_inputs()[0].shape[1]
        return np.ascontiguousarray(np.asarray(white_square(image, size))[:, :, ::-1])

    def score(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Return probabilities (pictures, labels); raises UserError if the model gives anything else."""
        fixed = self.session.get_inputs()[0].shape[0]
        size = fixed if isinstance(fixed, int) else self.batch
        parts = [self._pass(prepared[at : at + size], size) for at in range(0, len(prepared), size)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels.names)), np.float32)

    def _pass(self, prepared: Sequence[np.ndarray], size: int) -> np.ndarray:
        """Run the model once; a short batch is filled up where the model or CUDA (which tunes for every new shape) wants one shape."""
        node = self.session.get_inputs()[0]
        fill = size if isinstance(node.shape[0], int) or self.provider == PROVIDERS["cuda"] else len(prepared)
        batch = np.full((fill, *prepared[0].shape), 255, np.float32)
        batch[: len(prepared)] = np.stack(prepared)
        scores = self.session.run([self.session.get_outputs()[0].name], {node.name: batch})[0][: len(prepared)].astype(np.float32)
        if scores.shape != (len(prepared), len(self.labels.names)):
            raise self._misfit(scores.shape[-1])
        if not (scores >= 0).all() or not (scores <= 1).all():  # "not >=" is true of NaN too
            raise UserError(f"{self.path} gives scores that are not between 0 and 1; the file is damaged, or is not a WD tagger")
        return scores


def read_labels(path: Path) -> Labels:
    """Read selected_tags.csv; raises UserError if it is not one."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(row["name"], CATEGORIES.get(row["category"], "other")) for row in csv.DictReader(file)]
    except (KeyError, csv.Error, UnicodeDecodeError):
        raise UserError(f"{path} is no list of tags; it must be CSV with the columns tag_id,name,category,count") from None
    names = [name for name, _ in rows]
    for name in names:
        if not name or "," in name:
            raise UserError(f"{path} names a tag {name!r}, which cannot stand in a caption; take the file from the tagger's release")
    if len(set(rows)) != len(rows) or not rows:
        raise UserError(f"{path} is empty or names a tag twice; take the file from the tagger's release")
    return Labels(tuple(names), tuple(category for _, category in rows))


def white_square(image: Image.Image, size: int) -> Image.Image:
    """Centre an RGB picture on a white square of its longer side and resize that to `size` with PIL's bicubic filter.

    Works across, then down, as PIL itself does, so the pixels are those of padding and resizing at once.
    """
    width, height = image.size
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    strip = Image.new("RGB", (size, side), "white")
    for y in range(0, height, BAND):
        rows = image.crop((0, y, width, min(y + BAND, height)))
        padded = Image.new("RGB", (side, rows.height), "white")
        padded.paste(rows, (left, 0))
        strip.paste(padded.resize((size, rows.height), Image.Resampling.BICUBIC), (0, top + y))
    return strip.resize((size, size), Image.Resampling.BICUBIC)


def open_session(path: Path, device: str) -> Any:
    """Load an ONNX model on "cpu", "cuda" or "auto" (CUDA if it works); raises UserError if it must and does not run on CUDA."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # warnings are for those who make models
    providers: list[Any] = [PROVIDERS["cpu"]]
    if device != "cpu" and PROVIDERS["cuda"] in onnxruntime.get_available_providers():
        providers.insert(0, (PROVIDERS["cuda"], {"cudnn_conv_algo_search": "HEURISTIC"}))
        if device == "auto":
            onnxruntime.set_default_logger_severity(4)  # that CUDA cannot be loaded is no error then
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime raises a class of its own for each kind of fault, all straight from Exception
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"{path} cannot be loaded ({reason}); fetch the file again") from None
    # The list of available providers also names CUDA where there is no GPU; only the live session tells the truth.
    if device == "cuda" and session.get_providers()[0] != PROVIDERS["cuda"]:
        raise UserError("onnxruntime cannot use CUDA here (no GPU, no CUDA libraries, or no onnxruntime-gpu); mend that, or give --device auto")
    return session
