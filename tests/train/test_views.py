"""Views: crops lie within the picture, colours turn a little, and the same pixels always have the same ones."""

import colorsys
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from train.buckets import BucketRule
from train.config import DataConfig
from train.views import GAMMA, HUE, View, bucket_pixels, count_views, recoloured, view

ALL = DataConfig(random_crop=True, color_aug=True, augment_variants=5)
sides = st.integers(20, 3000)


@given(sides, sides, st.text("abc", max_size=4), st.integers(0, 9))
def test_crops_stay_inside_and_colours_in_their_range(width: int, height: int, digest: str, number: int) -> None:
    fit = BucketRule((512, 512)).fit(width, height)
    shown = view(fit, ALL, digest, number)
    left, top, right, bottom = shown.fit.crop
    assert min(left, top) >= 0 and right <= fit.resized[0] and bottom <= fit.resized[1]
    assert (right - left, bottom - top) == fit.bucket
    assert abs(shown.hue) <= HUE and abs(shown.gamma - 1) <= GAMMA
    assert shown == view(fit, ALL, digest, number)
    assert view(fit, DataConfig(), digest, number) == View(fit), "nothing is on"


def test_views_differ_and_the_first_keeps_its_colours() -> None:
    fit = BucketRule((512, 512)).fit(1000, 700)
    views = [view(fit, ALL, "abc", number) for number in range(5)]
    assert len({shown.fit.crop for shown in views}) > 2 and len({shown.hue for shown in views}) == 5
    assert (views[0].hue, views[0].gamma) == (0.0, 1.0)
    without = dataclasses.replace(ALL, color_aug=False)
    assert [view(fit, without, "abc", number).fit for number in range(5)] == [shown.fit for shown in views], "colours do not move the crop"


def test_a_picture_that_cannot_vary_has_one_view() -> None:
    wide, exact = BucketRule((512, 512)).fit(1000, 700), BucketRule((512, 512)).fit(512, 512)
    crops = DataConfig(random_crop=True, augment_variants=5)
    assert [count_views(wide, crops), count_views(exact, crops), count_views(exact, ALL), count_views(wide, DataConfig())] == [5, 1, 5, 1]


def test_pixels_are_centred_scaled_and_mirrored() -> None:
    image = Image.new("RGB", (128, 64), (0, 0, 0))
    image.paste((255, 255, 255), (64, 0, 128, 64))
    fit = BucketRule((64, 64), enabled=False).fit(*image.size)
    pixels = bucket_pixels(image, View(fit))
    assert pixels.shape == (3, 64, 64)
    assert pixels[:, :, :28].max() == -1 and pixels[:, :, 36:].min() == 1
    assert torch.equal(bucket_pixels(image, View(fit, flip=True)), pixels.flip(2))
    assert bucket_pixels(image, View(fit.at(64, 0))).min() == 1
    assert View(fit.at(10, 0)).left_top == (10, 0) and View(fit.at(10, 0), flip=True).left_top == (54, 0)


@given(st.tuples(*[st.integers(0, 255)] * 3), st.floats(-HUE, HUE))
def test_greys_stay_grey_and_luma_stays(colour: tuple[int, int, int], hue: float) -> None:
    grey = np.full((1, 1, 3), colour[0], dtype=np.float32)
    assert np.abs(recoloured(grey, hue, 1.0) - grey).max() < 0.5
    values = 90 + np.array(colour, dtype=np.float32).reshape(1, 1, 3) * 75 / 255  # so that nothing is cut off at 0 or 255
    luma = np.array([0.213, 0.715, 0.072])
    assert (recoloured(values, hue, 1.0) @ luma).item() == pytest.approx((values @ luma).item(), abs=0.1)


def test_hue_turns_by_about_its_angle() -> None:
    red = np.array([[[200.0, 100.0, 100.0]]], dtype=np.float32)
    turned = recoloured(red, 16.0, 1.0)[0, 0] / 255
    assert colorsys.rgb_to_hsv(*map(float, turned))[0] * 360 == pytest.approx(16, abs=6)
    assert recoloured(red, 0.0, 1.05).max() < 200 < recoloured(red, 0.0, 0.95).max()
