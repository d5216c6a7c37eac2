"""Buckets against the golden cases of sd-scripts, and what must hold for any picture."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.options import UserError
from train.buckets import BucketRule

CASES = json.loads(gzip.decompress((Path(__file__).parent / "data" / "buckets.json.gz").read_bytes()))["cases"]
sides = st.integers(1, 5000)


def rule_of(case: dict) -> BucketRule:
    limits = (case[key] for key in ("min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale"))
    return BucketRule(tuple(case["max_resolution"]), *limits)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['max_resolution']}-{case['bucket_reso_steps']}-{case['bucket_no_upscale']}")
def test_agrees_with_the_golden_cases(case: dict) -> None:
    rule = rule_of(case)
    if case["buckets"]:
        assert rule.sizes == [tuple(size) for size in case["buckets"]]
    for golden in case["selected"]:
        fit = rule.fit(*golden["image"])
        assert (fit.bucket, fit.resized) == (tuple(golden["bucket"]), tuple(golden["resized"])), golden["image"]
        assert fit.ar_error == pytest.approx(golden["ar_error"], abs=1e-6)


@pytest.mark.parametrize(
    ("resolution", "limits", "count"),
    [(512, (256, 1024, 64), 17), (768, (256, 1024, 64), 19), (1024, (512, 2048, 64), 33), (1024, (256, 2048, 32), 81)],
)
def test_number_of_buckets(resolution: int, limits: tuple[int, int, int], count: int) -> None:
    assert len(BucketRule((resolution, resolution), *limits).sizes) == count


@given(sides, sides, st.sampled_from([64, 512, 768, 1024]), st.booleans())
def test_every_picture_fits(width: int, height: int, resolution: int, no_upscale: bool) -> None:
    rule = BucketRule((resolution, resolution), no_upscale=no_upscale)
    fit = rule.fit(width, height)
    assert all(side >= 64 and side % 64 == 0 for side in fit.bucket)
    x0, y0, x1, y1 = fit.crop
    assert 0 <= x0 < x1 <= fit.resized[0] and 0 <= y0 < y1 <= fit.resized[1]
    assert (x1 - x0, y1 - y0) == fit.bucket
    if not no_upscale:
        assert fit.bucket in rule.sizes


def test_small_base_is_not_made_to_train_large() -> None:
    assert BucketRule((64, 64)).sizes == [(64, 64)]


def test_without_buckets_all_have_one_size() -> None:
    rule = BucketRule((512, 384), enabled=False)
    assert {rule.fit(*size).bucket for size in [(100, 900), (512, 384), (3000, 20)]} == {(512, 384)}


def test_step_over_resolution_is_a_users_mistake() -> None:
    with pytest.raises(UserError, match="bucket_reso_steps"):
        BucketRule((48, 48), step=64).fit(48, 48)


@given(sides, sides, st.sampled_from([64, 512]), st.booleans())
def test_any_crop_of_the_slack_fits(width: int, height: int, resolution: int, no_upscale: bool) -> None:
    fit = BucketRule((resolution, resolution), no_upscale=no_upscale).fit(width, height)
    across, down = fit.slack
    for corner in ((0, 0), (across, down), (across // 2, down // 2)):
        x0, y0, x1, y1 = fit.at(*corner).crop
        assert (x0, y0) == corner and (x1 - x0, y1 - y0) == fit.bucket and x1 <= fit.resized[0] and y1 <= fit.resized[1]
    assert fit.at(across // 2, down // 2).crop == fit.crop


@given(sides, sides, st.integers(2, 8).map(lambda n: 8 * n))
def test_a_bucket_of_the_right_shape_and_no_larger_area(width: int, height: int, step: int) -> None:
    rule = BucketRule((512, 512), step=step)
    fit = rule.fit(width, height)
    assert fit.bucket[0] * fit.bucket[1] <= 512 * 512 and all(side % step == 0 for side in fit.bucket)
    nearest = min(abs(w / h - width / height) for w, h in rule.sizes)
    assert (width, height) == fit.bucket or abs(fit.ar_error) == pytest.approx(nearest)
