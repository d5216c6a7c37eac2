"""Images: the only place that decodes or encodes a picture, so that every command and the trainer see the same pixels."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageChops, ImageCms, UnidentifiedImageError

from prep.options import atomic_write

WHITE = (255, 255, 255)
MASK = ".mask.png"  # how the name of a picture's loss mask ends; a mask is no picture
MAX_PIXELS = 2 * 89_478_485  # where Pillow itself refuses: half a gigabyte of RGB
ORIENTATION = 0x0112  # the EXIF tag

# What is looked at in a folder. The last three need a Pillow plugin; without it they are set aside, not overlooked.
READABLE = frozenset((".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jxl"))

# Pillow's format name -> the suffix that its files should have.
SUFFIXES = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "AVIF": ".avif",
}

# Suffix -> how `save` encodes; PNG keeps every pixel, the others take the quality.
ENCODERS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".webp": {"format": "WEBP", "method": 4},
    ".jpg": {"format": "JPEG", "subsampling": 0},
}

# How a file begins that is a picture, even if a decoder will not open it.
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")

# EXIF orientation -> how to turn the stored pixels upright (EXIF 2.32, 4.6.4).
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Colour space of an ICC profile -> the mode that a picture must have to be read through it.
PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


class PictureError(Exception):
    """A picture that cannot be used; `reason` is one of unreadable, truncated, empty_file, too_large."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass
class Decoded:
    """A picture as RGB, upright, in sRGB; what was done to get there (snake_case); the suffix its file should have."""

    image: Image.Image
    notes: list[str] = field(default_factory=list)
    suffix: str = ""
    alpha: Image.Image | None = None  # L, 255 = opaque; None if all is


