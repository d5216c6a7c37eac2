"""Views of a picture: its crop, mirroring and colours as one value, so that what is augmented can be encoded once and kept."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from train.buckets import Fit

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

    from train.config import DataConfig

# How far color_aug goes: as sd-scripts' does in hue (8 of OpenCV's 180 levels are 16 degrees) and gamma.
HUE, GAMMA = 16.0, 0.05


@dataclass(frozen=True)
class View:
    """One way to show a picture."""

    fit: Fit
    flip: bool = False
    hue: float = 0.0  # degrees that the colours are turned by
    gamma: float = 1.0

    @property
    def facts(self) -> tuple[Any, ...]:
        """List what pixels depend on beside the picture."""
        return *self.fit.resized, *self.fit.crop, self.flip, self.hue, self.gamma

    @property
    def left_top(self) -> tuple[int, int]:
        """Where the crop begins in the scaled picture, counted from the right if it is mirrored."""
        left, top, right, _ = self.fit.crop
        return self.fit.resized[0] - right if self.flip else left, top


def count_views(fit: Fit, settings: DataConfig) -> int:
    """Say how many views a picture has, mirrored ones not counted: one if neither its crop nor its colours can vary."""
    varies = settings.color_aug or (settings.random_crop and fit.slack != (0, 0))
    return settings.augment_variants if varies else 1


def view(fit: Fit, settings: DataConfig, digest: str, number: int, flip: bool = False) -> View:
    """Make one of a picture's views: always the same of the same pixels, so that another run, with another seed, finds it encoded.

    The first view keeps the colours, and without random_crop all are cropped around the centre.
    """
    rng = random.Random(f"{digest}/{number}")
    place = tuple(rng.randint(0, room) for room in fit.slack)
    hue, gamma = rng.uniform(-HUE, HUE), 1 + rng.uniform(-GAMMA, GAMMA)
    cropped = fit.at(place[0], place[1]) if settings.random_crop else fit
    return View(cropped, flip, hue, gamma) if settings.color_aug and number else View(cropped, flip)


def bucket_pixels(image: Image.Image, view: View) -> Tensor:
    """Scale, crop, recolour and perhaps mirror an RGB picture into its bucket: pixels (3, H, W) in [-1, 1]."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    fit = view.fit
    sized = image if image.size == fit.resized else image.resize(fit.resized, Image.Resampling.LANCZOS)
    sized = sized.crop(fit.crop)
    values = np.asarray(ImageOps.mirror(sized) if view.flip else sized, dtype=np.float32)
    if view.hue or view.gamma != 1:
        values = recoloured(values, view.hue, view.gamma)
    return torch.from_numpy(values / 127.5 - 1).permute(2, 0, 1).contiguous()


def bucket_mask(mask: Image.Image, view: View, scale: int) -> Tensor:
    """Bring a loss mask (L) into its picture's bucket and to the size of latents: (1, h, w), each the mean of scale x scale pixels."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    fit = view.fit
    sized = mask if mask.size == fit.resized else mask.resize(fit.resized, Image.Resampling.BOX)
    sized = sized.crop(fit.crop)
    values = np.asarray(ImageOps.mirror(sized) if view.flip else sized, dtype=np.float32) / 255
    height, width = values.shape
    return torch.from_numpy(values.reshape(height // scale, scale, width // scale, scale).mean(axis=(1, 3)))[None]


def recoloured(values: np.ndarray, hue: float, gamma: float) -> np.ndarray:
    """Turn the hue of RGB values (H, W, 3) in 0..255 and bend their brightness.

    The hue is turned around the grey axis at constant luma, by the matrix of hueRotate in the W3C's Filter Effects, section 9.6.
    """
    import numpy as np

    luma = np.array([0.213, 0.715, 0.072], dtype=np.float64)
    turn = np.array([[-0.213, -0.715, 0.928], [0.143, 0.140, -0.283], [-0.787, 0.715, 0.072]])
    angle = math.radians(hue)
    matrix = luma + math.cos(angle) * (np.eye(3) - luma) + math.sin(angle) * turn
    turned = np.clip(values @ matrix.T.astype(values.dtype), 0, 255)
    bent: np.ndarray = 255 * (turned / 255) ** values.dtype.type(gamma)
    return bent
