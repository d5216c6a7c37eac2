"""Quality: each fault is found, sound photographs and flat drawings have none, borders come off to the pixel and backgrounds stay."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from pipelines.pocket import world
from prep.item import Box
from prep.quality import LIMITS, content_box, faults, measure

NAMES = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field")
DEFAULTS = {row.option: row.default for row in LIMITS}


@cache
def photographs() -> dict[str, Image.Image]:
    data = pytest.importorskip("skimage.data")
    samples = pytest.importorskip("sklearn.datasets").load_sample_images().images
    found = {name: Image.fromarray(getattr(data, name)()) for name in NAMES}
    return found | {name: Image.fromarray(pixels) for name, pixels in zip(("china", "flower"), samples, strict=True)}


@cache
def drawings(count: int) -> list[Image.Image]:
    rng = random.Random(11)
    return [world.draw(world.sample(rng, index % 3 == 0), rng.choice((256, 320)), index) for index in range(count)]


def jpeg(image: Image.Image, quality: int, subsampling: int = 2) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return Image.open(buffer).convert("RGB")


def blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(min(image.size) / 100))


def exposed(image: Image.Image, stops: float) -> Image.Image:
    """Change the exposure as a camera would: in linear light (sRGB, IEC 61966-2-1)."""
    shade = np.arange(256) / 255
    light = np.clip(np.where(shade <= 0.04045, shade / 12.92, ((shade + 0.055) / 1.055) ** 2.4) * 2.0**stops, 0, 1)
    table = np.rint(255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)).astype(np.uint8)
    return Image.fromarray(table[np.asarray(image)])


def reason(image: Image.Image) -> str:
    fault = faults(measure(image), DEFAULTS)
    return fault[0] if fault else ""


@pytest.mark.parametrize("quality", [0, 60, 85])
def test_sound_pictures_have_no_fault(quality: int) -> None:
    sound = {**photographs(), **{f"drawing {index}": image for index, image in enumerate(drawings(40))}}
    found = {name: faults(measure(jpeg(image, quality) if quality else image), DEFAULTS) for name, image in sound.items()}
    assert {name: fault for name, fault in found.items() if fault} == {}


@pytest.mark.parametrize(
    ("spoil", "expected", "names"),
    [
        (blurred, "blurred", (*NAMES, "china", "flower")),
        (lambda image: exposed(image, -3), "underexposed", (*NAMES, "china", "flower")),
        (lambda image: exposed(image, 3), "overexposed", ("astronaut", "chelsea", "china")),  # the others stay mostly dark
        (lambda image: jpeg(image, 10), "blocky", (*NAMES, "china", "flower")),
    ],
)
def test_a_fault_is_found(spoil: Callable[[Image.Image], Image.Image], expected: str, names: tuple[str, ...]) -> None:
    assert {name: reason(spoil(photographs()[name])) for name in names} == dict.fromkeys(names, expected)


def test_faults_of_drawings_are_found() -> None:
    for image in drawings(40)[:12]:
        assert reason(blurred(image)) == "blurred"
        assert reason(jpeg(image, 10)) == "blocky"
        assert reason(exposed(image, -3)) == "underexposed"


def test_blur_does_not_depend_on_the_size() -> None:
    for name in ("astronaut", "china", "flower"):
        image = photographs()[name]
        values = [measure(image.resize((round(image.width * by), round(image.height * by)), Image.Resampling.LANCZOS))["blur"] for by in (0.5, 1, 2)]
        assert max(values) <= 1.15 * min(values)


def test_blur_is_measured_inside_the_best_box() -> None:
    image = photographs()["astronaut"]
    spoilt = blurred(image)
    spoilt.paste(image.crop((150, 50, 310, 210)), (150, 50))
    sharp, soft = Box("face", 0.9, 160, 60, 300, 200), Box("face", 0.6, 300, 300, 500, 500)
    assert measure(spoilt, [soft, sharp])["blur"] < 0.5
    assert measure(spoilt, [Box("face", 0.9, 300, 300, 500, 500)])["blur"] > 0.7
    assert measure(spoilt, [Box("face", 0.9, 0, 0, 3, 3)]) == measure(spoilt)  # too small to be judged by itself


@pytest.mark.parametrize(("quality", "least", "most"), [(30, 1.5, 2.0), (10, 4.5, 6.0)])
def test_blockiness_is_the_coarseness_of_jpeg_wherever_the_grid_lies(quality: int, least: float, most: float) -> None:
    image = photographs()["chelsea"]
    coarse = jpeg(image, quality)
    for changed in (coarse, coarse.crop((5, 3, 440, 290)), coarse.transpose(Image.Transpose.ROTATE_90), jpeg(coarse, 90)):
        assert least < measure(changed)["blockiness"] < most
    assert measure(image)["blockiness"] == measure(jpeg(image, 95))["blockiness"] == 0


def test_empty_and_grey_pictures() -> None:
    noise = np.random.default_rng(0).normal(0, 6, (400, 500, 1))
    grainy = Image.fromarray(np.clip(np.array((90, 120, 30)) + noise, 0, 255).astype(np.uint8))
    assert reason(grainy) == reason(Image.new("RGB", (300, 300), "red")) == "empty"
    grey = photographs()["astronaut"].convert("L").convert("RGB")
    assert reason(grey) == ""
    asked = faults(measure(grey), {"min_chroma": 10})
    assert asked and asked[0] == "monochrome"
    assert faults(measure(photographs()["astronaut"]), {"min_chroma": 10}) is None


def test_every_limit_can_be_off_and_says_its_numbers() -> None:
    values = {
        "side": 96.0,
        "megapixels": 0.01,
        "contrast": 0.0,
        "blur": 2.0,
        "overexposed": 0.9,
        "underexposed": 1.0,
        "blockiness": 9.0,
        "chroma": 0.0,
    }
    assert faults(values, dict.fromkeys(DEFAULTS)) is faults(values, dict.fromkeys(DEFAULTS, 0.0)) is faults(values, {}) is None
    assert faults(values, DEFAULTS) == ("too_small", "the shorter side has 96 pixels, it should have 200")
    for row in LIMITS:
        limit = 0.5 if row.above else 100.0
        fault = faults(values, {row.option: limit})
        assert fault and fault[0] == row.reason and "{" not in fault[1] and any(sign.isdigit() for sign in fault[1])


@pytest.mark.parametrize("size", [(1, 1), (1000, 1), (1, 1000), (3, 700), (9, 9), (24, 24)])
def test_pictures_of_any_shape_are_measured(size: tuple[int, int]) -> None:
    for colour in ("black", "white", "teal"):
        values = measure(Image.new("RGB", size, colour))
        assert all(np.isfinite(value) for value in values.values()) and values["blur"] == 0
        assert content_box(Image.new("RGB", size, colour)) == (0, 0, *size)


def bordered(image: Image.Image, widths: tuple[int, int, int, int], colour: tuple[int, ...]) -> tuple[Image.Image, tuple[int, int, int, int]]:
    left, top, right, bottom = widths
    framed = Image.new("RGB", (image.width + left + right, image.height + top + bottom), colour)
    framed.paste(image, (left, top))
    return framed, (left, top, left + image.width, top + image.height)


width = st.integers(2, 60)
colours = st.tuples(*[st.integers(0, 255)] * 3)


@settings(max_examples=60)
@given(name=st.sampled_from(("chelsea", "coffee", "china", "flower")), widths=st.tuples(width, width, width, width), colour=colours)
def test_a_border_of_any_colour_and_width_comes_off_to_the_pixel(name: str, widths: tuple[int, int, int, int], colour: tuple[int, int, int]) -> None:
    framed, inside = bordered(photographs()[name], widths, colour)
    assert content_box(framed) == inside


@settings(max_examples=40)
@given(upright=st.booleans(), first=width, second=width, colour=colours)
def test_letterboxes_come_off_to_the_pixel(upright: bool, first: int, second: int, colour: tuple[int, int, int]) -> None:
    framed, inside = bordered(photographs()["coffee"], (0, first, 0, second) if upright else (first, 0, second, 0), colour)
    assert content_box(framed) == inside


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("quality", [80, 92])
def test_borders_of_a_jpeg_come_off_within_a_pixel(quality: int, subsampling: int) -> None:
    for name, colour in (("chelsea", (0, 0, 0)), ("china", (255, 255, 255)), ("coffee", (20, 60, 200)), ("flower", (230, 230, 210))):
        framed, inside = bordered(photographs()[name], (19, 33, 41, 18), colour)
        assert np.abs(np.subtract(content_box(jpeg(framed, quality, subsampling)), inside)).max() <= 1


def test_borders_on_one_side_and_around_borders() -> None:
    image = photographs()["coffee"]
    assert content_box(bordered(image, (0, 0, 0, 60), (0, 0, 0))[0]) == (0, 0, 600, 400)
    narrow = bordered(image, (0, 0, 0, 8), (0, 0, 0))[0]
    assert content_box(narrow) == (0, 0, *narrow.size)  # may be the picture's own
    black = bordered(image, (30, 30, 30, 30), (0, 0, 0))[0]
    assert content_box(bordered(black, (12, 20, 12, 20), (255, 255, 255))[0]) == (42, 50, 642, 450)


def test_pictures_without_borders_keep_their_backgrounds() -> None:
    for image in (*photographs().values(), *drawings(60)):
        assert content_box(image) == content_box(jpeg(image, 85)) == (0, 0, *image.size)


def test_a_border_around_a_drawing_comes_off_but_not_its_background() -> None:
    for image in drawings(40)[:12]:
        framed, inside = bordered(image, (20, 20, 20, 20), (7, 90, 70))
        assert content_box(framed) == inside
