"""Pictures with marks whose place is known: URLs, signatures and translucent watermarks drawn over photographs and drawings."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipelines.pocket import world

KINDS = ("url", "signature", "watermark")
URLS = ("www.{}-art.com", "{}.deviantart.com", "https://{}.net", "patreon.com/{}", "twitter.com/{}", "@{}_art", "pixiv.net/{}", "(c) {} 2024")
WORDS = ("SAMPLE", "PREVIEW", "{}.com", "(c) {}", "{} Studio", "DO NOT COPY", "{} gallery", "PROOF")
NAMES = ("mirano", "haruka", "blackfox", "Sorensen", "kitsune", "Dubois", "lumen", "Petrova", "ashgrove", "winter", "tanaka", "Oleander")
# Sight of each photograph: skimage or sklearn name and the part of it, as shares; all ship inside the two packages.
PHOTOGRAPHS: tuple[tuple[str, tuple[float, float, float, float]], ...] = (
    *((name, (0.0, 0.0, 1.0, 1.0)) for name in ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field", "camera", "moon")),
    *((name, (0.0, 0.0, 1.0, 1.0)) for name in ("brick", "grass", "gravel", "clock", "coins", "stereo_motorcycle", "cell", "china", "flower")),
    ("immunohistochemistry", (0.0, 0.0, 1.0, 1.0)),
    ("astronaut", (0.1, 0.0, 0.8, 0.7)),
    ("chelsea", (0.2, 0.0, 1.0, 0.9)),
    ("coffee", (0.1, 0.1, 0.9, 1.0)),
    ("china", (0.0, 0.1, 0.6, 0.9)),
    ("china", (0.4, 0.2, 1.0, 1.0)),
    ("flower", (0.2, 0.0, 0.9, 0.9)),
    ("hubble_deep_field", (0.0, 0.4, 0.6, 1.0)),
    ("retina", (0.3, 0.3, 0.8, 0.8)),
    ("stereo_motorcycle", (0.0, 0.1, 0.6, 1.0)),
    ("stereo_motorcycle", (0.4, 0.0, 1.0, 0.9)),
    ("rocket", (0.2, 0.1, 0.8, 1.0)),
    ("grass", (0.0, 0.2, 0.8, 1.0)),
)


@dataclass(frozen=True)
class Marked:
    """A picture with a mark drawn over it; `ink` is True where the mark's letters are."""

    kind: str
    text: str
    opacity: float
    image: Image.Image
    ink: np.ndarray


def pictures(photographs: int = 30, drawings: int = 30, seed: int = 0) -> Iterator[tuple[str, Image.Image]]:
    """Yield named clean pictures with sides of about 400 to 768 pixels."""
    for name, part in PHOTOGRAPHS[:photographs]:
        yield f"{name}{'' if part[2] - part[0] == 1 else '-part'}", photograph(name, part)
    rng = random.Random(seed)
    for index in range(drawings):
        yield f"drawing-{index}", world.draw(world.sample(rng), 512, seed * 1000 + index)


