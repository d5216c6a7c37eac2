"""Faces: tell people apart by their faces, with SFace (Zhong et al. 2021, arXiv:2205.12010) or ArcFace (Deng et al. 2019, arXiv:1801.07698).

Contract: input float32 (1, 3, 112, 112), RGB, less a mean, over a scale; the face turned and scaled so that its eyes, nose and mouth
lie where both were trained to have them. Output (1, 128) or (1, 512), compared by the cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from prep.boxes import head_of, prominence
from prep.detectors import detector
from prep.detectors import face as blaze
from prep.embedders import EMBEDDERS, LOCAL_FACES, Judged
from prep.embedders.cluster import judge
from prep.options import UserError, load_object

if TYPE_CHECKING:
    from prep.embedders import EmbedderRow
    from prep.item import Box

OPEN = "prep.taggers.sessions:open_session"
SIDE = 112
# Where the left and right eye (as seen), the tip of the nose and the middle of the mouth lie in the input, in pixels.
TEMPLATE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [56.1396, 92.2848]])
SFACE_LENGTH = 128
PREPROCESSING = 1


class Faces:
    """One model file; see `prep.embedders.Embedder`. A picture without a face gives an empty vector."""

    def __init__(self, row: EmbedderRow, files: Sequence[Path], version: str, device: str = "auto") -> None:
        (self.model,) = files
        self.given, self.device = row, device
        self.version = f"face {version} {PREPROCESSING}"

    @cached_property
    def _session(self) -> Any:
        session = load_object(OPEN)(self.model, self.device)
        shape = session.get_inputs()[0].shape
        if list(shape[1:]) != [3, SIDE, SIDE]:
            raise UserError(f"{self.model} takes input of shape {shape}, not (1, 3, {SIDE}, {SIDE}); it is no face model of a known kind")
        return session

    @cached_property
    def row(self) -> EmbedderRow:
        """The row whose ways the model follows."""
        return self._row(self._session.get_outputs()[0].shape[-1])

    def _row(self, length: int) -> EmbedderRow:
        """Return the row given; for a file of one's own the length of its vectors tells which."""
        return EMBEDDERS["sface"] if self.given is LOCAL_FACES and length == SFACE_LENGTH else self.given

    def embed(self, images: Sequence[Image.Image]) -> list[np.ndarray]:
        return [self._embed(image) for image in images]

    def _embed(self, image: Image.Image) -> np.ndarray:
        found = detector("face")([image])[0]
        if not found:
            return np.zeros(0, np.float32)
        face = aligned(image, max(found, key=lambda box: prominence(box, image.size)))
        pixels = (np.asarray(face, dtype=np.float32) - self.row.mean) / self.row.scale
        inputs = {self._session.get_inputs()[0].name: np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)}
        vector = self._session.run(None, inputs)[0].reshape(-1).astype(np.float32)
        return vector / max(float(np.linalg.norm(vector)), 1e-9)

    def judge(self, vectors: np.ndarray, limit: float | None = None) -> list[Judged]:
        own = self._row(vectors.shape[1]).limit
        return judge(len(vectors), lambda rows, columns: 1 - vectors[rows] @ vectors[columns].T, own if limit is None else limit)


def aligned(image: Image.Image, box: Box) -> Image.Image:
    """Return the face in a box of an RGB picture, SIDE x SIDE, turned, scaled and moved as TEMPLATE asks."""
    a, b, c, d, e, f = fit(TEMPLATE, landmarks(image, box)).ravel()
    # PIL asks of each pixel of the result where it comes from; a large face is shrunk beforehand, as its filter looks at four pixels only.
    shrink = max(1, int(np.hypot(a, d)))
    small = image.resize((max(1, image.width // shrink), max(1, image.height // shrink)), Image.Resampling.BOX) if shrink > 1 else image
    across, down = small.width / image.width, small.height / image.height
    matrix = (a * across, b * across, c * across, d * down, e * down, f * down)
    return small.transform((SIDE, SIDE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def landmarks(image: Image.Image, box: Box) -> np.ndarray:
    """Return left eye, right eye, nose and mouth (4, 2) in pixels of the picture; BlazeFace looks at the head alone to place them."""
    x0, y0, x1, y1 = head_of(box)
    head = image.crop((x0, y0, x1, y1)).resize((blaze.SIDE, blaze.SIDE), Image.Resampling.BILINEAR)
    net = blaze.net()
    pixels = (np.asarray(head, dtype=np.float32) - 127.5) / 127.5
    net.setInput(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
    logits, offsets = net.forward(["classificators", "regressors"])
    best = int(logits.ravel().argmax())
    # After centre and size come six points: right and left eye of the person, nose, mouth, ears; in input pixels from the anchor.
    points = blaze.anchors()[best] + offsets.reshape(-1, 16)[best, 4:12].reshape(4, 2) / blaze.SIDE
    return points * (x1 - x0) + (x0, y0)


def fit(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the turn, scale and shift (2, 3) that brings points (n, 2) nearest to their targets, by least squares."""
    x, y = points.T
    one, zero = np.ones(len(points)), np.zeros(len(points))
    system = np.concatenate([np.stack([x, -y, one, zero], axis=1), np.stack([y, x, zero, one], axis=1)])
    a, b, dx, dy = np.linalg.lstsq(system, np.concatenate([targets[:, 0], targets[:, 1]]), rcond=None)[0]
    return np.array([[a, -b, dx], [b, a, dy]])
