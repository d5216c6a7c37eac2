"""Colour: whatever numbers a decoder gives (CMYK, Lab, 16 bits, another RGB) become the 8-bit sRGB that models learn from."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import cast

import numpy as np
from PIL import Image, ImageChops, ImageCms

# Colour space of an ICC profile -> the modes that a picture may have to be read through it, the first for all that are not among them.
# A palette or 1-bit picture may have an RGB profile, and grey of 16 bits goes in as it is, since a profile may bend the dark tones.
PROFILE_MODES = {
    "RGB": ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "L", "LA", "1"),
    "GRAY": ("L", "LA", "1"),
    "CMYK": ("CMYK",),
    "Lab": ("LAB",),
}

# Modes for which LittleCMS may put a coarse table in the place of the profile. Measured: it is up to 1 level off for 8-bit RGB and grey, but 10
# for the dark tones of linear 16-bit grey and for CMYK; without it 0.5 and 1.0, at 0.22 s instead of 0.04 s a million CMYK pixels.
FAST = ("RGB", "L")


def plain_ink(image: Image.Image, notes: list[str]) -> Image.Image:
    """Make CMYK mean 255 = full ink.

    Adobe writes CMYK JPEGs inverted and says so in its APP14 marker. Pillow takes every CMYK JPEG for inverted;
    one without the marker is not, so it is turned back.
    """
    if image.mode != "CMYK":
        return image
    notes.append("cmyk_converted")
    unmarked = image.format == "JPEG" and "adobe" not in image.info
    return ImageChops.invert(image) if unmarked else image


def alpha_of(image: Image.Image) -> Image.Image | None:
    """Return the transparency of a picture (L, 255 = opaque); None if it has none."""
    if not image.has_transparency_data:
        return None
    if image.mode.startswith("I"):  # one shade of 16 bits is named as transparent
        alpha = Image.fromarray((np.asarray(image) != image.info["transparency"]).astype(np.uint8) * 255)
    else:
        alpha = image.convert("RGBA").getchannel("A")
    return None if cast("tuple[int, int]", alpha.getextrema())[0] == 255 else alpha


def to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """Convert to RGB of 8 bits, through the ICC profile if there is one that fits the picture and is not sRGB already."""
    deep = image.mode.startswith(("I", "F"))
    transform = _transform(image.mode, profile or b"") if profile or image.mode == "LAB" else None
    if deep:
        notes.append("16bit_scaled")
        image = image if transform else _eight_bits(image)
    if transform is None:
        return image.convert("RGB")
    notes.append("icc_converted")
    return cast("Image.Image", ImageCms.applyTransform(image.convert(str(transform.input_mode)), transform))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey of 16 bits (or more, or floats) to 0..255; Pillow's own conversion would clip it to white."""
    if image.mode.startswith("I;16"):
        shades = np.rint(np.arange(65536) / 257).astype(np.uint8)
        return Image.fromarray(shades[np.asarray(image)])
    values = np.array(image, dtype=np.float32)
    values[~np.isfinite(values)] = 0
    peak = values.max(initial=0)
    scales = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    full = next((scale for scale in scales if peak <= scale), peak)
    return Image.fromarray(np.clip(np.rint(values * np.float32(255 / full)), 0, 255).astype(np.uint8))


@lru_cache(maxsize=16)
def _transform(mode: str, profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """Build the transform from a profile to sRGB; None if it is broken, for other pictures, or changes nothing.

    Kept for the next picture, since those of one camera share a profile. Lab brings its own.
    """
    try:
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB") if mode == "LAB" else BytesIO(profile))
        fitting = PROFILE_MODES[source.profile.xcolor_space.strip()]
        wanted = mode if mode.startswith("I;16") and fitting[0] == "L" else fitting[0]
        if mode not in (*fitting, wanted):
            return None
        exact = ImageCms.Flags.NONE if wanted in FAST else ImageCms.Flags.NOOPTIMIZE
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), wanted, "RGB", ImageCms.Intent.PERCEPTUAL, exact)
    except (OSError, KeyError, ImageCms.PyCMSError):
        return None
    return None if wanted == "RGB" and _changes_nothing(transform) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Try a transform on a cube of 9 x 9 x 9 colours: sRGB profiles come in many wordings, all of which do nothing."""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    seen = np.asarray(ImageCms.applyTransform(Image.fromarray(cube), transform)).astype(int)
    return bool(np.abs(seen - cube).max() <= 2)
