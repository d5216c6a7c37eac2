"""OnnxTagger: run any row's model through onnxruntime, as its contract says."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prep.options import UserError, load_object
from prep.scores import UnsoundScores
from prep.taggers import CONTRACTS, TaggerRow
from prep.taggers.contract import Contract
from prep.taggers.labels import read_labels
from prep.taggers.sessions import CUDA, Sessions, gpus_of, open_session

# On a CPU pictures go through one by one. Measured on two cores, ViT-B 448: 920 ms a picture alone, 948 in fours, 927 in eights; and so
# the scores do not depend on what else is in the batch, not in the last bit either.
ON_CPU = 1
# How many sessions share a GPU where a model takes single pictures and cannot be changed, so that one computes while another is fed.
PER_GPU = 2
SLACK = 1e-4  # a sigmoid in half precision may leave 0..1 by so much


class OnnxTagger:
    """One model file and its labels; see `prep.taggers.Tagger`."""

    def __init__(self, row: TaggerRow, files: tuple[Path, Path], device: str = "auto", batch: int = 16, gpus: str = "") -> None:
        self.row = row
        self.contract: Contract = load_object(f"{CONTRACTS}:{row.contract}")
        self.version = self.contract.version
        self.path, self.labels_path = files
        self.labels = read_labels(self.labels_path)
        self.device, self.batch, self.gpus = device, batch, gpus
        self.provider = ""
        self._lock = threading.Lock()  # cached_property has none since Python 3.12

    @property
    def sessions(self) -> Sessions:
        """The loaded model; raises UserError if it cannot run on the asked device or does not fit its labels or contract."""
        with self._lock:
            return self._sessions

    @cached_property
    def _sessions(self) -> Sessions:
        first = open_session(self.path, self.device)
        self._check(first)
        loaded = self._on_gpus(first) if first.get_providers()[0] == CUDA else [first]
        self.provider = first.get_providers()[0]
        return Sessions(loaded, self._output(first))

    @cached_property
    def size(self) -> int:
        """The side of the model's input in pixels."""
        node = self.sessions.sessions[0].get_inputs()[0]
        if node.type == "tensor(uint8)":  # pixels go in as they are
            return node.shape[1]
        return self.contract.side(node.shape)

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Return an RGB picture as uint8 (size, size, 3) in the model's order of channels; the rest is left for `score`."""
        return self.contract.pixels(image, self.size)

    def score(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Return probabilities (pictures, labels); raises UserError if the model gives anything else, UnsoundScores if other numbers."""
        if not prepared:
            return np.zeros((0, len(self.labels.names)), np.float32)
        size = self.pass_size
        groups = [prepared[at : at + size] for at in range(0, len(prepared), size)]
        outputs = self.sessions.run([self._filled(group, size) for group in groups])
        return np.concatenate([self._checked(output[: len(group)]) for output, group in zip(outputs, groups, strict=True)])

    @property
    def pass_size(self) -> int:
        """How many pictures go through at once: what the model insists on, else the user's number on a GPU and one on a CPU."""
        fixed = self.sessions.sessions[0].get_inputs()[0].shape[0]
        if isinstance(fixed, int):
            return fixed
        return self.batch if self.provider == CUDA else ON_CPU

    def _filled(self, group: Sequence[np.ndarray], size: int) -> np.ndarray:
        """Return the model's input; a short batch is filled up, because CUDA tunes for every new shape and a result may differ in its last bit."""
        pixels = np.empty((size, *group[0].shape), np.uint8)
        np.stack(group, out=pixels[: len(group)])
        pixels[len(group) :] = 255
        takes_pixels = self.sessions.sessions[0].get_inputs()[0].type == "tensor(uint8)"
        return pixels if takes_pixels else self.contract.tensor(pixels)

    def _checked(self, scores: np.ndarray) -> np.ndarray:
        scores = scores.astype(np.float32)
        if scores.ndim != 2 or scores.shape[1] != len(self.labels.names):
            raise self._misfit(scores.shape[-1])
        if self.contract.logits or self.sessions.output == "logits":
            broken = ~np.isfinite(scores)
            scores = 1 / (1 + np.exp(-np.clip(scores, -80, 80)))  # e^80 is still a float32
            scores[broken] = np.nan  # else infinity would be sure of a tag
        if not (scores >= -SLACK).all() or not (scores <= 1 + SLACK).all():  # "not >=" is true of NaN too
            raise UnsoundScores(f"{self.path} gives scores that are not between 0 and 1; the file is damaged, or is no tagger of this kind")
        return scores.clip(0, 1)

    def _check(self, session: Any) -> None:
        """Raise UserError unless the model's input fits the contract and its output the labels."""
        shape = session.get_inputs()[0].shape
        if not self.contract.side(shape):
            wanted = "(pictures, size, size, 3)" if self.contract.layout == "NHWC" else "(pictures, 3, size, size)"
            raise UserError(f"{self.path} takes input of shape {shape}, not {wanted}; it is no tagger of the kind that {self.labels_path.name} tells")
        width = next(node.shape[-1] for node in session.get_outputs() if node.name == self._output(session))
        if isinstance(width, int) and width != len(self.labels.names):
            raise self._misfit(width)

    def _misfit(self, width: int) -> UserError:
        count = len(self.labels.names)
        return UserError(f"{self.path} gives {width} scores but {self.labels_path.name} beside it names {count} tags; take both from one release")

    def _output(self, session: Any) -> str:
        """Return the name of the output that holds the scores."""
        names = [node.name for node in session.get_outputs()]
        places = dict(enumerate(names)) | {name: name for name in names}
        found = next((places[wanted] for wanted in self.contract.outputs if wanted in places), None)
        if found is None:
            raise UserError(f"{self.path} has the outputs {', '.join(names)} and none that holds scores; take the file from the tagger's release")
        return found

    def _on_gpus(self, first: Any) -> list[Any]:
        """Load the model on every GPU that is to be used, made to take batches of pixels if that can be proved right."""
        import torch

        gpus = gpus_of(self.gpus, torch.cuda.device_count())
        single = first.get_inputs()[0].shape[0] == 1
        model = self.in_graph(single)
        if model is not None:
            return [open_session(model, self.device, gpu, str(self.path)) for gpu in gpus]
        return [open_session(self.path, self.device, gpu) for gpu in gpus for _ in range(PER_GPU if single else 1)]

    def in_graph(self, single: bool) -> bytes | None:
        """Return the model with the cast in its graph and its batch size freed, or None if that cannot be done or be proved right."""
        from prep.taggers.graph import free_batch, proven, read, take_pixels

        model = read(self.path)
        if model is None:
            return None
        if single:
            model = free_batch(model)
            sides = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]]
            if not proven(model, self.path, (sides[0], sides[1], sides[2])):
                return None
        return take_pixels(model, self.contract).SerializeToString()
