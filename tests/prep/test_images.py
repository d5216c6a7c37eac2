"""Decoding: every kind of picture ends as the RGB pixels that a viewer shows."""

from __future__ import annotations

import contextlib
import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from prep.images import READABLE, PictureError, decode, encode, find_pictures, frame_numbers, frames, has_pictures, load, pixel_hash, save

# EXIF orientation -> how a camera stores an upright picture under it (the inverse of the viewer's turn).
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def pattern(width: int = 40, height: int = 24) -> np.ndarray:
    """Draw smooth colours that are different in every corner, (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 3], axis=-1).astype(np.uint8)


def apart(image: Image.Image, truth: np.ndarray) -> int:
    """Return the largest difference of a picture from the truth, in levels."""
    assert image.mode == "RGB"
    seen = np.asarray(image).astype(int)
    assert seen.shape == truth.shape
    return int(np.abs(seen - truth).max())


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](pattern())))
    options = {"png": {}, "tif": {}, "jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}[suffix]
    stored.save(tmp_path / f"a.{suffix}", exif=exif, **options)
    assert apart(load(tmp_path / f"a.{suffix}"), pattern()) <= (6 if suffix == "jpg" else 0)


def test_broken_exif_does_not_matter(tmp_path: Path) -> None:
    Image.fromarray(pattern()).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert apart(load(tmp_path / "a.png"), pattern()) == 0


@pytest.mark.parametrize("bits", [">u2", "<u2"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, bits: str) -> None:
    grey = np.linspace(0, 65535, 40 * 24).reshape(24, 40).astype(np.uint16)
    suffix = "png" if bits == ">u2" else "tif"
    Image.fromarray(grey).save(tmp_path / f"a.{suffix}")
    decoded = decode(tmp_path / f"a.{suffix}")
    assert apart(decoded.image, np.repeat((grey / 257).round()[..., None], 3, axis=2)) <= 1
    assert decoded.notes == ["16bit_scaled"]


def test_float_tiff_is_scaled(tmp_path: Path) -> None:
    grey = np.linspace(0, 1, 40 * 24, dtype=np.float32).reshape(24, 40)
    Image.fromarray(grey).save(tmp_path / "a.tif")
    assert apart(load(tmp_path / "a.tif"), np.repeat((grey * 255).round()[..., None], 3, axis=2)) <= 1


def cmyk_of(rgb: np.ndarray) -> Image.Image:
    return Image.fromarray(np.concatenate([255 - rgb, np.zeros_like(rgb[..., :1])], axis=-1), "CMYK")


def test_cmyk_jpeg_with_adobe_marker(tmp_path: Path) -> None:
    cmyk_of(pattern()).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    decoded = decode(tmp_path / "a.jpg")
    assert apart(decoded.image, pattern()) <= 2
    assert decoded.notes == ["cmyk_converted"]


def test_cmyk_jpeg_without_adobe_marker_is_not_inverted(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    inverted = Image.fromarray(255 - np.asarray(cmyk_of(pattern())), "CMYK")
    inverted.save(buffer, "JPEG", quality=100, subsampling=0)
    data = buffer.getvalue()
    marker = data.index(b"\xff\xee")
    length = int.from_bytes(data[marker + 2 : marker + 4], "big") + 2
    (tmp_path / "a.jpg").write_bytes(data[:marker] + data[marker + length :])
    assert apart(load(tmp_path / "a.jpg"), pattern()) <= 2


def test_cmyk_tiff(tmp_path: Path) -> None:
    cmyk_of(pattern()).save(tmp_path / "a.tif")
    assert apart(load(tmp_path / "a.tif"), pattern()) <= 2


def test_other_profile_is_converted_to_srgb(tmp_path: Path) -> None:
    """A linear-light version of the sRGB primaries has a known answer: the sRGB curve."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    swapped = _with_gamma_curves(srgb.tobytes())
    linear = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(4, axis=0)
    Image.fromarray(linear).save(tmp_path / "a.png", icc_profile=swapped)
    decoded = decode(tmp_path / "a.png")
    x = linear / 255
    truth = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055) * 255
    assert decoded.notes == ["icc_converted"]
    assert apart(decoded.image, truth.round()) <= 2


def _with_gamma_curves(profile: bytes) -> bytes:
    """Replace the tone curves of a matrix profile by the identity ('curv' with no entries, ICC.1:2010 10.5)."""
    tags = int.from_bytes(profile[128:132], "big")
    data = bytearray(profile)
    for index in range(tags):
        entry = 132 + 12 * index
        if bytes(data[entry : entry + 4]) in (b"rTRC", b"gTRC", b"bTRC"):
            offset = int.from_bytes(data[entry + 4 : entry + 8], "big")
            data[offset : offset + 12] = b"curv" + bytes(8)
            data[entry + 8 : entry + 12] = (12).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("profile", ["srgb", "broken", "for_grey"])
