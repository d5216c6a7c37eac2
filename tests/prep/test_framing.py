"""Framing: whatever the picture, a crop is inside what may be used, cuts no face, and loses as little as it can."""

from __future__ import annotations

import math

from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from prep.boxes import area, common, holds
from prep.framing import MODES, Scene, bucketed, square, strict_square
from prep.item import Box
from prep.stages import cuts
from tests.prep.test_crop import speckled
from train.buckets import BucketRule


@st.composite
def scenes(draw: st.DrawFn, faces: int = 3) -> Scene:
    """Draw a picture with faces anywhere in the part that may be used, the margin, and the resolution of the training."""
    width, height = draw(st.integers(8, 300)), draw(st.integers(8, 300))
    image = speckled(width, height, (0, 0, min(width, 40), min(height, 40)))
    left, top = draw(st.integers(0, width // 3)), draw(st.integers(0, height // 3))
    within = left, top, width - draw(st.integers(0, width // 3)), height - draw(st.integers(0, height // 3))
    boxes = []
    for score in range(draw(st.integers(0, faces))):
        x0, y0 = draw(st.integers(within[0], within[2] - 1)), draw(st.integers(within[1], within[3] - 1))
        x1, y1 = draw(st.integers(x0 + 1, within[2])), draw(st.integers(y0 + 1, within[3]))
        boxes.append(Box("face", 0.9 - score / 10, x0, y0, x1, y1))
    return Scene(image, boxes, draw(st.floats(0, 3)), within, draw(st.sampled_from([256, 512, 768, 1024])))


@given(scene=scenes(), mode=st.sampled_from(sorted(MODES)))
def test_no_mode_leaves_the_part_that_may_be_used_or_cuts_a_face(scene: Scene, mode: str) -> None:
    crop = MODES[mode](scene)
    assert holds(scene.area, crop) and crop[0] < crop[2] and crop[1] < crop[3]
    for index, face in enumerate(scene.faces):
        assert holds(crop, face) or (index > 0 and area(common(crop, face)) == 0)


@given(scene=scenes(), names=st.sampled_from([["half"], ["head"], ["half", "head"]]))
def test_no_stage_cuts_a_face(scene: Scene, names: list[str]) -> None:
    for name, place in cuts(scene, names, 64.0).items():
        assert name in names and holds(scene.area, place) and holds(place, scene.faces[0])
        assert all(holds(place, face) or area(common(place, face)) == 0 for face in scene.faces)


@given(scene=scenes(faces=1))
def test_a_square_is_as_large_as_the_picture_allows(scene: Scene) -> None:
    side = min(scene.size)
    assume(all(max(face[2] - face[0], face[3] - face[1]) <= side for face in scene.faces))
    crop = square(scene)
    assert crop[2] - crop[0] == crop[3] - crop[1] == side


@given(scene=scenes(faces=0))
def test_no_other_bucket_would_lose_less(scene: Scene) -> None:
    width, height = scene.size
    crop = bucketed(scene)
    assert holds(scene.area, crop)
    rule = BucketRule((scene.resolution, scene.resolution))
    kept = [min(width / height / (w / h), w / h / (width / height)) for w, h in rule.sizes]
    share = area(crop) / (width * height)
    rounding = 1 / min(crop[2] - crop[0], crop[3] - crop[1])  # sides are whole pixels
    assert abs(share - max(kept)) <= rounding
    best = [size for size, part in zip(rule.sizes, kept, strict=True) if part >= max(kept) - rounding]
    ratio = (crop[2] - crop[0]) / (crop[3] - crop[1])
    assert any(abs(math.log(ratio / (w / h))) <= 2 * rounding for w, h in best)


def test_the_trainer_itself_cuts_nothing_off_a_bucket_crop() -> None:
    rule = BucketRule((512, 512))
    for size in ((1000, 700), (700, 1000), (1920, 1080), (800, 800), (640, 480), (1111, 2000)):
        crop = bucketed(Scene(speckled(*size, (10, 10, 60, 60))))
        width, height = crop[2] - crop[0], crop[3] - crop[1]
        fit = rule.fit(width, height)
        assert abs(fit.ar_error) < 0.003 and max(r - b for r, b in zip(fit.resized, fit.bucket, strict=True)) <= 1


def test_a_bucket_that_would_cut_the_face_is_not_taken() -> None:
    tall = speckled(300, 1000, (0, 0, 40, 40))
    for face in ((0, 0, 300, 60), (0, 940, 300, 1000), (0, 0, 300, 1000)):
        assert holds(bucketed(Scene(tall, [Box("face", 0.9, *face)], 0)), face)


def test_a_second_face_is_all_in_or_all_out() -> None:
    boxes = [Box("face", 0.9, 20, 20, 90, 90), Box("face", 0.8, 150, 20, 230, 100)]
    crop = square(Scene(speckled(600, 200, (150, 0, 240, 200)), boxes, 0))
    assert holds(crop, (20, 20, 90, 90)) and (crop[2] >= 230 or crop[2] <= 150)


def test_a_trainer_that_takes_only_squares_gets_one_even_of_a_face_that_is_too_wide() -> None:
    face = Box("face", 0.9, 100, 0, 400, 100)
    assert square(Scene(Image.new("RGB", (500, 100)), [face])) == (0, 0, 500, 100)
    assert strict_square(Image.new("RGB", (500, 100)), [face], 0.4) == (200, 0, 300, 100)
