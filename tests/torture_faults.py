"""Damaged pictures, other things that are called pictures, animations, and names of every kind, each with what must become of it."""

from __future__ import annotations

import io
import struct
import unicodedata
import zlib
from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
from PIL import Image

from tests.torture_bytes import chunk, png, saved, tiff, with_segment
from tests.torture_shapes import HEIGHT, LOSSY, SUFFIX, WIDTH, Expectation, Row, best, cells, noise, within

SEVERAL = 3  # frames of each animation
HEIF, JXL = find_spec("pillow_heif") is not None, find_spec("pillow_jxl") is not None


def damaged() -> Iterator[Row]:
    """Cut files, empty files, noise, text; what viewers forgive is kept."""
    truncated = Expectation("truncated", group="cut")
    for seed, (format, suffix) in enumerate(SUFFIX.items()):
        whole = best(noise(seed), format)
        for share in (0.1, 0.5, 0.95):
            yield f"cut at {share:.0%}.{suffix}", whole[: int(len(whole) * share)], truncated
        yield f"empty.{suffix}", b"", Expectation("empty_file", group="empty")
        yield f"noise.{suffix}", b"\x01" + np.random.default_rng(seed).bytes(500), Expectation("unreadable", group="noise")
        yield f"page.{suffix}", b"<html><body>404 not found</body></html>", Expectation("unreadable", group="noise")
    whole = best(noise(20), "JPEG", progressive=True)
    yield "cut progressive.jpg", whole[: len(whole) // 2], truncated
    yield "without its end.jpg", best(noise(21), "JPEG")[:-2], truncated
    yield "no frame.gif", saved(cells(22), "GIF", "P")[:13] + b";", truncated
    yield "head alone.png", b"\x89PNG\r\n\x1a\n", truncated
    yield "text mode.png", best(cells(22), "PNG").replace(b"\r\n", b"\n"), truncated  # what FTP made of pictures
    yield from _damaged_png()
    truth = cells(23)
    for name, data in (
        ("trailing.jpg", best(truth, "JPEG") + bytes(3000)),
        ("comment.jpg", with_segment(best(truth, "JPEG"), b"\xff\xfe", b"\xff" * 99)),
    ):
        yield name, data, Expectation(truth=truth, within=LOSSY, group="forgiven")
    yield "trailing.gif", saved(cells(24), "GIF", "P") + b"junk", Expectation(group="forgiven")


def _damaged_png() -> Iterator[Row]:
    truth = cells(30)
    whole, text = png(truth, 2), b"Comment\0hello"
    pixels = whole.index(b"IDAT") + 4
    size = int.from_bytes(whole[pixels - 8 : pixels - 4], "big")
    sound, truncated = Expectation(truth=truth, group="forgiven"), Expectation("truncated", group="cut")
    yield "header with a wrong crc.png", whole[:29] + b"\0\0\0\0" + whole[33:], truncated
    yield "pixels with a wrong crc.png", whole[: pixels + size] + b"\0\0\0\0" + whole[pixels + size + 4 :], sound  # zlib's own sum is right
    middle = pixels + size // 2
    yield "pixels with a wrong byte.png", whole[:middle] + bytes([whole[middle] ^ 0x55]) + whole[middle + 1 :], truncated
    yield "text with a wrong crc.png", png(truth, 2, chunk(b"tEXt", text, sound=False)), sound
    yield "late text with a wrong crc.png", png(truth, 2, after=chunk(b"tEXt", text, sound=False)), sound
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3_000_000)))
    yield "text bomb.png", png(truth, 2, bomb), sound
    yield "late text bomb.png", png(truth, 2, after=bomb), sound
    yield "private chunk.png", png(truth, 2, chunk(b"prVt", bytes(50))), sound
    yield "unknown chunk that matters.png", png(truth, 2, chunk(b"XRVt", bytes(50))), sound
    yield "without its end.png", whole[:-12], sound
    yield "trailing.png", whole + b"junk" * 99, sound


