"""Plain: whether a picture file can go into a tree byte for byte, because every trainer reads from it the very pixels that we read."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image

PNG_START = b"\x89PNG\r\n\x1a\n"
# Chunks that change no pixel: anything else (a palette, transparency, a profile, Exif, more frames) may, so the picture is written anew.
PNG_CHUNKS = frozenset({b"IHDR", b"IDAT", b"IEND", b"sRGB", b"pHYs", b"tEXt", b"zTXt", b"tIME"})
RGB8 = bytes([8, 2])  # bit depth and colour type in IHDR
TELLING = ("icc_profile", "exif", "xmp", "transparency", "adobe")  # entries of Pillow's info that may change pixels


def is_plain(path: str | Path) -> bool:
    """Tell whether a file is whole, RGB of 8 bits, upright, in sRGB, one frame, opaque, and named as what it is.

    PNG is checked chunk by chunk with its checksums; JPEG and WebP by their headers and their ends, as decoding them would take too long.
    """
    path = Path(path)
    check = CHECKS.get(path.suffix.lower())
    return check is not None and check(path.read_bytes())


def _png(data: bytes) -> bool:
    if not data.startswith(PNG_START) or data[24:26] != RGB8:
        return False
    place, kind = len(PNG_START), b""
    while kind != b"IEND":
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        end = place + 8 + length
        if kind not in PNG_CHUNKS or end + 4 > len(data):
            return False
        if zlib.crc32(memoryview(data)[place + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return False
        place = end + 4
    return True


def _jpeg(data: bytes) -> bool:
    return data.endswith(b"\xff\xd9") and _header_is_plain(data, "JPEG")


def _webp(data: bytes) -> bool:
    return int.from_bytes(data[4:8], "little") + 8 == len(data) and _header_is_plain(data, "WEBP")


def _header_is_plain(data: bytes, kind: str) -> bool:
    try:
        with Image.open(BytesIO(data), formats=[kind]) as image:
            frames = getattr(image, "n_frames", 1)
            return image.format == kind and image.mode == "RGB" and frames == 1 and not any(name in image.info for name in TELLING)
    except Exception:  # a decoder raises anything on damaged data
        return False


CHECKS: dict[str, Callable[[bytes], bool]] = {".png": _png, ".jpg": _jpeg, ".webp": _webp}