def test_a_profile_that_does_not_apply_changes_nothing(tmp_path: Path, profile: str) -> None:
    data = {
        "srgb": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "broken": b"no profile at all",
        "for_grey": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes().replace(b"RGB ", b"GRAY"),
    }[profile]
    Image.fromarray(pattern()).save(tmp_path / "a.png", icc_profile=data)
    decoded = decode(tmp_path / "a.png")
    assert apart(decoded.image, pattern()) == 0
    assert decoded.notes == []
    assert "icc_profile" not in decoded.image.info


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_become_the_background(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (8, 4), (200, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 4))  # black is hidden under the transparent half
    image.convert(mode).save(tmp_path / "a.png")
    decoded = decode(tmp_path / "a.png")
    assert decoded.notes == ["alpha_composited"]
    assert decoded.image.getpixel((1, 1)) == (255, 255, 255)
    assert decoded.image.getpixel((6, 1)) != (255, 255, 255)
    assert load(tmp_path / "a.png", (0, 0, 255)).getpixel((1, 1)) == (0, 0, 255)


def test_half_transparent_is_mixed(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "a.png")
    assert abs(load(tmp_path / "a.png").getpixel((0, 0))[0] - 127) <= 1


def test_transparent_colour_of_an_rgb_png(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4), (0, 255, 0))
    image.putpixel((0, 0), (9, 9, 9))
    image.save(tmp_path / "a.png", transparency=(0, 255, 0))
    seen = load(tmp_path / "a.png")
    assert seen.getpixel((3, 3)) == (255, 255, 255)
    assert seen.getpixel((0, 0)) == (9, 9, 9)


def test_one_bit_and_palette(tmp_path: Path) -> None:
    checks = Image.fromarray((np.indices((8, 8)).sum(axis=0) % 2 * 255).astype(np.uint8))
    checks.convert("1").save(tmp_path / "bits.png")
    checks.convert("P").save(tmp_path / "palette.gif")
    assert apart(load(tmp_path / "bits.png"), np.asarray(checks.convert("RGB")).astype(int)) == 0
    assert apart(load(tmp_path / "palette.gif"), np.asarray(checks.convert("RGB")).astype(int)) == 0


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **({"lossless": True} if suffix == "webp" else {}))
    decoded = decode(tmp_path / f"a.{suffix}")
    assert decoded.image.getpixel((5, 5)) == (255, 0, 0)
    assert decoded.notes == ["first_frame"]


def animation(path: Path, shades: list[int], **options: object) -> Path:
    """Write flat frames of the given shades."""
    pictures = [Image.new("RGB", (32, 24), (shade, 40, 255 - shade)) for shade in shades]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)
    return path


def reds(path: Path, count: int) -> list[tuple[int, int]]:
    """Return frame number and red of what `frames` yields."""
    return [(decoded.frame, decoded.image.getpixel((3, 3))[0]) for decoded in frames(path, count)]


@pytest.mark.parametrize(("name", "options"), [("a.gif", {}), ("a.webp", {"lossless": True}), ("a.png", {}), ("a.tif", {})])
def test_frames_are_spread_evenly(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    path = animation(tmp_path / name, [0, 30, 60, 90, 120, 150, 180, 210, 240], **options)
    assert reds(path, 1) == [(1, 0)]
    assert reds(path, 3) == [(1, 0), (4, 90), (7, 180)]
    assert [number for number, _ in reds(path, 100)] == list(range(1, 10))
    assert frame_numbers(path, 3) == [1, 4, 7] and frame_numbers(path, 1) == [1]


def test_frames_that_look_like_the_one_before_are_left_out(tmp_path: Path) -> None:
    path = animation(tmp_path / "a.webp", [0, 1, 2, 100, 101, 102, 0, 1], lossless=True)
    assert reds(path, 8) == [(1, 0), (4, 100), (7, 0)]
    drift = animation(tmp_path / "b.webp", list(range(0, 40, 4)), lossless=True)  # each is like its neighbour, the last unlike the first
    assert [number for number, _ in reds(drift, 10)] == [1, 3, 5, 7, 9]


def test_a_still_picture_has_one_frame(tmp_path: Path) -> None:
    Image.fromarray(pattern()).save(tmp_path / "a.png")
    assert [decoded.frame for decoded in frames(tmp_path / "a.png", 5)] == [1]
    assert frame_numbers(tmp_path / "a.png", 5) == [1]
    (tmp_path / "empty.gif").touch()
    assert frame_numbers(tmp_path / "empty.gif", 5) == [1]
    animation(tmp_path / "previews.mpo", [0, 99]).rename(tmp_path / "previews.jpg")
    assert frame_numbers(tmp_path / "previews.jpg", 5) == [1], "an MPO's other pictures are previews"


def test_a_thumbnail_in_a_tiff_is_no_frame(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (32, 24), colour) for colour in ("red", "lime", "blue")]
    pages[1].encoderinfo = {"tiffinfo": {254: 1}}  # NewSubfileType: a smaller version of another page
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert frame_numbers(tmp_path / "a.tif", 9) == [1, 3]


