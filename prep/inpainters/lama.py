"""Inpainting networks in ONNX with the contract of LaMa (Suvorov et al. 2022, arXiv:2109.07161).

Two inputs, told apart by their channels: the picture float32 (1, 3, height, width), RGB in 0..1, and the hole (1, 1, height, width), 1 =
fill; one output, the picture, in 0..1 or, as the export Carve/LaMa-ONNX gives it, in 0..255. A fixed size is met by resizing.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prep.options import UserError, load_object

OPEN = "prep.taggers.sessions:open_session"
AROUND = 1.0  # of the hole's longer side: how much of the picture the network sees on each side of it
SIDE = 512  # of the part that a network of free size sees, and the least that any sees
BYTES = 2.0  # an output whose highest value is above this is in 0..255


class Lama:
    """One model file; see `prep.inpainters.Inpainter`."""

    def __init__(self, model: Path, device: str = "auto") -> None:
        self.model, self.device = model, device

    @cached_property
    def session(self) -> Any:
        """The loaded model; raises UserError if it does not take a picture and a mask."""
        session = load_object(OPEN)(self.model, self.device)
        shapes = [value.shape for value in session.get_inputs()]
        if sorted(shape[1] for shape in shapes if len(shape) == 4) != [1, 3]:
            raise UserError(f"{self.model} takes inputs of shape {shapes}, not a picture and a mask; it is no inpainter as LaMa is")
        return session

    def __call__(self, image: Image.Image, hole: Image.Image) -> Image.Image:
        """Fill the hole; pixels outside of it are kept as they are. The network sees the hole and what is around it."""
        hole = hole.point(lambda value: 255 if value >= 128 else 0)
        box = hole.getbbox()
        if box is None:
            return image.convert("RGB")
        window = _window(box, image.size)
        part, gap = image.convert("RGB").crop(window), hole.crop(window)
        filled = self._fill(part, gap).resize(part.size, Image.Resampling.BICUBIC)
        result = image.convert("RGB")
        result.paste(filled, window[:2], gap)
        return result

    def _fill(self, part: Image.Image, gap: Image.Image) -> Image.Image:
        """Run the network on a part of a picture, at its own size or the model's."""
        inputs = {value.shape[1]: value for value in self.session.get_inputs()}
        height, width = (side if isinstance(side, int) else SIDE for side in inputs[3].shape[2:])
        pixels = np.asarray(part.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32) / 255
        # A pixel of the hole that is lost in shrinking would be taken for a part of the picture.
        mask = (np.asarray(gap.resize((width, height), Image.Resampling.BILINEAR)) > 0).astype(np.float32)
        feed = {inputs[3].name: np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), inputs[1].name: mask[None, None]}
        output = self.session.run(None, feed)[0][0]
        scale = 1.0 if output.max() > BYTES else 255.0
        return Image.fromarray(np.clip(np.rint(output.transpose(1, 2, 0) * scale), 0, 255).astype(np.uint8))


def _window(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the square around a box that shows enough of what is around it, moved into the picture, cut where that is smaller."""
    longer = max(box[2] - box[0], box[3] - box[1])
    side = max(SIDE, round(longer * (1 + 2 * AROUND)))
    corners = []
    for start, end, length in ((box[0], box[2], size[0]), (box[1], box[3], size[1])):
        span = min(side, length)
        low = min(max((start + end - span) // 2, 0), length - span)
        corners.append((low, low + span))
    (x0, x1), (y0, y1) = corners
    return x0, y0, x1, y1
