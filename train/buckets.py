"""Aspect-ratio buckets: which size a picture is trained at, by the rule of sd-scripts, so that users' numbers agree."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property

from prep.options import UserError

Size = tuple[int, int]  # width, height in pixels


@dataclass(frozen=True)
class Fit:
    """How a picture gets into its bucket: scaled to `resized`, which covers the bucket, then cropped."""

    bucket: Size
    resized: Size
    ar_error: float  # aspect ratio of the bucket less that of the picture
    place: tuple[int, int] | None = None  # left and top of the crop; None is around the centre

    @property
    def slack(self) -> tuple[int, int]:
        """How many pixels of the resized picture are cut off, across and down."""
        return self.resized[0] - self.bucket[0], self.resized[1] - self.bucket[1]

    @property
    def crop(self) -> tuple[int, int, int, int]:
        """The corners x0, y0, x1, y1 of the bucket in the resized picture."""
        left, top = self.place or (self.slack[0] // 2, self.slack[1] // 2)
        return left, top, left + self.bucket[0], top + self.bucket[1]

    def at(self, left: int, top: int) -> Fit:
        """Return the same fit with another crop."""
        return dataclasses.replace(self, place=(left, top))


@dataclass(frozen=True)
class BucketRule:
    """The sizes that share the area of `resolution`, sides in steps between a shortest and a longest."""

    resolution: Size
    min_reso: int = 256
    max_reso: int = 1024
    step: int = 64
    no_upscale: bool = False
    enabled: bool = True  # False: every picture is cropped to `resolution`

    @cached_property
    def sizes(self) -> list[Size]:
        """List the predefined buckets, sorted; raises UserError if the limits leave none."""
        if not self.enabled:
            return [self.resolution]
        area, step = math.prod(self.resolution), self.step
        # A base of small pictures (64 px) must not be made to train at the shortest side of a large one.
        shortest = min(self.min_reso, *self.resolution) // step * step
        longest = math.ceil(self.max_reso / step) * step
        if shortest < step:
            raise UserError(f"resolution {min(self.resolution)} and bucket_reso_steps {step} leave no bucket; lower bucket_reso_steps")
        side = int(math.sqrt(area)) // step * step
        found = {(side, side)}
        for width in range(shortest, longest + 1, step):
            height = min(longest, area // width // step * step)
            if height >= shortest:
                found |= {(width, height), (height, width)}
        return sorted(found)

    def fit(self, width: int, height: int) -> Fit:
        """Choose the bucket of a picture of this size."""
        return self._fit_without_upscale(width, height) if self.enabled and self.no_upscale else self._fit_predefined(width, height)

    def _fit_predefined(self, width: int, height: int) -> Fit:
        ratio = width / height
        exact = (width, height) in self.sizes
        bucket = (width, height) if exact else min(self.sizes, key=lambda size: abs(size[0] / size[1] - ratio))
        return Fit(bucket, _cover(width, height, bucket), bucket[0] / bucket[1] - ratio)

    def _fit_without_upscale(self, width: int, height: int) -> Fit:
        """Shrink what is over the area, to a size near a multiple of the step; what is under it keeps its size and is only cropped."""
        ratio, step = width / height, self.step
        resized = (width, height)
        if width * height > math.prod(self.resolution):
            ideal = math.sqrt(math.prod(self.resolution) * ratio)
            by_width, by_height = _round(ideal) // step * step, _round(ideal / ratio) // step * step
            candidates = (_round(by_height * ratio), by_height), (by_width, _round(by_width / ratio))
            resized = min(candidates, key=lambda size: abs(_ratio(self._floor(size)) - ratio))
        bucket = self._floor(resized)
        if resized[0] < bucket[0] or resized[1] < bucket[1]:
            resized = _cover(width, height, bucket)
        return Fit(bucket, resized, _ratio(bucket) - ratio)

    def _floor(self, size: Size) -> Size:
        """Round both sides down to the step, but never to nothing: a thinner picture is enlarged to one step after all."""
        return max(self.step, size[0] // self.step * self.step), max(self.step, size[1] // self.step * self.step)


def _ratio(size: Size) -> float:
    return size[0] / size[1]


def _round(value: float) -> int:
    return int(value + 0.5)


def _cover(width: int, height: int, bucket: Size) -> Size:
    """Scale a size so that it just covers the bucket."""
    scale = bucket[1] / height if width / height > bucket[0] / bucket[1] else bucket[0] / width
    return max(bucket[0], _round(width * scale)), max(bucket[1], _round(height * scale))