def test_a_cut_animation_gives_what_there_is(tmp_path: Path) -> None:
    noise = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 48), dtype=np.uint8)).convert("P") for seed in range(4)]
    noise[0].save(tmp_path / "a.gif", save_all=True, append_images=noise[1:])
    data = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(data[: int(len(data) * 0.6)])
    numbers = []
    with pytest.raises(PictureError, match="cut off"):
        numbers.extend(decoded.frame for decoded in frames(tmp_path / "a.gif", 4))
    assert decode(tmp_path / "a.gif").frame == 1


def test_a_side_that_the_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"17000 x 2 is too large for \.webp, whose sides end at 16383; choose png") as caught:
        encode(Image.new("RGB", (17_000, 2)), ".webp")
    assert caught.value.reason == "too_large"
    assert len(encode(Image.new("RGB", (17_000, 2)), ".jpg")) > 0


def test_wrong_suffix_is_read_and_the_right_one_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(Image.fromarray(pattern()), ".webp"))
    assert decode(tmp_path / "a.png").suffix == ".webp"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), suffix)
    (tmp_path / f"cut{suffix}").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(PictureError, match=f"cut{suffix} is cut off or damaged") as caught:
        load(tmp_path / f"cut{suffix}")
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty_file"), (b"<html>404 not found</html>", "unreadable"), (b"\x89PNG\r\n\x1a\n", "truncated")]
)
def test_no_picture_at_all(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(PictureError, match=r"a\.png") as caught:
        load(tmp_path / "a.png")
    assert caught.value.reason == reason


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="cannot be read") as caught:
        load(tmp_path / "a.png")
    assert caught.value.reason == "unreadable"


def test_decompression_bomb(tmp_path: Path) -> None:
    data = bytearray(encode(Image.new("RGB", (4, 4)), ".png"))
    data[16:24] = (20_000).to_bytes(4, "big") * 2  # the size in the header: a few bytes that claim 1.2 GB
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(PictureError, match="million pixels") as caught:
        load(tmp_path / "a.png")
    assert caught.value.reason == "too_large"


def test_saved_png_keeps_pixels_and_is_the_same_every_time(tmp_path: Path) -> None:
    image = Image.fromarray(pattern())
    image.info["icc_profile"] = b"left over"
    save(load_copy(tmp_path, image), tmp_path / "b.png")
    save(load_copy(tmp_path, image), tmp_path / "c.png")
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()
    assert pixel_hash(load(tmp_path / "b.png")) == pixel_hash(image)
    assert "icc_profile" not in Image.open(tmp_path / "b.png").info


def load_copy(folder: Path, image: Image.Image) -> Image.Image:
    image.save(folder / "a.png")
    return load(folder / "a.png")


def test_pixel_hash_knows_shape_from_content() -> None:
    assert pixel_hash(Image.new("RGB", (2, 8))) != pixel_hash(Image.new("RGB", (8, 2)))
    assert pixel_hash(Image.new("L", (4, 4), 7)) == pixel_hash(Image.new("RGB", (4, 4), (7, 7, 7)))


def test_find_pictures(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", "c.JPG", "ä ö.webp", ".tmp-x.png", ".hidden.png", "notes.txt", "d.heic"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    with contextlib.suppress(OSError):  # Windows allows links to administrators only
        (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    assert [path.name for path in find_pictures(tmp_path)] == ["a.jpeg", "b.PNG", "c.JPG", "d.heic", "ä ö.webp"]
    assert find_pictures(tmp_path / "missing") == []
    assert has_pictures(tmp_path) and not has_pictures(tmp_path / "missing")


def test_a_folder_of_masks_and_hidden_files_has_no_pictures(tmp_path: Path) -> None:
    for name in ("a.mask.png", ".b.png", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "d.png").mkdir()
    assert find_pictures(tmp_path) == [] and not has_pictures(tmp_path)


def test_find_pictures_by_content(tmp_path: Path) -> None:
    data = encode(Image.fromarray(pattern()), ".jpg")
    for name in ("a.jpg_large", "b", "c.jpeg!d", "d.", "e.jpg", "f.part", "g.txt", "h.cr2", ".i"):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "j").write_bytes(b"BM and other words")
    (tmp_path / "k").mkdir()
    assert [path.name for path in find_pictures(tmp_path, by_content=True)] == ["a.jpg_large", "b", "c.jpeg!d", "d.", "e.jpg"]
    assert [path.name for path in find_pictures(tmp_path)] == ["e.jpg"]


def test_readable_suffixes_are_written_small() -> None:
    assert all(suffix == suffix.lower() for suffix in READABLE)
