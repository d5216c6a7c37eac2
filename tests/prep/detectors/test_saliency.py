"""Saliency: the subject is cut out where it is, and where nothing stands out nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipelines.pocket.world import Character, draw
from prep.detectors import detector


def test_a_drawing_is_cut_out_of_its_background() -> None:
    image = draw(Character(hair="red", style="short_hair"), 256, 3)
    mask = np.asarray(detector("saliency", "cpu").cutout(image))  # type: ignore[attr-defined]
    assert mask.shape == (256, 256)
    assert mask[100:150, 100:150].mean() > 230  # the face
    assert mask[:20, :20].mean() < 25 and mask[:20, -20:].mean() < 25  # the corners above it
    (box,) = detector("saliency", "cpu")([image])[0]
    assert box.label == "subject" and box.score > 0.9 and box.x0 < 100 < 150 < box.x1


def test_a_photograph_of_one_thing_has_its_box() -> None:
    cup = Image.fromarray(pytest.importorskip("skimage.data").coffee())
    (box,) = detector("saliency", "cpu")([cup])[0]
    truth = (76, 18, 480, 391)  # cup, saucer and spoon, by eye in the picture of 600 x 400
    assert max(abs(a - b) for a, b in zip((box.x0, box.y0, box.x1, box.y1), truth, strict=True)) < 25


def test_nothing_stands_out_where_there_is_nothing() -> None:
    find = detector("saliency", "cpu")
    gradient = Image.linear_gradient("L").convert("RGB")
    for image in (Image.new("RGB", (90, 60), "gray"), gradient):
        assert find.cutout(image).getextrema() == (0, 0)  # type: ignore[attr-defined]
        assert find([image]) == [[]]


def test_the_box_is_where_the_blob_is() -> None:
    image = Image.new("RGB", (400, 200), (220, 225, 230))
    ImageDraw.Draw(image).ellipse((250, 50, 350, 150), fill=(200, 30, 30))
    (box,) = detector("saliency", "cpu")([image])[0]
    assert max(abs(a - b) for a, b in zip((box.x0, box.y0, box.x1, box.y1), (250, 50, 350, 150), strict=True)) < 12
