"""Sound pictures of every shape that the field writes, made by code, each with the pixels that must come out."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tests.torture_bytes import (
    PRIMARIES,
    chunk,
    cmyk_profile,
    exif,
    grey_profile,
    linear_to_srgb,
    png,
    printed,
    rgb_profile,
    saved,
    tiff,
    with_segment,
    without_marker,
    ycck,
)

HEIGHT, WIDTH, CELL = 48, 64, 8
LOSSY = 5  # levels that JPEG, WebP, AVIF and HEIC of the best quality may be off; the others are exact

# EXIF orientation -> how a camera stores an upright picture under it (the inverse of the viewer's turn).
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@dataclass(frozen=True)
class Expectation:
    """What must become of a file: kept with the right pixels, set aside with a reason, or not taken for a picture at all (None)."""

    reason: str | None = ""
    truth: np.ndarray | None = None  # (height, width, 3), 0..255
    within: float = 0  # levels that a pixel may be off
    alpha: np.ndarray | None = None  # (height, width), where the picture is transparent
    group: str = ""  # what it is a test of: exif, icc, cmyk, 16bit, ...


Row = tuple[str, bytes, Expectation]


def cells(seed: int, low: int = 0, high: int = 256, channels: int = 3) -> np.ndarray:
    """Draw flat cells of random colours, (HEIGHT, WIDTH, channels): no block of a JPEG holds an edge, so that it is nearly exact."""
    colours = np.random.default_rng(seed).integers(low, high, (HEIGHT // CELL, WIDTH // CELL, channels))
    return colours.repeat(CELL, 0).repeat(CELL, 1).astype(np.uint8)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


BEST = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4", "speed": 8}}
SUFFIX = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "AVIF": "avif", "JPEG2000": "jp2"}


def within(format: str) -> int:
    return LOSSY if format in ("JPEG", "AVIF", "HEIF") else 0


def best(pixels: np.ndarray, format: str, **options: object) -> bytes:
    return saved(pixels, format, **{**BEST.get(format, {}), **options})


def formats() -> Iterator[Row]:
    """Each format in each of its common shapes."""
    rows: list[tuple[str, str, dict[str, object], int]] = [
        *((f"plain.{suffix}", format, {}, within(format)) for format, suffix in SUFFIX.items()),
        ("progressive.jpg", "JPEG", {"progressive": True}, LOSSY),
        ("optimized.jpg", "JPEG", {"optimize": True}, LOSSY),
        ("adobe rgb order.jpg", "JPEG", {"keep_rgb": True}, LOSSY),
        ("restart markers.jpg", "JPEG", {"restart_marker_blocks": 1}, LOSSY),
        *((f"{name}.tif", "TIFF", {"compression": name}, 0) for name in ("tiff_lzw", "tiff_deflate", "packbits", "lzma", "zstd")),
        ("jpeg inside.tif", "TIFF", {"compression": "jpeg", "quality": 100}, LOSSY),
    ]
    for seed, (name, format, options, off) in enumerate(rows):
        yield name, best(cells(seed), format, **options), Expectation(truth=cells(seed), within=off, group="format")
    down, across = np.mgrid[0:HEIGHT, 0:WIDTH]
    soft = np.stack([across * 3, down * 4, down * 0 + 90], axis=-1).astype(np.uint8)
    yield "halved colours.jpg", saved(soft, "JPEG", quality=100, subsampling=2), Expectation(truth=soft, within=12, group="format")
    yield "lossy.webp", saved(soft, "WEBP", quality=100), Expectation(truth=soft, within=12, group="format")
    few = cells(70)
    for format in ("PNG", "GIF", "BMP", "TIFF"):
        yield f"palette.{SUFFIX[format]}", saved(few, format, "P"), Expectation(truth=_seen(few, "P"), group="format")
    for format in ("PNG", "BMP", "TIFF", "JPEG", "WEBP", "AVIF", "GIF"):
        image = Image.fromarray(cells(71)).convert("L")
        yield (
            f"grey.{SUFFIX[format]}",
            best(np.asarray(image), format),
            Expectation(truth=_seen(cells(71), "L"), within=within(format), group="format"),
        )
    for name, format, options in (("bits.png", "PNG", {}), ("bits.bmp", "BMP", {}), ("fax.tif", "TIFF", {"compression": "group4"})):
        yield name, saved(cells(72), format, "1", **options), Expectation(truth=_seen(cells(72), "1"), group="format")
    flipped = saved(cells(73), "BMP")  # a negative height: the first row is the top
    yield "top down.bmp", flipped[:22] + struct.pack("<i", -HEIGHT) + flipped[26:], Expectation(truth=cells(73)[::-1], group="format")
    yield "lab.tif", _lab_tiff(), Expectation(truth=np.full((HEIGHT, WIDTH, 3), 119), within=2, group="icc")


def _seen(pixels: np.ndarray, mode: str) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).convert(mode).convert("RGB"))


def _lab_tiff() -> bytes:
    """L* = 50 is the grey of 119 in sRGB."""
    return saved(Image.new("LAB", (WIDTH, HEIGHT), (128, 128, 128)), "TIFF")


def orientations() -> Iterator[Row]:
    for format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        for orientation, store in STORED.items():
            truth = cells(100 + orientation)
            expected = Expectation(truth=truth, within=within(format), group="exif")
            yield f"turned {orientation}.{SUFFIX[format]}", best(store(truth), format, exif=exif(orientation)), expected
    truth = cells(109)
    lzw = best(STORED[6](truth), "TIFF", compression="tiff_lzw", tiffinfo={0x0112: 6})
    yield "turned and packed.tif", lzw, Expectation(truth=truth, group="exif")
    for name, orientation in (("zero", 0), ("nine", 9)):
        yield f"turned {name}.jpg", best(truth, "JPEG", exif=exif(orientation)), Expectation(truth=truth, within=LOSSY, group="exif")
    broken = b"Exif\0\0MM\0*\xff\xff\xff\xff"
    for format in ("JPEG", "PNG", "WEBP"):
        yield f"broken exif.{SUFFIX[format]}", best(truth, format, exif=broken), Expectation(truth=truth, within=within(format), group="exif")
    yield "short exif.jpg", with_segment(best(truth, "JPEG"), b"\xff\xe1", b"Exif\0\0II"), Expectation(truth=truth, within=LOSSY, group="exif")


def deep() -> Iterator[Row]:
    """16 bits a sample: scaled by 257, never clipped."""
    rng = np.random.default_rng(200)
    one = rng.integers(0, 65536, (HEIGHT, WIDTH, 1)).astype(np.uint16)
    three = rng.integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    shade, colour = grey(np.rint(one[..., 0] / 257)), np.rint(three / 257)
    opaque = np.full_like(one, 65535)
    clear = three.copy()
    clear[:8, :8] = 4242
    hole = np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)
    hole[:8, :8] = 0
    named, shaded = (chunk(b"tRNS", struct.pack(">H", 4242) * times) for times in (3, 1))
    rows: list[tuple[str, bytes, np.ndarray, np.ndarray | None]] = [
        ("grey.png", png(one, 0), shade, None),
        ("grey and alpha.png", png(np.concatenate([one, opaque], -1), 4), shade, None),
        ("rgb.png", png(three, 2), colour, None),
        ("rgba.png", png(np.concatenate([three, opaque], -1), 6), colour, None),
        ("rgb with a clear colour.png", png(clear, 2, named), np.where(hole[..., None], np.rint(clear / 257), 255), hole),
        ("grey with a clear shade.png", png(clear[..., :1], 0, shaded), grey(np.where(hole, np.rint(clear[..., 0] / 257), 255)), hole),
        ("grey intel.tif", tiff(one), shade, None),
        ("grey motorola.tif", tiff(one, ">"), shade, None),
        ("rgb intel.tif", tiff(three), colour, None),
        ("rgb motorola.tif", tiff(three, ">"), colour, None),
        ("rgba.tif", tiff(np.concatenate([three, opaque], -1), extra={338: 2}), colour, None),
        ("float.tif", saved((one[..., 0] / 65535).astype(np.float32), "TIFF"), shade, None),
        ("float to 255.tif", saved((one[..., 0] / 257).astype(np.float32), "TIFF"), shade, None),
        ("long.tif", saved(one[..., 0].astype(np.int32), "TIFF"), shade, None),
    ]
    for name, data, truth, alpha in rows:
        yield f"deep {name}", data, Expectation(truth=truth, within=2, alpha=alpha, group="16bit")


def transparent() -> Iterator[Row]:
    """Transparency shows the background, white, and is kept as alpha."""
    colours, alpha = cells(300), cells(301, channels=1)[..., 0]
    mixed = colours * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255)
    rgba = np.dstack([colours, alpha])
    shade = np.asarray(Image.fromarray(colours).convert("L"))
    for format in ("PNG", "WEBP", "TIFF", "AVIF"):
        truth = Expectation(truth=mixed, within=within(format) + 1, alpha=alpha, group="alpha")
        yield f"clear.{SUFFIX[format]}", best(rgba, format, **({"exact": True} if format == "WEBP" else {})), truth
    on_white = grey(shade * (alpha / 255) + 255 - alpha)
    yield "clear grey.png", saved(np.dstack([shade, alpha]), "PNG"), Expectation(truth=on_white, within=1, alpha=alpha, group="alpha")
    hole = np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)
    hole[16:32, 16:32] = 0
    holed = np.where(hole[..., None], cells(302, 1), 255)
    keyed = np.where(hole[..., None], cells(302, 1), 0).astype(np.uint8)
    expected = Expectation(truth=holed, alpha=hole, group="alpha")
    yield "clear colour.png", saved(keyed, "PNG", transparency=(0, 0, 0)), expected
    indexed = Image.fromarray(keyed).quantize(64)
    index = indexed.getpixel((20, 20))
    truth = np.where(hole[..., None], np.asarray(indexed.convert("RGB")), 255)
    for format in ("PNG", "GIF"):
        yield f"clear index.{SUFFIX[format]}", saved(indexed, format, transparency=index), Expectation(truth=truth, alpha=hole, group="alpha")
    yield "clear bits.png", saved(hole, "PNG", "1", transparency=0), Expectation(truth=grey(np.full_like(hole, 255)), alpha=hole, group="alpha")
    yield "opaque.png", saved(np.dstack([colours, np.full_like(alpha, 255)]), "PNG"), Expectation(truth=colours, group="alpha")
    yield (
        "all clear.png",
        saved(np.dstack([colours, np.zeros_like(alpha)]), "PNG"),
        Expectation(truth=np.full_like(colours, 255), alpha=alpha * 0, group="alpha"),
    )


def inks() -> Iterator[Row]:
    """CMYK: plain arithmetic without a profile, the profile's colours with one."""
    cmyk = cells(400, 0, 6, 4) * 51
    plain = np.rint((255 - cmyk[..., :3].astype(float)) * (255 - cmyk[..., 3:]) / 255)
    image, inverted = (Image.frombytes("CMYK", (WIDTH, HEIGHT), ink.tobytes()) for ink in (cmyk, 255 - cmyk))
    adobe = saved(image, "JPEG", **BEST["JPEG"])
    unmarked = without_marker(saved(inverted, "JPEG", **BEST["JPEG"]), b"\xff\xee")
    rows = {"adobe.jpg": adobe, "unmarked.jpg": unmarked, "ycck.jpg": ycck(cmyk), "plain.tif": saved(image, "TIFF")}
    rows["packed.tif"] = saved(image, "TIFF", compression="tiff_lzw")
    rows["progressive.jpg"] = saved(image, "JPEG", progressive=True, **BEST["JPEG"])
    rows["broken profile.jpg"] = saved(image, "JPEG", icc_profile=b"nothing", **BEST["JPEG"])
    rows["profile of rgb.jpg"] = saved(image, "JPEG", icc_profile=rgb_profile(), **BEST["JPEG"])
    rows["deep.tif"] = tiff(cmyk.astype(np.uint16) * 257, extra={262: 5})
    for name, data in rows.items():
        yield f"inks {name}", data, Expectation(truth=plain, within=2, group="cmyk")
    profile = cmyk_profile()
    seen = Expectation(truth=printed(cmyk.astype(float)), within=2, group="cmyk")
    yield "inks profiled.jpg", saved(image, "JPEG", icc_profile=profile, **BEST["JPEG"]), seen
    yield "inks profiled.tif", saved(image, "TIFF", icc_profile=profile), seen
    kept = without_marker(saved(inverted, "JPEG", icc_profile=profile, **BEST["JPEG"]), b"\xff\xee")
    yield "inks profiled and unmarked.jpg", kept, seen


