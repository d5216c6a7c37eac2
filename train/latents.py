"""Encoded pictures and their loss masks, kept in a store: what makes their names, and how they are made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from prep.options import UserError
from train.cache import Store, Tensors, hash_modules
from train.prefetch import decoded
from train.shortage import ShortError, tried_twice
from train.views import View, bucket_mask, bucket_pixels

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from train.families.sd import Model

VERSION = 2  # raise it when `bucket_pixels`, `bucket_mask` or the stored form changes
TOO_LARGE = "lower resolution, or close what else uses the device's memory, and run again: what is encoded is kept"
Decode = Callable[[], "Image.Image"]


@dataclass(frozen=True)
class Wanted:
    """A view that is to be encoded."""

    digest: str  # the picture's pixel_hash
    view: View
    image: Decode  # decodes the picture


@dataclass(frozen=True)
class LatentCache:
    """The latents of one model's VAE, as mean and standard deviation, so that each use draws its own sample."""

    store: Store
    model: Model
    vae_hash: str

    @classmethod
    def open(cls, store: Store, model: Model) -> LatentCache:
        """Open a store for a model's latents."""
        return cls(store, model, hash_vae(model.vae))

    def facts(self, digest: str, view: View) -> tuple[Any, ...]:
        """List what latents depend on: the picture's pixels, scale, crop, mirroring and colours, the VAE, the form they are kept in."""
        return VERSION, digest, *view.facts, self.vae_hash, "float32"

    def prepare(self, wanted: Iterable[Wanted]) -> Iterator[None]:
        """Encode the views that are not there, and yield after each view; threads decode the next ones meanwhile."""
        for one, pixels in decoded(self._decoded, wanted):
            self.store.prepare(self.facts(one.digest, one.view), lambda one=one, pixels=pixels: self._encode(one.image, one.view, pixels))  # type: ignore[misc]
            yield

    def _decoded(self, one: Wanted) -> tuple[Wanted, Tensor | None]:
        """Return the pixels (3, H, W) of a view with it; None if it is encoded already."""
        return one, bucket_pixels(one.image(), one.view) if self.store.lacks(self.facts(one.digest, one.view)) else None

    def latents(self, digest: str, view: View, image: Decode) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (4, h, w) in float32 on the CPU."""
        found = self.store.get(self.facts(digest, view), lambda: self._encode(image, view), lambda kept: self._fits(kept, view, "mean", "std"))
        return found["mean"], found["std"]

    def mask(self, digest: str, view: View, alpha: Decode) -> Tensor:
        """Return the loss mask (1, h, w) of a view; `digest` is that of the transparency which `alpha` decodes."""
        scale = self.model.vae_scale
        facts = (VERSION, "mask", digest, *view.facts, scale)
        made = self.store.get(facts, lambda: {"mask": bucket_mask(alpha(), view, scale)}, lambda kept: self._fits(kept, view, "mask"))
        return made["mask"]

    def _fits(self, kept: Tensors, view: View, *names: str) -> bool:
        """Say whether kept tensors have the names, and the size of the view's bucket."""
        (width, height), scale = view.fit.bucket, self.model.vae_scale
        return kept.keys() == set(names) and all(tensor.shape[1:] == (height // scale, width // scale) for tensor in kept.values())

    def _encode(self, image: Decode, view: View, pixels: Tensor | None = None) -> Tensors:
        import torch

        pixels = bucket_pixels(image(), view) if pixels is None else pixels

        # One picture at a time: its latents must not depend on which others it shares a batch with.
        mean, std = (part[0].float().cpu().contiguous() for part in self._distribution(pixels[None]))
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all()):
            whose = f" for {image.args[0]}" if isinstance(image, partial) else ""
            raise UserError(f"the VAE of {self.model.path} gives no finite latents{whose}; give a base model with another VAE")
        return {"mean": mean, "std": std}

    def _distribution(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode pixels (1, 3, H, W), from the first that the device has no memory for on the processor; raises ShortError."""
        place = f"while a picture of {pixels.shape[3]}x{pixels.shape[2]} was encoded"
        try:
            return tried_twice(lambda: self.model.encode_images(pixels), place, TOO_LARGE)
        except ShortError:
            if self.model.vae.device.type == "cpu":
                raise
        print(f"out of memory {place}; the processor encodes it and the others, which takes longer")
        self.model.vae.to("cpu")
        return self.model.encode_images(pixels)


def hash_vae(vae: Any) -> str:
    """Hash a VAE's weights, their type, and the scale of its latents."""
    return hashlib.sha256(f"{vae.dtype}|{vae.config.scaling_factor}|{hash_modules([vae])}".encode()).hexdigest()
