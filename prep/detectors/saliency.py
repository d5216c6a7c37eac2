"""Saliency by U2-Net p (Qin et al. 2020, arXiv:2005.09007): which pixels belong to what stands out, to find it or to cut it out.

Contract: input float32 (1, 3, 320, 320), RGB over the picture's brightest value, ImageNet mean and deviation; the first output, spread
to 0..1, is the share of the subject in each pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from prep.item import Box
from prep.options import UserError, load_object

if TYPE_CHECKING:
    from prep.detectors import DetectorRow

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
OPEN = "prep.taggers.sessions:open_session"
# Measured, the model's highest raw output: 10 photographs and drawings with a subject 0.999 and more; grass, gravel, stars, flat colours
# 0.00-0.27, the moon's surface 0.78, a brick wall 0.97. Spreading those to 0..1 would cut out nonsense.
STANDS_OUT = 0.98
INSIDE = 128  # of 255, from where a pixel counts as the subject's
CRUMB = 0.1  # a patch smaller than this share of the largest one is no part of the subject's box


class Saliency:
    """One model file; see `prep.detectors.Detector`. `cutout` gives the mask itself."""

    def __init__(self, model: Path, row: DetectorRow, device: str = "auto") -> None:
        self.model, self.row, self.device = model, row, device

    @cached_property
    def session(self) -> Any:
        """The loaded model; raises UserError if it takes no picture of a fixed size."""
        session = load_object(OPEN)(self.model, self.device)
        shape = session.get_inputs()[0].shape
        if len(shape) != 4 or shape[1] != 3 or not isinstance(shape[2], int) or not isinstance(shape[3], int):
            raise UserError(f"{self.model} takes input of shape {shape}, not (1, 3, side, side); it is no saliency model")
        return session

    def __call__(self, images: Sequence[Image.Image]) -> list[list[Box]]:
        return [self._box(image) for image in images]

    def cutout(self, image: Image.Image) -> Image.Image:
        """Return the subject's share in each pixel as L of the picture's size, 255 = all; black if nothing stands out."""
        height, width = self.session.get_inputs()[0].shape[2:]
        pixels = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS), dtype=np.float32)
        pixels = (pixels / max(pixels.max(), 1) - MEAN) / DEVIATION
        outputs = self.session.run(
            [self.session.get_outputs()[0].name],
            {self.session.get_inputs()[0].name: np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)},
        )
        share = outputs[0].reshape(outputs[0].shape[-2:])
        low, high = float(share.min()), float(share.max())
        if high < STANDS_OUT:
            return Image.new("L", image.size, 0)
        share = (share - low) / (high - low)
        return Image.fromarray(np.rint(share * 255).astype(np.uint8)).resize(image.size, Image.Resampling.BICUBIC)

    def _box(self, image: Image.Image) -> list[Box]:
        """Return the box of the subject's large patches; its score is their mean share."""
        import cv2

        mask = np.asarray(self.cutout(image))
        count, labels, stats, _ = cv2.connectedComponentsWithStats((mask >= INSIDE).astype(np.uint8))
        areas = stats[1:, cv2.CC_STAT_AREA]
        if count < 2:
            return []
        large = [index + 1 for index, area in enumerate(areas) if area >= CRUMB * areas.max()]
        x0, y0 = (int(stats[large, column].min()) for column in (cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP))
        x1 = int((stats[large, cv2.CC_STAT_LEFT] + stats[large, cv2.CC_STAT_WIDTH]).max())
        y1 = int((stats[large, cv2.CC_STAT_TOP] + stats[large, cv2.CC_STAT_HEIGHT]).max())
        score = float(mask[np.isin(labels, large)].mean()) / 255
        return [Box(self.row.label or "subject", round(score, 4), x0, y0, x1, y1)]
