"""Images: the only place that decodes or encodes a picture, so that every command and the trainer see the same pixels."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from prep.colour import alpha_of, plain_ink, to_srgb
from prep.kinds import KINDS, READABLE, Kind, essential_chunks, head_of, is_source, jxl_size, kind_of, pixels_are_damaged, ready
from prep.options import atomic_write

WHITE = (255, 255, 255)
MASK = ".mask.png"  # how the name of a picture's loss mask ends; a mask is no picture
MAX_PIXELS = 2 * 89_478_485  # where Pillow itself refuses: half a gigabyte of RGB
ORIENTATION = 0x0112  # the EXIF tag
SUBFILE = 0x00FE  # the TIFF tag that tells a page from a thumbnail (bit 0) and a mask (bit 2)

# Pillow's format name -> the suffix that its files should have.
SUFFIXES = {kind.format: kind.suffixes[0] for kind in KINDS} | {"MPO": ".jpg"}
ONE_PICTURE = ("MPO", "HEIF")  # what else lies in such a file are previews and depth maps, no animation

# Two frames whose copies of 32 x 32 pixels differ by less than this many levels of 255, on average, are taken for the same.
# Measured on a drawn figure before four backgrounds: the same scene with other noise, as GIF, or as WebP or JPEG of quality 30 differs by
# 0.8 to 3.5, a blink by 1.0, a step aside of 5 % of the width by 7.7 and more.
STILL = 5.0

# Suffix -> how `save` encodes; PNG keeps every pixel, the others take the quality. And the longest side that the format can hold.
ENCODERS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".webp": {"format": "WEBP", "method": 4},
    ".jpg": {"format": "JPEG", "subsampling": 0},
}
LONGEST = {".png": 2**31 - 1, ".webp": 16383, ".jpg": 65500}

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


class PictureError(Exception):
    """A picture that cannot be used; `reason` is one of unreadable, truncated, empty_file, too_large, needs_package."""

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
    frame: int = 1  # which one of an animation's, counted from 1


def load(path: Path, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """Decode a picture to RGB, upright, in sRGB, transparent parts on `background`; raises PictureError."""
    return decode(path, background).image


def decode(path: Path, background: tuple[int, int, int] | None = WHITE) -> Decoded:
    """Decode a picture as `load` does and say what had to be done; of an animation the first frame is taken.

    With no background the colours under transparent parts are kept as they are.
    """
    with _opened(path) as image:
        return _decoded(image, background)


def frames(path: Path, count: int, background: tuple[int, int, int] = WHITE) -> Iterator[Decoded]:
    """Yield at most `count` frames spread evenly over an animation, the first among them, without those that look like the one before."""
    seen: np.ndarray | None = None
    with _opened(path) as image:
        for number in _spread(image, count):
            image.seek(number - 1)
            decoded = _decoded(image, background)
            decoded.frame = number
            small = np.asarray(decoded.image.resize((32, 32), Image.Resampling.BOX), dtype=np.float32)
            if seen is None or np.abs(small - seen).mean() >= STILL:
                seen = small
                yield decoded


def frame_numbers(path: Path, count: int) -> list[int]:
    """Say which frames, counted from 1, `frames` looks at: [1] for a still picture and for a file that cannot be read."""
    if count == 1:
        return [1]
    try:
        with _opened(path) as image:
            return _spread(image, count)
    except PictureError:
        return [1]


def encode(image: Image.Image, suffix: str, quality: int = 95, texts: Mapping[str, str] | None = None) -> bytes:
    """Encode a picture as its suffix (.png, .webp, .jpg) says; the same pixels give the same bytes. Raises PictureError if it does not fit.

    `texts` are the text chunks of a PNG, by their keyword.
    """
    if max(image.size) > LONGEST[suffix]:
        size = f"{image.width} x {image.height}"
        raise PictureError("too_large", f"a picture of {size} is too large for {suffix}, whose sides end at {LONGEST[suffix]}; choose png")
    buffer, chunks = BytesIO(), PngInfo()
    for keyword, text in (texts or {}).items():
        chunks.add_itxt(keyword, text)
    image.save(buffer, quality=quality, pnginfo=chunks, **ENCODERS[suffix])
    return buffer.getvalue()


def save(image: Image.Image, path: Path, quality: int = 95, texts: Mapping[str, str] | None = None) -> None:
    """Encode a picture as the path's suffix says and write it whole or not at all."""
    atomic_write(path, encode(image, path.suffix, quality, texts))


def pixel_hash(image: Image.Image) -> str:
    """Return the sha256 (hex) of size and RGB pixels: equal for equal pictures, whatever files they lie in."""
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    image = image if image.mode == "RGB" else image.convert("RGB")
    for y in range(0, image.height, 64):  # in bands, which stay in the processor's cache
        digest.update(image.crop((0, y, image.width, min(y + 64, image.height))).tobytes())
    return digest.hexdigest()


def find_pictures(folder: Path, by_content: bool = False) -> list[Path]:
    """List the pictures of a folder, without its sub-folders, by name; hidden and temporary files are not seen.

    With `by_content` a file is also one if it begins like one, whatever it is called: `a.jpg_large` and `a` from a download, say.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:  # measured: 20,000 names in a fifth of the time that paths asked one by one take
        seen = [entry for entry in entries if _is_seen(entry)]
        names = {entry.name for entry in seen if _is_picture(entry)}
    if by_content:
        names.update(entry.name for entry in seen if entry.name not in names and is_source(folder / entry.name))
    return [folder / name for name in sorted(names)]


def has_pictures(folder: Path) -> bool:
    """Tell whether find_pictures would list any; of a large folder only the first names are read."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(_is_seen(entry) and _is_picture(entry) for entry in entries)


