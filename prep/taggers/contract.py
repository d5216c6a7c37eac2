"""Contract: how a picture becomes a model's input, as one record per model, because every peer that gets this wrong gets other tags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

Colour = tuple[int, int, int]
Triple = tuple[float, float, float]

WHITE: Colour = (255, 255, 255)
BICUBIC, BILINEAR, LANCZOS = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS
# A picture that is taller than wide is resized in bands of so many rows, else a long strip would need memory for its whole square.
# Measured on 3000 x 4000: 107 ms in bands of 512 rows, 97 to 100 of 128, 94 to 101 of 64, 99 to 103 of 32.
BAND = 128


@dataclass(frozen=True)
class Contract:
    """What a model takes and gives; the default is that of the WD taggers.

    The input is (pixel * scale - mean) / std, channel by channel in the model's order, as float32 of `layout`.
    """

    layout: str = "NHWC"  # or NCHW
    channels: str = "BGR"  # or RGB
    scale: float = 1.0
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    shape: str = "pad"  # a row of SHAPES
    colour: Colour = WHITE  # of what is added at the sides, RGB
    filter: Image.Resampling = BICUBIC
    size: int = 0  # pixels a side, for a model whose input does not say it
    outputs: tuple[str | int, ...] = (0,)  # name or place of the scores; of several the first that the model has
    logits: bool = False  # scores come without the sigmoid; an output named "logits" always does
    version: int = 1  # counts up when the same picture gives other pixels, so that kept scores are not mixed

    def pixels(self, image: Image.Image, size: int) -> np.ndarray:
        """Return an RGB picture as uint8 (size, size, 3) in the model's order of channels."""
        seen = np.asarray(SHAPES[self.shape](image, size, self))
        return np.ascontiguousarray(seen[:, :, ::-1] if self.channels == "BGR" else seen)

    def tensor(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8 (N, size, size, 3), as `pixels` gives it, into the model's float32 input."""
        values = pixels.astype(np.float32)
        factor, shift = self.affine
        if (factor != 1).any() or (shift != 0).any():
            values = values * factor + shift
        return values if self.layout == "NHWC" else np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    @property
    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """The input as pixel * factor + shift, each float32 (3,)."""
        std = np.array(self.std)
        return (self.scale / std).astype(np.float32), (-np.array(self.mean) / std).astype(np.float32)

    def side(self, shape: Any) -> int:
        """Return the side in pixels that an input of this shape takes, or 0 if it does not fit the contract."""
        if len(shape) != 4 or shape[3 if self.layout == "NHWC" else 1] != 3:
            return 0
        high, wide = shape[1:3] if self.layout == "NHWC" else shape[2:]
        if isinstance(high, int) and isinstance(wide, int):
            return high if high == wide else 0
        return self.size


def padded(image: Image.Image, size: int, contract: Contract) -> Image.Image:
    """Centre a picture on a square of its longer side and resize that; a picture of the model's size stays as it is.

    Works across, then down, as PIL itself does, so the pixels are those of padding and resizing at once.
    """
    width, height = image.size
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    strip = Image.new("RGB", (size, side), contract.colour)
    if width == side:
        # Measured on 4000 x 3000: 65 ms against 89 ms in bands, which copy every pixel twice.
        strip.paste(image.resize((size, height), contract.filter), (0, top))
    else:
        for y in range(0, height, BAND):
            band = Image.new("RGB", (side, min(BAND, height - y)), contract.colour)
            band.paste(image.crop((0, y, width, y + band.height)), (left, 0))
            strip.paste(band.resize((size, band.height), contract.filter), (0, y))
    return strip.resize((size, size), contract.filter)


def fitted(image: Image.Image, size: int, contract: Contract, whole: Callable[[float], int] = round) -> Image.Image:
    """Resize a picture until its longer side fits, then centre it on a square; `whole` makes pixels of the shorter side."""
    scale = size / max(image.size)
    width, height = (size if side == max(image.size) else max(1, whole(side * scale)) for side in image.size)
    square = Image.new("RGB", (size, size), contract.colour)
    square.paste(image.resize((width, height), contract.filter), ((size - width) // 2, (size - height) // 2))
    return square


def stretched(image: Image.Image, size: int, contract: Contract) -> Image.Image:
    """Resize a picture to a square, whatever its shape."""
    return image.resize((size, size), contract.filter)


SHAPES: dict[str, Callable[[Image.Image, int, Contract], Image.Image]] = {
    "pad": padded,
    "fit": fitted,
    "fit_down": partial(fitted, whole=int),
    "stretch": stretched,
}

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

# WD v1.4 and v3: author's space, prep.md 2.1.
WD = Contract()
# deepghs' export with its preprocess.json: the picture is stretched, "prediction" has the sigmoid, older exports call it "output".
PIXAI = Contract("NCHW", "RGB", 1 / 255, HALF, HALF, shape="stretch", filter=BILINEAR, size=448, outputs=("prediction", "output", "logits"))
# cella110n's space: the geometry and BGR of WD, logits out.
CL = Contract("NCHW", "BGR", 1 / 255, HALF, HALF, size=448, logits=True)
# The example beside the weights: fitted by Lanczos, padded with ImageNet's mean; the second output is the refined one.
CAMIE = Contract(
    "NCHW", "RGB", 1 / 255, IMAGENET_MEAN, IMAGENET_STD, shape="fit", colour=(124, 116, 104), filter=LANCZOS, size=512,
    outputs=("refined_predictions", "refined_logits", 1, 0), logits=True,
)  # fmt: skip
JOYTAG = Contract("NCHW", "RGB", 1 / 255, CLIP_MEAN, CLIP_STD, size=448, logits=True)
# imgutils: fitted, sides cut to whole pixels, black at the sides (hence its false "letterboxed").
DEEPDANBOORU = Contract("NHWC", "RGB", 1 / 255, shape="fit_down", colour=(0, 0, 0), size=512)