def load(path: Path, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """Decode a picture to RGB, upright, in sRGB, transparent parts on `background`; raises PictureError."""
    return decode(path, background).image


def decode(path: Path, background: tuple[int, int, int] | None = WHITE) -> Decoded:
    """Decode a picture as `load` does and say what had to be done; of an animation the first frame is taken.

    With no background the colours under transparent parts are kept as they are.
    """
    notes: list[str] = []
    with _opened(path) as image:
        suffix = SUFFIXES.get(image.format or "", "")
        if image.format != "MPO" and getattr(image, "is_animated", False):  # an MPO's other frames are previews
            notes.append("first_frame")
        image.load()
        profile = image.info.get("icc_profile")
        image = _plain_ink(image, notes)
        image = _turned(image, notes)
        image = _eight_bits(image, notes)
        alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
        if alpha is not None and alpha.getextrema()[0] == 255:
            alpha = None
        image = _to_srgb(image if alpha is None else image.convert("RGB"), profile, notes)
        if alpha is not None and background is not None:  # colours hidden under alpha stay hidden
            notes.append("alpha_composited")
            image = Image.composite(image, Image.new("RGB", image.size, background), alpha)
        image.info = {}  # Pillow would write what is left here (a profile, a comment) into the saved file
        return Decoded(image, notes, suffix, alpha)


def encode(image: Image.Image, suffix: str, quality: int = 95) -> bytes:
    """Encode a picture as its suffix (.png, .webp, .jpg) says; the same pixels give the same bytes."""
    buffer = BytesIO()
    image.save(buffer, quality=quality, **ENCODERS[suffix])
    return buffer.getvalue()


def save(image: Image.Image, path: Path, quality: int = 95) -> None:
    """Encode a picture as the path's suffix says and write it whole or not at all."""
    atomic_write(path, encode(image, path.suffix, quality))


def pixel_hash(image: Image.Image) -> str:
    """Return the sha256 (hex) of size and RGB pixels: equal for equal pictures, whatever files they lie in."""
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    digest.update(image.convert("RGB").tobytes())
    return digest.hexdigest()


def find_pictures(folder: Path) -> list[Path]:
    """List the pictures of a folder, without its sub-folders, by name; hidden and temporary files are not seen."""
    if not folder.is_dir():
        return []
    names = (path for path in folder.iterdir() if not path.name.startswith(".") and not path.name.endswith(MASK))
    found = (path for path in names if path.suffix.lower() in READABLE)
    return sorted((path for path in found if path.is_file()), key=lambda path: path.name)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture file and turn whatever a decoder raises on it, now or later, into a PictureError."""
    try:
        if path.stat().st_size == 0:
            raise PictureError("empty_file", f"{path.name} is an empty file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what is handled here: size, odd EXIF, palette bytes
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                yield image
    except PictureError:
        raise
    except (Image.DecompressionBombError, MemoryError):
        raise PictureError("too_large", f"{path.name} has more than {MAX_PIXELS // 10**6} million pixels") from None
    except UnidentifiedImageError:
        raise _not_opened(path) from None
    except Exception as error:  # a decoder raises anything on damaged data: OSError, SyntaxError, struct.error, ...
        if isinstance(error, OSError) and error.errno:
            raise PictureError("unreadable", f"{path.name} cannot be read: {error.strerror}") from None
        raise PictureError("truncated", f"{path.name} is cut off or damaged: {error}") from None


def _not_opened(path: Path) -> PictureError:
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(SIGNATURES):
        return PictureError("truncated", f"{path.name} is cut off or damaged: its header cannot be read")
    return PictureError("unreadable", f"{path.name} is no picture of a kind that can be read here")


def _turned(image: Image.Image, notes: list[str]) -> Image.Image:
    """Turn the picture upright as its EXIF (or XMP) orientation says."""
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # broken EXIF raises anything; the picture itself is sound, so it is taken as it lies
        return image
    if turn is None:
        return image
    notes.append("exif_rotated")
    return image.transpose(turn)


def _plain_ink(image: Image.Image, notes: list[str]) -> Image.Image:
    """Make CMYK mean 255 = full ink.

    Adobe writes CMYK JPEGs inverted and says so in its APP14 marker. Pillow takes every CMYK JPEG for inverted;
    one without the marker is not, so it is turned back.
    """
    if image.mode != "CMYK":
        return image
    notes.append("cmyk_converted")
    unmarked = image.format == "JPEG" and "adobe" not in image.info
    return ImageChops.invert(image) if unmarked else image


def _eight_bits(image: Image.Image, notes: list[str]) -> Image.Image:
    """Scale grey of 16 bits (or more, or floats) to 0..255; Pillow's own conversion would clip it to white."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    peak = values.max(initial=0)
    scales = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    full = next((scale for scale in scales if peak <= scale), peak)
    notes.append("16bit_scaled")
    return Image.fromarray(np.clip(np.rint(values * (255 / full)), 0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """Convert to RGB, through the ICC profile if there is one that fits the picture and is not sRGB already."""
    transform = _transform(image.mode, profile) if profile else None
    if transform is None:
        return image.convert("RGB")
    notes.append("icc_converted")
    return cast("Image.Image", ImageCms.applyTransform(image.convert(str(transform.input_mode)), transform))


def _transform(mode: str, profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """Build the transform from a profile to sRGB; None if it is broken, for other pictures, or changes nothing."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        wanted = PROFILE_MODES[source.profile.xcolor_space.strip()]
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, wanted, "RGB", ImageCms.Intent.PERCEPTUAL)
    except (OSError, KeyError, ImageCms.PyCMSError):
        return None
    if mode != wanted and (mode == "CMYK" or wanted != "RGB"):  # a 1-bit or palette picture may have an RGB profile
        return None
    return None if wanted == "RGB" and _changes_nothing(transform) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Try a transform on a cube of 9 x 9 x 9 colours: sRGB profiles come in many wordings, all of which do nothing."""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    seen = np.asarray(ImageCms.applyTransform(Image.fromarray(cube), transform)).astype(int)
    return bool(np.abs(seen - cube).max() <= 2)
