"""Plain: a file goes into the tree as it is only if it is whole and every trainer reads the same pixels from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from prep.images import decode, save
from prep.plain import is_plain

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_what_we_write_is_plain(tmp_path: Path, suffix: str) -> None:
    save(RGB, tmp_path / f"a{suffix}")
    assert is_plain(tmp_path / f"a{suffix}")


def test_prompts_of_other_tools_do_no_harm(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("parameters", "a cat")
    RGB.save(tmp_path / "a.png", pnginfo=texts, dpi=(72, 72))
    assert is_plain(tmp_path / "a.png")


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


SPOILT: dict[str, Callable[[Path], Any]] = {
    "palette": lambda path: RGB.convert("P").save(path / "a.png"),
    "grey": lambda path: RGB.convert("L").save(path / "a.jpg"),
    "alpha": lambda path: RGB.convert("RGBA").save(path / "a.png"),
    "one clear colour": lambda path: RGB.save(path / "a.png", transparency=(1, 2, 3)),
    "alpha webp": lambda path: Image.new("RGBA", (8, 8), (1, 2, 3, 4)).save(path / "a.webp"),
    "cmyk": lambda path: RGB.convert("CMYK").save(path / "a.jpg"),
    "16 bits": lambda path: Image.fromarray(np.zeros((8, 8), np.uint16)).save(path / "a.png"),
    "profile png": lambda path: RGB.save(path / "a.png", icc_profile=PROFILE),
    "profile jpg": lambda path: RGB.save(path / "a.jpg", icc_profile=PROFILE),
    "turned png": lambda path: RGB.save(path / "a.png", exif=rotated()),
    "turned jpg": lambda path: RGB.save(path / "a.jpg", exif=rotated()),
    "turned webp": lambda path: RGB.save(path / "a.webp", exif=rotated()),
    "frames png": lambda path: RGB.save(path / "a.png", save_all=True, append_images=[RGB.rotate(90)]),
    "frames webp": lambda path: RGB.save(path / "a.webp", save_all=True, append_images=[RGB.rotate(180)]),
    "wrong name": lambda path: RGB.save(path / "a.png", "JPEG"),
    "other kind": lambda path: RGB.save(path / "a.bmp"),
    "empty": lambda path: (path / "a.png").write_bytes(b""),
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_others_might_read_otherwise_is_not(tmp_path: Path, how: str) -> None:
    SPOILT[how](tmp_path)
    (path,) = tmp_path.iterdir()
    assert not is_plain(path)


@settings(max_examples=60)
@given(st.data(), st.sampled_from([".png", ".jpg", ".webp"]))
def test_a_cut_file_is_never_plain(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, suffix: str) -> None:
    path = tmp_path_factory.mktemp("cut") / f"a{suffix}"
    save(RGB, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert not is_plain(path)


@given(st.integers(33, 1500))
def test_a_png_with_a_wrong_bit_is_never_plain(tmp_path_factory: pytest.TempPathFactory, place: int) -> None:
    path = tmp_path_factory.mktemp("bit") / "a.png"
    save(RGB, path)
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1
    path.write_bytes(data)
    assert not is_plain(path)


def test_a_plain_file_decodes_without_a_note(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg", ".webp"):
        save(RGB, tmp_path / f"a{suffix}")
        decoded = decode(tmp_path / f"a{suffix}", None)
        assert decoded.notes == [] and decoded.alpha is None and decoded.suffix == suffix
