"""Kinds: the formats of pictures, told by how a file begins and not by its name, and what must be known of a file before it is decoded."""

from __future__ import annotations

import importlib
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEAD = 64  # so many bytes at the start of a file tell its kind


@dataclass(frozen=True)
class Kind:
    """A format: Pillow's name for it, the pattern of its first bytes, its file suffixes (the right one first), the package it needs."""

    format: str
    start: re.Pattern[bytes]
    suffixes: tuple[str, ...]
    package: str = ""  # as pip knows it; Pillow alone suffices if empty
    module: str = ""  # what to import of it
    register: str = ""  # and to call, if importing is not enough


def _starts(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


# The first row whose pattern fits wins. ISO 14496-12 files (AVIF, HEIF) say in `ftyp` what they are: a major brand, then compatible ones.
# A BMP's two letters are too few: the size of its inner header (12 to 124 bytes) follows at byte 14.
KINDS = (
    Kind("JPEG", _starts(rb"\xff\xd8\xff"), (".jpg", ".jpeg", ".jpe", ".jfif")),
    Kind("PNG", _starts(rb"\x89PNG"), (".png", ".apng")),
    Kind("WEBP", _starts(rb"RIFF.{4}WEBP"), (".webp",)),
    Kind("GIF", _starts(rb"GIF8[79]a"), (".gif",)),
    Kind("BMP", _starts(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"), (".bmp",)),
    Kind("TIFF", _starts(rb"II[*+]\0|MM\0[*+]"), (".tif", ".tiff")),
    Kind("AVIF", _starts(rb".{4}ftyp(avi[fs]|m[is]f1.{4}(.{4}){0,8}?avi[fs])"), (".avif",)),
    Kind("HEIF", _starts(rb".{4}ftyp(hei[cmsx]|hev[cmsx]|m[is]f1)"), (".heic", ".heif"), "pillow-heif", "pillow_heif", "register_heif_opener"),
    Kind("JXL", _starts(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"), (".jxl",), "pillow-jxl-plugin", "pillow_jxl"),
    Kind("JPEG2000", _starts(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), (".jp2",)),
)

# What is looked at in any folder, by name alone.
READABLE = frozenset(suffix for kind in KINDS for suffix in kind.suffixes)

# Files that may begin like a picture and are not one to learn from, and those that need not be opened to know it.
CAMERA = (".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".mef", ".mos", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".sr2", ".srw")
UNFINISHED = (".aria2", ".crdownload", ".download", ".part", ".tmp")
BESIDE = (".caption", ".csv", ".html", ".json", ".jsonl", ".md", ".mov", ".mp4", ".npz", ".safetensors", ".toml", ".txt", ".webm", ".xmp", ".zip")
NOT_SOURCES = frozenset((*CAMERA, *UNFINISHED, *BESIDE))  # a camera's negative is a TIFF around a thumbnail


def kind_of(head: bytes) -> Kind | None:
    """Return the kind of a file from its first HEAD bytes; None for what is no picture."""
    return next((kind for kind in KINDS if kind.start.match(head)), None)


def head_of(path: Path) -> bytes:
    """Read the first HEAD bytes of a file; raises OSError."""
    with path.open("rb") as file:
        return file.read(HEAD)


def is_source(path: Path) -> bool:
    """Tell whether a file is a picture whatever its name says (`a.jpg_large`, no suffix at all); a file that cannot be opened is none."""
    if path.suffix.lower() in NOT_SOURCES or not path.is_file():  # a pipe would wait for a writer
        return False
    try:
        return kind_of(head_of(path)) is not None
    except OSError:
        return False


def ready(kind: Kind) -> bool:
    """Make Pillow able to read the kind, by its package where it needs one; False if that is not installed."""
    if not kind.module:
        return True
    try:
        module = importlib.import_module(kind.module)
    except ImportError:
        return False
    if kind.register:
        getattr(module, kind.register)()
    return True


def essential_chunks(data: bytes) -> bytes:
    """Return a PNG without the chunks that say nothing of its pixels (texts, times, private ones), as viewers pass over damage in these.

    The first letter of a name is a capital in those that no reader may skip (W3C PNG 3rd edition, 5.4). Of the others the transparency,
    profile and orientation are kept where their CRC is right.
    """
    kept = (data[at:end] for name, at, end, sound in _chunks(data) if name[:1].isupper() or (sound and name in (b"tRNS", b"iCCP", b"eXIf")))
    return data[:8] + b"".join(kept)


def pixels_are_damaged(data: bytes) -> bool:
    """Tell whether a PNG's pixels fail both their checks, the CRC of each chunk and the sum that zlib keeps; Pillow looks at neither."""
    parts = [(data[at + 8 : end - 4], sound) for name, at, end, sound in _chunks(data) if name == b"IDAT"]
    if all(sound for _, sound in parts):
        return False
    unzip, rest = zlib.decompressobj(), b"".join(part for part, _ in parts)
    try:
        while rest and not unzip.eof:
            unzip.decompress(rest, 2**20)  # a piece at a time, since it may be a bomb
            rest = unzip.unconsumed_tail
    except zlib.error:
        return True
    return not unzip.eof


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int, bool]]:
    """Yield name, start, end and soundness of the whole chunks of a PNG: length, four letters, the data and a CRC (as above, 5.3)."""
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        sound = zlib.crc32(memoryview(data)[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        yield data[at + 4 : at + 8], at, end, sound
        at = end


# Aspect ratios that a JPEG XL header may name instead of a width (ISO/IEC 18181-1, SizeHeader).
JXL_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


def jxl_size(data: bytes) -> tuple[int, int]:
    """Read width and height from a JPEG XL file, whose reader decodes all of it before it tells; (0, 0) if they are not found."""
    start = 0
    if data.startswith(b"\0\0\0\x0cJXL "):  # boxes: the codestream is in jxlc, or in jxlp after a number of four bytes
        whole, parts = data.find(b"jxlc"), data.find(b"jxlp")
        start = whole + 4 if whole >= 0 else parts + 8
    if data[start : start + 2] != b"\xff\x0a":
        return 0, 0
    bits = int.from_bytes(data[start + 2 : start + 14], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

    height, ratio = side(), take(3)
    across, down = JXL_RATIOS.get(ratio, (0, 1))
    return (height * across // down if ratio else side()), height