def profiles() -> Iterator[Row]:
    colours = cells(500)
    straight = linear_to_srgb(colours / 255)
    for format in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF"):
        off = 2 if not within(format) else 40  # a linear curve magnifies what a lossy format does to the dark tones
        linear = Expectation(truth=straight, within=off, group="icc" if off == 2 else "icc, lossy")
        yield f"linear.{SUFFIX[format]}", best(colours, format, icc_profile=rgb_profile()), linear
        swapped = Expectation(truth=colours[..., ::-1], within=max(2, within(format) + 3), group="icc" if off == 2 else "icc, lossy")
        swap = rgb_profile(PRIMARIES[::-1], 2.2)
        yield f"swapped.{SUFFIX[format]}", best(_curved(colours), format, icc_profile=swap), swapped
    shade = np.asarray(Image.fromarray(colours).convert("L"))
    bent = grey(linear_to_srgb((shade / 255) ** 1.0))
    for name, data in (
        ("grey", saved(shade, "PNG", icc_profile=grey_profile(1.0))),
        ("grey and alpha", saved(np.dstack([shade, np.full_like(shade, 255)]), "PNG", icc_profile=grey_profile(1.0))),
        ("grey of 16 bits", saved(shade.astype(np.uint16) * 257, "PNG", icc_profile=grey_profile(1.0))),
    ):
        yield f"profiled {name}.png", data, Expectation(truth=bent, within=2, group="icc")
    dark = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)  # up to 3071 of 65535: black in 8 bits, not under the curve
    truth = grey(linear_to_srgb(dark / 65535))
    yield "profiled dark of 16 bits.png", saved(dark, "PNG", icc_profile=grey_profile(1.0)), Expectation(truth=truth, within=2, group="icc")
    useless = {"of nothing": b"", "broken": b"no profile", "cut": rgb_profile()[:150], "of grey": grey_profile(1.8), "of inks": cmyk_profile()}
    useless["of other fields"] = rgb_profile().replace(b"rTRC", b"xTRC")
    for name, profile in useless.items():
        for format in ("PNG", "JPEG"):
            expected = Expectation(truth=colours, within=within(format), group="icc" if format == "PNG" else "icc, lossy")
            yield f"profile {name}.{SUFFIX[format]}", best(colours, format, icc_profile=profile), expected
    bad = chunk(b"iCCP", b"icc\0\0not deflated")
    yield "profile not deflated.png", png(colours, 2, bad), Expectation(truth=colours, group="icc")


def _curved(srgb: np.ndarray) -> np.ndarray:
    """Store sRGB colours, red and blue swapped, under a curve of 2.2."""
    x = srgb[..., ::-1] / 255
    light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    swapped = light[..., ::-1]  # the profile's red primary is blue
    return np.rint(255 * swapped ** (1 / (round(2.2 * 256) / 256))).astype(np.uint8)
