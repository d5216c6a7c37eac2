"""Kinds: a file's first bytes tell what it is, and damage is told from what does not matter."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prep.kinds import HEAD, KINDS, essential_chunks, jxl_size, kind_of, pixels_are_damaged
from tests.torture_bytes import chunk, png, saved


@pytest.mark.parametrize("format", [kind.format for kind in KINDS if not kind.package])
def test_a_kind_is_told_by_the_first_bytes(format: str) -> None:
    kind = kind_of(saved(np.zeros((8, 8, 3), np.uint8), format)[:HEAD])
    assert kind is not None and kind.format == format


@pytest.mark.parametrize(
    ("head", "format"),
    [
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf", "HEIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x18ftypavis\0\0\0\0", "AVIF"),
        (b"\xff\x0a\xfa\x1f", "JXL"),
        (b"II+\0\x08\0\0\0", "TIFF"),
    ],
)
def test_kinds_that_pillow_does_not_write(head: bytes, format: str) -> None:
    kind = kind_of(head)
    assert kind is not None and kind.format == format


@pytest.mark.parametrize("head", [b"", b"BMW makes cars, and so on", b"RIFF\0\0\0\0WAVEfmt ", b"\0\0\0\x18ftypisom", b"GIF8", b"%PDF", b"<svg"])
def test_what_is_no_picture(head: bytes) -> None:
    assert kind_of(head) is None


def header(width: int, height: int) -> bytes:
    """Write the size as JPEG XL does, in the long form (ISO/IEC 18181-1, SizeHeader)."""
    bits, at = 0, 1  # the first bit says long
    for side, ratio in ((height, True), (width, False)):
        choice = next(index for index, length in enumerate((9, 13, 18, 30)) if side <= 1 << length)
        for value, length in ((choice, 2), (side - 1, (9, 13, 18, 30)[choice]), (0, 3 if ratio else 0)):
            bits, at = bits | value << at, at + length
    return b"\xff\x0a" + bits.to_bytes(12, "little")


@given(width=st.integers(1, 2**30), height=st.integers(1, 2**30), boxed=st.booleans())
def test_the_size_of_a_jpeg_xl_is_known_before_it_is_decoded(width: int, height: int, boxed: bool) -> None:
    data = header(width, height)
    boxes = b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x14ftypjxl \0\0\0\0jxl " + b"\0\0\0\x20jxlc"
    assert jxl_size(boxes + data if boxed else data) == (width, height)


@pytest.mark.parametrize("size", [(8, 8), (64, 48), (256, 256), (1920, 1080), (333, 777), (1000, 1), (1, 1)])
def test_the_size_of_a_real_jpeg_xl(size: tuple[int, int]) -> None:
    pytest.importorskip("pillow_jxl")
    for boxed in (True, False):
        assert jxl_size(saved(Image.new("RGB", size), "JXL", use_container=boxed, effort=1)) == size


@given(st.binary(max_size=100))
def test_no_bytes_break_the_look_at_them(data: bytes) -> None:
    kind_of(data)
    jxl_size(b"\xff\x0a" + data)
    whole = b"\x89PNG\r\n\x1a\n" + data
    assert essential_chunks(whole)[:8] == whole[:8]
    assert pixels_are_damaged(whole) in (True, False)


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_changed_byte_among_the_pixels_is_noticed(at: int, flip: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    whole = png(pixels, 2)
    assert not pixels_are_damaged(whole)
    start = whole.index(b"IDAT") + 4
    length = int.from_bytes(whole[start - 8 : start - 4], "big")
    place = start + at % length
    changed = whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :]
    assert pixels_are_damaged(changed)


def test_a_wrong_crc_over_right_pixels_does_not_matter() -> None:
    rows = zlib.compress(bytes(4))
    whole = b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", rows[:5]) + chunk(b"IDAT", rows[5:], sound=False)
    assert not pixels_are_damaged(whole)
    assert pixels_are_damaged(whole[:-6])


def test_what_says_nothing_of_the_pixels_is_left_out() -> None:
    pixels = np.full((4, 4, 3), 9, np.uint8)
    texts = chunk(b"tEXt", b"a\0b", sound=False) + chunk(b"iCCP", b"x\0\0", sound=False) + chunk(b"tRNS", b"\0\x09" * 3)
    kept = essential_chunks(png(pixels, 2, texts))
    assert b"tEXt" not in kept and b"iCCP" not in kept and b"tRNS" in kept
    assert Image.open(io.BytesIO(kept)).convert("RGBA").getpixel((0, 0)) == (9, 9, 9, 0)