def _is_seen(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and not entry.name.endswith(MASK)


def _is_picture(entry: os.DirEntry[str]) -> bool:
    return os.path.splitext(entry.name)[1].lower() in READABLE and _is_file(entry)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads back to itself
        return False


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture file and turn whatever a decoder raises on it, now or later, into a PictureError."""
    try:
        kind = _kind(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what is handled here: size, odd EXIF, palette bytes
            with _open(path, kind) as image:
                yield image
    except PictureError:
        raise
    except (Image.DecompressionBombError, MemoryError):
        raise PictureError("too_large", f"{path.name} has more than {MAX_PIXELS // 10**6} million pixels") from None
    except UnidentifiedImageError:
        raise PictureError("truncated", f"{path.name} is cut off or damaged: its header cannot be read") from None
    except Exception as error:  # a decoder raises anything on damaged data: OSError, SyntaxError, struct.error, ...
        if isinstance(error, OSError) and error.errno:
            raise PictureError("unreadable", f"{path.name} cannot be read: {error.strerror}") from None
        raise PictureError("truncated", f"{path.name} is cut off or damaged: {' '.join(str(error).split())}") from None


def _kind(path: Path) -> Kind:
    """Say by its first bytes what kind of picture a file is; raises PictureError if it is none, or none that can be read here."""
    if path.stat().st_size == 0:
        raise PictureError("empty_file", f"{path.name} is an empty file")
    kind = kind_of(head_of(path))
    if kind is None:
        raise PictureError("unreadable", f"{path.name} is no picture of a kind that can be read here")
    if not ready(kind):
        raise PictureError("needs_package", f"{path.name} is {kind.format}, for which a package is missing; run `pip install {kind.package}`")
    return kind


def _open(path: Path, kind: Kind) -> Image.Image:
    """Open a file with the one decoder that its first bytes ask for; a PNG whose texts are damaged is read without them."""
    if kind.format == "JXL":  # its reader decodes at once, so the size is looked up first
        with path.open("rb") as file:
            _check_size(jxl_size(file.read(2**16)))
    try:
        image = Image.open(path, formats=[kind.format])
        _check_size(image.size)
        if kind.format == "PNG":
            _load_png(image, path)
    except (PictureError, Image.DecompressionBombError):
        raise
    except Exception:  # Pillow raises nearly anything on damaged texts; what is not theirs comes again below
        if kind.format != "PNG":
            raise
        image = Image.open(BytesIO(essential_chunks(path.read_bytes())), formats=["PNG"])
    return image


def _load_png(image: Any, path: Path) -> None:
    """Load a PNG here, since what lies behind its pixels is read only now; of a clear colour of 16 bits take the 8 that the pixels have."""
    if pixels_are_damaged(path.read_bytes()):
        raise PictureError("truncated", f"{path.name} is cut off or damaged: its pixels are not all as they were saved")
    deep, clear = str(image.tile[0].args).endswith(";16B"), image.info.get("transparency")
    if deep and isinstance(clear, tuple):
        image.info["transparency"] = tuple(sample >> 8 for sample in clear)
    image.load()


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise Image.DecompressionBombError


def _spread(image: Image.Image, count: int) -> list[int]:
    """Return the numbers, from 1, of `count` frames spread evenly over those that an opened picture has."""
    total = getattr(image, "n_frames", 1) if _is_animated(image) and count > 1 else 1
    pages = list(range(1, total + 1))
    if image.format == "TIFF" and total > 1:
        pages = [page for page in pages if not _aside(image, page)] or [1]
    return sorted({pages[index * len(pages) // count] for index in range(count)})


def _aside(image: Any, page: int) -> bool:
    """Tell whether a page of a TIFF is the thumbnail or the mask of another."""
    image.seek(page - 1)
    return page > 1 and bool(int(image.tag_v2.get(SUBFILE, 0)) & 0b101)


def _is_animated(image: Image.Image) -> bool:
    return image.format not in ONE_PICTURE and bool(getattr(image, "is_animated", False))


def _decoded(image: Image.Image, background: tuple[int, int, int] | None) -> Decoded:
    """Decode the frame at which an opened picture stands."""
    _check_size(image.size)
    notes = ["first_frame"] if _is_animated(image) and image.tell() == 0 else []
    suffix, turn = SUFFIXES.get(image.format or "", ""), _turn(image)
    turned = image.format == "TIFF"  # Pillow turns these itself as it loads them
    image.load()
    profile = image.info.get("icc_profile")
    image = plain_ink(image, notes)
    if turn is not None:
        notes.append("exif_rotated")
        image = image if turned else image.transpose(turn)
    alpha = alpha_of(image)
    image = to_srgb(image, profile, notes)
    if alpha is not None and background is not None:  # colours hidden under alpha stay hidden
        notes.append("alpha_composited")
        image = Image.composite(image, Image.new("RGB", image.size, background), alpha)
    image.info = {}  # Pillow would write what is left here (a profile, a comment) into the saved file
    return Decoded(image, notes, suffix, alpha)


def _turn(image: Any) -> Image.Transpose | None:
    """Say how to turn the picture upright, as its EXIF (or XMP) orientation says."""
    if image.format == "JXL" and not image.jpeg:  # the reader has turned it; Exif has no say (ISO/IEC 18181-2)
        return None
    try:
        exif = image.tag_v2 if image.format == "TIFF" else image.getexif()
        return TURNS.get(exif.get(ORIENTATION, 1))
    except Exception:  # broken EXIF raises anything; the picture itself is sound, so it is taken as it lies
        return None
