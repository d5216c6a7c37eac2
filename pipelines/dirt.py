"""The demo's raw folder: pictures of the marked character in the states in which people find theirs."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw

from pipelines.pocket import world
from prep.options import atomic_write

PICTURES = 24  # files in all: 20 different pictures, two duplicates, a too-small one, a truncated one
_EXIF_ORIENTATION = 0x0112


def write_raw(folder: Path, seed: int = 7) -> list[Path]:
    """Draw the raw folder: two duplicates, one too small, one with alpha, one turned by EXIF, one CMYK, one .jpeg, one truncated."""
    clean = [image for image, _ in world.demo_pictures(PICTURES - 2, seed)]
    files = {f"mira_{index:02d}.png": _png(image) for index, image in enumerate(clean[:13])}
    files |= {f"mira_{index:02d}.jpg": _jpeg(image) for index, image in enumerate(clean[13:17], 13)}
    files["mira 17 (transparent).png"] = _png(_cut_out(clean[17]))
    files["mira_18_phone.jpg"] = _turned(clean[18])
    files["mira_19_print.jpg"] = _jpeg(clean[19].convert("CMYK"))
    files["mira_16.jpeg"] = files.pop("mira_16.jpg")
    files["copy of mira_03.png"] = files["mira_03.png"]
    files["mira_05_reposted.jpg"] = _jpeg(clean[5].resize((clean[5].width * 7 // 8, clean[5].height * 7 // 8), Image.Resampling.LANCZOS), 80)
    files["mira_20_thumbnail.png"] = _png(clean[20].resize((96, 96), Image.Resampling.LANCZOS))
    files["mira_21_broken.jpg"] = _jpeg(clean[21])[:-2000]
    for name, data in files.items():
        if not (folder / name).exists():
            atomic_write(folder / name, data)
    return sorted(folder / name for name in files)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _jpeg(image: Image.Image, quality: int = 92, exif: Image.Exif | None = None) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, exif=exif or Image.Exif())
    return buffer.getvalue()


def _cut_out(image: Image.Image) -> Image.Image:
    """Make what is joined to the upper corners transparent, as a cut-out from the web is."""
    marker = (1, 254, 3)
    filled = image.copy()
    for corner in ((0, 0), (image.width - 1, 0)):
        ImageDraw.floodfill(filled, corner, marker, thresh=40)
    alpha = Image.new("L", image.size, 255)
    alpha.putdata([0 if pixel == marker else 255 for pixel in filled.get_flattened_data()])
    result = image.convert("RGBA")
    result.putalpha(alpha)
    return result


def _turned(image: Image.Image) -> bytes:
    """Store the picture lying on its side with the EXIF note that sets it upright, as phones do."""
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = 6  # the viewer is to turn it 90 degrees clockwise
    return _jpeg(image.transpose(Image.Transpose.ROTATE_90), exif=exif)
