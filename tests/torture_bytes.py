"""Bytes of picture files that Pillow does not write: 16-bit PNG and TIFF, ICC profiles, JPEGs with other markers, damaged chunks."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

# sRGB's primaries as XYZ under D50 (IEC 61966-2-1 and ICC.1:2010, Bradford adapted), one row each for red, green and blue.
PRIMARIES = np.array([[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]])
D50 = np.array([0.9642, 1.0, 0.8249])


def saved(pixels: np.ndarray | Image.Image, format: str, mode: str | None = None, **options: Any) -> bytes:
    """Encode pixels with Pillow."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.ascontiguousarray(pixels))
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    data = Image.Exif()
    data[0x0112] = orientation
    return data.tobytes()


def chunk(name: bytes, data: bytes, sound: bool = True) -> bytes:
    """Make a PNG chunk, with a wrong CRC if it is not to be sound."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) ^ (not sound))


def png(pixels: np.ndarray, colour: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """Write a PNG of 8 or 16 bits (by dtype) by hand; colour type 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA; chunks around the pixels."""
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], pixels.itemsize * 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows)) + after + chunk(b"IEND", b"")


def tiff(pixels: np.ndarray, order: str = "<", extra: Mapping[int, int] | None = None) -> bytes:
    """Write a TIFF of unsigned numbers, (height, width, samples), by hand; order "<" or ">"; `extra` short tags."""
    height, width, samples = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    bits = pixels.itemsize * 8
    values = {256: width, 257: height, 258: bits, 259: 1, 262: 2 if samples > 2 else 1, 273: 0, 277: samples, 278: height, 279: len(data)}
    values |= dict(extra or {})
    at = 8 + 2 + 12 * len(values) + 4
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(values))
    for tag, value in sorted(values.items()):
        long = tag in (273, 279)
        count, value = (samples, at) if tag == 258 and samples > 1 else (1, at + 2 * samples if tag == 273 else value)
        out += struct.pack(f"{order}HHI", tag, 4 if long else 3, count)
        out += struct.pack(f"{order}I", value) if long or count > 1 else struct.pack(f"{order}HH", value, 0)
    return out + struct.pack(f"{order}I", 0) + struct.pack(f"{order}{samples}H", *[bits] * samples) + data


def without_marker(jpeg: bytes, marker: bytes) -> bytes:
    """Take a segment out of a JPEG."""
    at = jpeg.index(marker)
    return jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]


def with_segment(jpeg: bytes, marker: bytes, data: bytes) -> bytes:
    """Put a segment into a JPEG, behind its first two bytes."""
    return jpeg[:2] + marker + (len(data) + 2).to_bytes(2, "big") + data + jpeg[2:]


def ycck(cmyk: np.ndarray) -> bytes:
    """Write a CMYK JPEG as Photoshop does: inverted, CMY turned to YCbCr, and APP14 saying so (transform 2)."""
    inks = np.asarray(Image.fromarray(np.ascontiguousarray(cmyk[..., :3])).convert("YCbCr"))
    stored = Image.frombytes("CMYK", cmyk.shape[1::-1], np.concatenate([255 - inks, cmyk[..., 3:]], axis=-1).tobytes())
    data = bytearray(saved(stored, "JPEG", quality=100, subsampling=0))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def profile(space: bytes, tags: Mapping[bytes, bytes], connection: bytes = b"XYZ ") -> bytes:
    """Write an ICC profile of version 2 (ICC.1:2001-04): header, table, tags."""
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"none", 0x02400000, kind, space, connection) + bytes(12) + b"acsp" + bytes(28)
    head += _fixed(D50)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body


def rgb_profile(primaries: np.ndarray = PRIMARIES, gamma: float | None = None) -> bytes:
    """Make a matrix profile: three primaries and one curve, linear if there is no gamma."""
    tags = {name + b"XYZ": b"XYZ \0\0\0\0" + _fixed(row) for name, row in zip((b"r", b"g", b"b"), primaries, strict=True)}
    return profile(b"RGB ", tags | {name + b"TRC": _curve(gamma) for name in (b"r", b"g", b"b")})


def grey_profile(gamma: float) -> bytes:
    return profile(b"GRAY", {b"wtpt": b"XYZ \0\0\0\0" + _fixed(D50), b"kTRC": _curve(gamma)})


def cmyk_profile() -> bytes:
    """Make a table profile of six steps an ink, exact at multiples of 51, whose colours are those of `printed`."""
    nodes = np.array(list(itertools.product(np.arange(6) * 51, repeat=4)))
    lab = _lab(printed(nodes))
    codes = np.rint(np.stack([lab[:, 0] * 652.8, (lab[:, 1] + 128) * 256, (lab[:, 2] + 128) * 256], axis=-1)).astype(">u2")
    ends = struct.pack(">HH", 0, 65535)
    table = b"mft2\0\0\0\0" + bytes((4, 3, 6, 0)) + _fixed(np.eye(3).ravel()) + struct.pack(">HH", 2, 2) + ends * 4 + codes.tobytes() + ends * 3
    return profile(b"CMYK", {b"A2B0": table}, b"Lab ")


def printed(cmyk: np.ndarray) -> np.ndarray:
    """Say as which sRGB colour inks appear under `cmyk_profile`: darker and warmer than plain arithmetic."""
    light = 1 - cmyk / 255
    return 255 * light[..., :3] ** np.array([0.8, 1.2, 1.6]) * light[..., 3:] ** 0.7


def linear_to_srgb(light: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1, 0..1 to 0..255."""
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def _lab(srgb: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b* under D50 of sRGB colours 0..255, (n, 3)."""
    x = srgb / 255
    light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    t = light @ PRIMARIES / D50
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=-1)


def _fixed(numbers: np.ndarray) -> bytes:
    return np.rint(np.asarray(numbers) * 65536).astype(">i4").tobytes()


def _curve(gamma: float | None) -> bytes:
    return b"curv\0\0\0\0" + (struct.pack(">I", 0) if gamma is None else struct.pack(">IH", 1, round(gamma * 256)))