def bombs() -> Iterator[Row]:
    """A few bytes that claim gigabytes."""
    large, side = Expectation("too_large", group="bomb"), 20_000
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    yield "bomb.png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b""), large
    data = best(cells(40), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    yield "bomb.jpg", data[:at] + struct.pack(">HH", side, side) + data[at + 4 :], large
    data = saved(cells(40), "BMP")
    yield "bomb.bmp", data[:18] + struct.pack("<ii", side, side) + data[26:], large
    data = saved(cells(40), "GIF", "P")
    yield "bomb.gif", data[:6] + struct.pack("<HH", side, side) + data[10:], large
    yield "bomb.tif", tiff(np.zeros((1, 1, 1), np.uint8), extra={256: side, 257: side}), large
    data = best(cells(40), "JPEG2000")
    at = data.index(b"ihdr") + 4
    data = data[:at] + struct.pack(">II", side, side) + data[at + 8 :]
    at = data.index(b"\xff\x51") + 6
    yield "bomb.jp2", data[:at] + struct.pack(">II", side, side) + data[at + 8 :], large
    data = best(cells(40), "AVIF")
    at = data.index(b"ispe") + 8
    yield "bomb.avif", data[:at] + struct.pack(">II", side, side) + data[at + 8 :], Expectation("truncated", group="bomb")
    canvas = (16_383).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas + canvas + saved(cells(40), "WEBP")[12:]
    yield "bomb.webp", b"RIFF" + struct.pack("<I", len(body)) + body, large
    bits = 0 | 3 << 1 | (side - 1) << 3 | 0 << 33 | 3 << 36 | (side - 1) << 38
    yield "bomb.jxl", b"\xff\x0a" + bits.to_bytes(10, "little") + bytes(40), large if JXL else Expectation("needs_package", group="bomb")


def optional() -> Iterator[Row]:
    """HEIC and JPEG XL: read where their packages are, else set aside with their names."""
    truth, missing = cells(50), Expectation("needs_package", group="optional")
    heic = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(200)
    jxl = b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(200)
    yield "no data.heic", heic, Expectation("truncated", group="optional") if HEIF else missing
    yield "no data.jxl", jxl, Expectation("truncated", group="optional") if JXL else missing
    if HEIF:
        import pillow_heif

        pillow_heif.register_heif_opener()
        heic = best(truth, "HEIF", quality=-1, chroma=444)
        yield "cut.heic", heic[: len(heic) // 2], Expectation("truncated", group="optional")
        turned = best(np.rot90(truth, 1), "HEIF", quality=-1, chroma=444, exif=_exif6())
        yield "turned.heic", turned, Expectation(truth=truth, within=LOSSY, group="optional")
    yield "plain.heic", heic, Expectation(truth=truth, within=LOSSY, group="optional") if HEIF else missing
    yield "heic called jpeg.jpg", heic, Expectation(truth=truth, within=LOSSY, group="optional") if HEIF else missing
    if JXL:
        import pillow_jxl  # noqa: F401

        jxl = best(truth, "JXL", lossless=True)
        yield "cut.jxl", jxl[: len(jxl) // 2], Expectation("truncated", group="optional")
        yield "in boxes.jxl", best(truth, "JXL", lossless=True, use_container=True), Expectation(truth=truth, group="optional")
        yield "clear.jxl", best(np.dstack([truth, truth[..., 0] * 0]), "JXL", lossless=True), _all_clear()
    yield "plain.jxl", jxl, Expectation(truth=truth, group="optional") if JXL else missing


def _all_clear() -> Expectation:
    return Expectation(truth=np.full((HEIGHT, WIDTH, 3), 255), alpha=np.zeros((HEIGHT, WIDTH)), group="optional")


def _exif6() -> bytes:
    data = Image.Exif()
    data[0x0112] = 6
    return data.tobytes()


def moving() -> Iterator[Row]:
    """Animations and pages: the first is taken."""
    pictures = [Image.fromarray(cells(60 + index)) for index in range(SEVERAL)]
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4", "speed": 8}, "GIF": {}, "PNG": {}, "TIFF": {}, "MPO": {}}
    options["MPO"] = {"quality": 100, "subsampling": 0}
    for format, extra in options.items():
        buffer = io.BytesIO()
        pictures[0].save(buffer, format, save_all=True, append_images=pictures[1:], **extra)
        suffix, off = SUFFIX.get(format, "jpg"), LOSSY if format == "MPO" else within(format)
        yield f"moving {format.lower()}.{suffix}", buffer.getvalue(), Expectation(truth=cells(60), within=off, group="moving")
    buffer = io.BytesIO()
    pictures[0].save(buffer, "PNG", save_all=True, append_images=pictures[1:], default_image=True)
    yield "moving.apng", buffer.getvalue(), Expectation(truth=cells(60), group="moving")


def sizes() -> Iterator[Row]:
    small = Expectation("too_small", group="size")
    for width, height in ((1, 1), (1, 1000), (1000, 1), (15, 400), (400, 15)):
        for format in ("PNG", "JPEG", "WEBP"):
            yield f"{width} by {height}.{SUFFIX[format]}", best(np.full((height, width, 3), 99, np.uint8), format), small
    for width, height in ((16, 16), (16, 3000), (3000, 16)):
        truth = np.full((height, width, 3), 99, np.uint8)
        yield f"{width} by {height}.png", best(truth, "PNG"), Expectation(truth=truth, group="size")


NAMES = (
    *("with spaces in it.png", " leading space.png", "trailing space .png", "dots.in.the.name.png", "trailing dot..png", "-dash.png", "--help.png"),
    *("[artist] name (1).png", "50%.png", "a'b\"c.png", "semi;colon&and.png", "back\\slash.png", "star*.png", "question?.png", "new\nline.png"),
    *("日本語の絵.png", "рисунок.png", "صورة.png", "smile 😀👩‍🎨.png", "ﬁ ligature.png", "zero\u200bwidth.png", "\u202eright to left.png"),
    *("n" * 240 + ".png", "長" * 82 + ".png", "😀" * 60 + ".png", "CAPITALS.PNG", "Mixed.PnG", "capitals.JPG", "capitals.JPEG", "capitals.WebP"),
    *("same.png", "same.PNG", "Same.png", "same.jpg", "same.jpeg", "same.webp", "same-2.png", "SAME.GIF"),
    *("STRASSE.png", "straße.png", unicodedata.normalize("NFC", "café.png"), unicodedata.normalize("NFD", "café.png"), "con.png", "report.json.png"),
    *("no suffix", "photo.jpg_large", "photo.jpeg!d", "photo.png_orig", "photo.png~", "photo.", "photo.jpg;width=99", "photo.jfif", "photo.bak"),
)
UNSEEN = (".hidden.png", "._photo.png", "..png", ".tmp-photo.png", "photo.mask.png", "negative.dng", "negative.NEF", "download.jpg.part", "notes.txt")


def names() -> Iterator[Row]:
    """Sound pictures under difficult names, and files that are not to be taken."""
    for seed, name in enumerate(NAMES):
        format = next((format for format, suffix in SUFFIX.items() if name.lower().endswith(f".{suffix}")), "PNG")
        pixels = cells(1000 + seed)
        truth = pixels if within(format) or format != "GIF" else np.asarray(Image.fromarray(pixels).convert("P").convert("RGB"))
        data = saved(pixels, "GIF", "P") if format == "GIF" else best(pixels, format)
        yield name, data, Expectation(truth=truth, within=within(format), group="name")
    for name in UNSEEN:
        yield name, best(cells(99), "TIFF" if name[:8] == "negative" else "PNG"), Expectation(None, group="unseen")


def misnamed() -> Iterator[Row]:
    """A picture is what its first bytes say; what is none is named as such."""
    for seed, (format, suffix) in enumerate(SUFFIX.items()):
        for wrong in {"png", "jpg", "webp"} - {suffix}:
            pixels = cells(80 + seed)
            truth = np.asarray(Image.fromarray(pixels).convert("P").convert("RGB")) if format == "GIF" else pixels
            data = saved(pixels, "GIF", "P") if format == "GIF" else best(pixels, format)
            yield f"{suffix} called {wrong}.{wrong}", data, Expectation(truth=truth, within=within(format), group="misnamed")
    others = {
        "pdf": b"%PDF-1.7\n",
        "psd": b"8BPS\0\1",
        "mp4": b"\0\0\0\x18ftypisom",
        "zip": b"PK\3\4",
        "svg": b"<svg/>",
        "eps": b"%!PS-Adobe-3.0 EPSF",
    }
    others |= {"wav": b"RIFF\x24\0\0\0WAVEfmt ", "exe": b"MZ\x90\0", "ico": b"\0\0\1\0\1\0", "bmp in letters": b"BMW is a maker of cars."}
    for kind, start in others.items():
        yield f"{kind} called png.png", start + bytes(300), Expectation("unreadable", group="misnamed")
    yield "a text without suffix", b"BMI and other words, GIF8, RIFF", Expectation(None, group="unseen")
    yield "table.csv", b"a,b\n1,2\n", Expectation(None, group="unseen")