def photograph(name: str, part: tuple[float, float, float, float] = (0, 0, 1, 1)) -> Image.Image:
    """Return a part of a photograph, RGB, its longer side 512 to 768 pixels."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    if name in ("china", "flower"):
        pixels = load_sample_images().images[name == "flower"]
    else:
        pixels = getattr(data, name)()
        pixels = pixels[0] if isinstance(pixels, tuple) else pixels
    image = Image.fromarray(pixels).convert("RGB")
    corners = [round(share * side) for share, side in zip(part, image.size * 2, strict=True)]
    image = image.crop((corners[0], corners[1], corners[2], corners[3]))
    side = max(512, min(768, max(image.size)))
    size = [round(length * side / max(image.size)) for length in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def marked(image: Image.Image, kind: str, seed: int) -> Marked:
    """Draw a mark of that kind; the seed chooses words, place, colour, size and opacity."""
    rng = random.Random(f"{kind}-{seed}")
    return _DRAW[kind](image, rng)


def _url(image: Image.Image, rng: random.Random) -> Marked:
    """An address, opaque and straight, near a corner or in the middle of the lower or upper edge."""
    text = rng.choice(URLS).format(rng.choice(NAMES).lower())
    stamp = _letters(text, round(min(image.size) * rng.uniform(0.032, 0.055)))
    return _blend(image, "url", text, stamp, _near_edge(image, stamp, rng, 0.03), 1.0, rng)


def _signature(image: Image.Image, rng: random.Random) -> Marked:
    """A name, opaque, slanted and tilted like handwriting, in the lower or upper third near a side, with a stroke under it."""
    text = rng.choice(NAMES) + rng.choice(("", " 24", ".", " '23"))
    stamp = _letters(text, round(min(image.size) * rng.uniform(0.045, 0.075)))
    ImageDraw.Draw(stamp).line((2, stamp.height - 3, round(stamp.width * 0.8), stamp.height - 5), fill=255, width=2)
    slant = rng.uniform(0.1, 0.35)
    wide = round(stamp.width + slant * stamp.height)
    stamp = stamp.transform((wide, stamp.height), Image.Transform.AFFINE, (1, slant, -slant * stamp.height, 0, 1, 0), Image.Resampling.BICUBIC)
    stamp = stamp.rotate(rng.uniform(-4, 12), Image.Resampling.BICUBIC, expand=True)
    return _blend(image, "signature", text, stamp, _near_edge(image, stamp, rng, 0.06), 1.0, rng)


def _watermark(image: Image.Image, rng: random.Random) -> Marked:
    """A word over the middle at 20 to 40 % opacity, straight or tilted, once or in rows."""
    text, opacity = rng.choice(WORDS).format(rng.choice(NAMES)), rng.uniform(0.2, 0.4)
    rows = rng.random() < 0.3
    share = rng.uniform(0.35, 0.45) if rows else rng.uniform(0.5, 0.85)
    size = round(min(share * image.width / _letters(text, 100).width * 100, 0.2 * image.height))
    stamp = _letters(text, size)
    if rows:
        sheet = Image.new("L", (image.width, image.height))
        for row in range(3):
            for x in range(2):
                sheet.paste(stamp, (round(image.width * (0.05 + x * 0.5)), round(image.height * (0.15 + row * 0.3))))
        stamp = sheet
    stamp = stamp.rotate(rng.choice((0, 0, 15, -20, 30)), Image.Resampling.BICUBIC, expand=not rows)
    stamp.thumbnail((image.width, image.height))
    place = ((image.width - stamp.width) // 2, round((image.height - stamp.height) * (0.5 if rows else rng.uniform(0.3, 0.7))))
    return _blend(image, "watermark", text, stamp, place, opacity, rng)


_DRAW = {"url": _url, "signature": _signature, "watermark": _watermark}


def _letters(text: str, size: int) -> Image.Image:
    """Draw text as a mask (L) in Pillow's own font, which is the same on every machine."""
    font = ImageFont.load_default(max(size, 12))
    left, top, right, bottom = font.getbbox(text)
    stamp = Image.new("L", (round(right - left) + 4, round(bottom - top) + 6))
    ImageDraw.Draw(stamp).text((2 - left, 2 - top), text, fill=255, font=font)
    return stamp


def _near_edge(image: Image.Image, stamp: Image.Image, rng: random.Random, depth: float) -> tuple[int, int]:
    """Place a stamp up to `depth` of the picture from an edge: at the left, middle or right, twice as often below as above."""
    room_x, room_y = max(image.width - stamp.width, 0), max(image.height - stamp.height, 0)
    inset = round(rng.uniform(0.01, depth) * min(image.size))
    x = rng.choice((min(inset, room_x), room_x // 2, max(room_x - inset, 0)))
    return x, rng.choice((min(inset, room_y), max(room_y - inset, 0), max(room_y - inset, 0)))


def _blend(image: Image.Image, kind: str, text: str, stamp: Image.Image, place: tuple[int, int], opacity: float, rng: random.Random) -> Marked:
    """Lay a stamp over the picture, black or white, whichever differs more from what is under it, or now and then a colour."""
    sheet = Image.new("L", image.size)
    sheet.paste(stamp, place)
    cover = np.asarray(sheet, dtype=np.float64)[..., None] / 255
    pixels = np.asarray(image, dtype=np.float64)
    under = float((pixels.mean(axis=2, keepdims=True) * cover).sum() / max(cover.sum(), 1))
    colour = np.array((255, 255, 255) if under < 128 else (0, 0, 0), dtype=np.float64)
    if kind != "watermark" and rng.random() < 0.3:
        colour = np.array((250, 230, 90) if under < 128 else (120, 20, 60), dtype=np.float64)
    mixed = pixels + (colour - pixels) * cover * opacity
    return Marked(kind, text, opacity, Image.fromarray(np.rint(mixed).astype(np.uint8)), cover[..., 0] > 0.5)
