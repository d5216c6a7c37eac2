"""Copies: what was done to a copy is told apart from what was drawn anew."""

from __future__ import annotations

import io
import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from pipelines.pocket import world
from prep.copies import Relation, View, relation, whole
from prep.similar import borders

PERSON = replace(world.DEMO_CHARACTER, shirt="red", background="blue", mouth="smile")


def jpeg(image: Image.Image, quality: int = 75) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def drawing(person: world.Character = PERSON) -> Image.Image:
    return world.draw(person, 384, 4)


def photograph() -> Image.Image:
    return Image.fromarray(pytest.importorskip("skimage.data").coffee())


def related(a: Image.Image, b: Image.Image, mirrored: bool = False) -> Relation | None:
    return relation(whole(a), View(b, (0, 0, *b.size), mirrored))


def text(image: Image.Image) -> Image.Image:
    image = image.copy()
    ImageDraw.Draw(image).text((image.width // 2, image.height - 24), "www.example-art.com", "white", ImageFont.load_default(15))
    return image


def scribble(image: Image.Image) -> Image.Image:
    image = image.copy()
    points = [(12 + 1.2 * step, image.height - 20 + 9 * np.sin(step * step / 90)) for step in range(60)]
    ImageDraw.Draw(image).line(points, (20, 20, 20), 2)
    return image


def watermark(image: Image.Image) -> Image.Image:
    layer = Image.new("L", image.size)
    ImageDraw.Draw(layer).text((image.width // 6, image.height // 2), "SAMPLE", 100, ImageFont.load_default(image.width // 6))
    return Image.composite(Image.new("RGB", image.size, "white"), image, layer)


def turned(image: Image.Image) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    return Image.merge("HSV", (hue.point([(level + 70) % 256 for level in range(256)]), saturation, value)).convert("RGB")


COPIES = {
    "plain": (lambda image: image, Relation()),
    "text": (text, Relation(marked=2)),
    "scribble": (scribble, Relation(marked=2)),
    "watermark": (watermark, Relation(marked=2)),
    "grey": (lambda image: image.convert("L").convert("RGB"), Relation(grey=2)),
    "dark": (lambda image: ImageEnhance.Brightness(image).enhance(0.7), Relation(recoloured=True)),
    "hue": (turned, Relation(recoloured=True)),
    "dark text": (lambda image: ImageEnhance.Brightness(text(image)).enhance(0.7), Relation(recoloured=True, marked=2)),
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("original", [drawing, photograph])
def test_what_was_done_to_a_copy_is_told(name: str, original: object) -> None:
    change, expected = COPIES[name]
    image = original()  # type: ignore[operator]
    copy = jpeg(change(image))
    assert related(image, copy) == expected
    assert related(copy, image) in (expected.turned(), replace(expected.turned(), sure=False))  # colours cannot always be undone
    assert related(image, ImageOps.mirror(copy), mirrored=True) == replace(expected, mirrored=True)


def test_a_border_is_on_the_copy() -> None:
    image = photograph()
    framed = jpeg(ImageOps.expand(image, (30, 20), "black").resize((500, 333), Image.Resampling.LANCZOS))
    inside = View(framed, borders(framed)[1])
    assert relation(whole(image), inside) == Relation(bordered=2)
    assert relation(inside, whole(image)) == Relation(bordered=1)


def test_moved_on_plain_ground_is_another_picture() -> None:
    subject = photograph().resize((300, 200))
    placed = [Image.new("RGB", (400, 300), "white") for _ in range(2)]
    for canvas, corner in zip(placed, ((50, 50), (70, 40)), strict=True):
        canvas.paste(subject, corner)
    assert relation(*(View(canvas, borders(canvas)[1]) for canvas in placed)) is None


REDRAWN = {
    "mouths": [replace(PERSON, mouth=mouth) for mouth in world.MOUTHS[1:]],
    "eyes": [replace(PERSON, eyes=eyes) for eyes in ("", "blue", "red")],
    "face": [replace(PERSON, blush=True), replace(PERSON, marks=()), replace(PERSON, eyewear="glasses"), replace(PERSON, eyewear="eyepatch")],
    "clothes": [
        replace(PERSON, shirt="blue"),
        replace(PERSON, neckwear="necktie"),
        replace(PERSON, neckwear="bowtie"),
        replace(PERSON, headwear="crown"),
    ],
    "hair": [replace(PERSON, hair="pink"), replace(PERSON, flower=True)],
    "background": [replace(PERSON, background=background) for background in ("pink", "white", "grey")],
}


@pytest.mark.parametrize("part", REDRAWN)
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_part_drawn_anew_is_never_surely_a_copy(part: str, mirrored: bool) -> None:
    for other in REDRAWN[part]:
        image = jpeg(drawing(other), 80)
        found = related(drawing(), ImageOps.mirror(image) if mirrored else image, mirrored)
        assert found is None or not found.sure, other


def test_an_eyebrow_in_another_place_is_another_drawing() -> None:
    images = [drawing() for _ in range(2)]
    for image, y in zip(images, (150, 158), strict=True):
        ImageDraw.Draw(image).line((140, y, 175, y - 6), (40, 30, 40), 5)
    assert related(*images) is None
    signed = scribble(images[1])
    assert related(images[0], signed) is None  # and a signature does not hide that


def test_one_colour_on_grey_is_not_surely_a_turned_hue() -> None:
    rng = random.Random(0)
    grey = drawing().convert("L").convert("RGB")
    pictures = []
    for colour in ((200, 60, 60), (60, 200, 60)):
        image = grey.copy()
        ImageDraw.Draw(image).rectangle((0, 0, 384, 150), fill=colour)
        pictures.append(jpeg(image, rng.randint(80, 95)))
    found = related(*pictures)
    assert found is None or not found.sure
