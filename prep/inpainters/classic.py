"""The two inpainters of OpenCV, which need no model: Telea 2004 (J. Graphics Tools 9) and Bertalmio, Bertozzi, Sapiro 2001 (CVPR)."""

from __future__ import annotations

import numpy as np
from PIL import Image

RADIUS = 4  # pixels around each point from which it is filled


def telea(image: Image.Image, hole: Image.Image) -> Image.Image:
    """Fill the hole from its rim inwards; see `prep.inpainters.Inpainter`."""
    import cv2

    return _filled(image, hole, cv2.INPAINT_TELEA)


def navier_stokes(image: Image.Image, hole: Image.Image) -> Image.Image:
    """Fill the hole along lines of equal brightness; see `prep.inpainters.Inpainter`."""
    import cv2

    return _filled(image, hole, cv2.INPAINT_NS)


def _filled(image: Image.Image, hole: Image.Image, method: int) -> Image.Image:
    import cv2

    mask = (np.asarray(hole) >= 128).astype(np.uint8)
    return Image.fromarray(cv2.inpaint(np.asarray(image.convert("RGB")), mask, RADIUS, method))
