"""The pictures of a run: each with its bucket, caption, folder and the settings that hold there."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.captions import parse, read_caption
from prep.options import UserError
from prep.tree import Folder
from train.buckets import BucketRule, Fit, Size
from train.config import DataConfig
from train.looks import Looks, opened
from train.views import View, count_views, view

if TYPE_CHECKING:
    from PIL import Image

    from train.families.sd import Model
    from train.latents import Decode


PLAIN = DataConfig()


@dataclass(frozen=True)
class Picture:
    """A picture of the tree as the run sees it; two in one bucket may share a batch."""

    path: Path
    digest: str  # of its pixels
    fit: Fit
    caption: str  # its first line; with enable_wildcard all lines
    folder: Folder
    settings: DataConfig = PLAIN  # those of its folder
    size: Size = (0, 0)  # width and height before it is scaled
    mask: str = ""  # digest of its transparency, if that is a loss mask
    thumb: str = ""  # of its colours, by which copies are found

    @property
    def bucket(self) -> Size:
        return self.fit.bucket

    @property
    def views(self) -> int:
        """How many ways there are to show it, mirrored ones not counted."""
        return count_views(self.fit, self.settings)

    @property
    def pixels(self) -> Decode:
        """Decodes it to RGB, upright."""
        return partial(_pixels, self.path, self.settings.alpha_mask)

    @property
    def transparency(self) -> Decode:
        """Decodes its transparency, L."""
        return partial(_transparency, self.path)

    def view(self, number: int, flip: bool) -> View:
        """Return one of its views."""
        return view(self.fit, self.settings, self.digest, number, flip)

    def all_views(self) -> list[View]:
        """List every view that a run may ask for."""
        flips = (False, True) if self.settings.flip_aug else (False,)
        return [self.view(number, flip) for number in range(self.views) for flip in flips]

    def conditioning_size(self, shown: View) -> tuple[int, int, int, int, int, int]:
        """Return original height and width, crop top and left in the scaled picture, bucket height and width (SDXL, section 2.2)."""
        left, top = shown.left_top
        return self.size[1], self.size[0], top, left, self.bucket[1], self.bucket[0]


def look_at(path: Path, folder: Folder, settings: DataConfig, rule: BucketRule, looks: Looks) -> Picture:
    """Read what must be known of a picture: its first line of caption, as other trainers do, or the folder's concept if it has none."""
    lines = (read_caption(path) or "").splitlines()
    caption = "\n".join(line.strip() for line in (lines if settings.enable_wildcard else lines[:1]) if line.strip())
    look = looks.of(path, settings.alpha_mask)
    size = (look.width, look.height)
    return Picture(path, look.digest, rule.fit(*size), caption if lines else folder.concept, folder, settings, size, look.mask, look.thumb)


def bucket_rule(data: DataConfig, model: Model) -> BucketRule:
    """Make the run's bucket rule: the settings, and the base model's own resolution unless one is set."""
    side = data.resolution or model.resolution
    if side % model.vae_scale:
        raise UserError(f"resolution is {side}, but this base model takes multiples of {model.vae_scale} pixels; set another resolution")
    limits = (data.min_bucket_reso, data.max_bucket_reso, data.bucket_reso_steps)
    return BucketRule((side, side), *limits, no_upscale=data.bucket_no_upscale, enabled=data.enable_bucket)


def tag_frequency(pictures: Iterable[Picture]) -> dict[str, dict[str, int]]:
    """Count each folder's tags, lower-cased, once a picture (what the web UIs list as a LoRA's words)."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for picture in pictures:
        counts[picture.folder.path.name].update(tag.lower() for tag in parse(picture.caption))
    return {name: dict(counter.most_common()) for name, counter in sorted(counts.items())}


def folder_counts(pictures: Iterable[Picture]) -> dict[str, dict[str, Any]]:
    """Count the pictures of each folder, with its repeats."""
    folders = {picture.folder.path: picture.folder for picture in pictures}
    return {folder.path.name: {"n_repeats": folder.repeats, "img_count": len(folder.pictures)} for folder in folders.values()}


def _pixels(path: Path, alpha_mask: bool) -> Image.Image:
    return opened(path, alpha_mask).image


def _transparency(path: Path) -> Image.Image:
    alpha = opened(path, True).alpha
    if alpha is None:
        raise UserError(f"{path} has changed while it was trained on; run again")
    return alpha
