"""Encoded pictures on disk: each under a name made from all that its latents depend on, so that none can be stale."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.options import UserError, atomic_write
from train.buckets import Fit

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from train.families.sd import Model

VERSION = 1  # raise it when `bucket_pixels` or the stored form changes


@dataclass(frozen=True)
class LatentCache:
    """The latents of one model's VAE, as mean and standard deviation, so that each use draws its own sample."""

    folder: Path
    model: Model
    vae_hash: str

    @classmethod
    def open(cls, folder: Path, model: Model) -> LatentCache:
        """Open a cache folder, which need not exist yet."""
        return cls(folder, model, hash_vae(model.vae))

    def path(self, digest: str, fit: Fit, flip: bool) -> Path:
        """Return where latents lie: named by the picture's pixels, size, crop, mirroring, the VAE, and the form they are kept in."""
        parts = (VERSION, digest, *fit.resized, *fit.bucket, flip, self.vae_hash, "float32")
        key = hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.safetensors"

    def latents(self, digest: str, fit: Fit, flip: bool, image: Callable[[], Image.Image]) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (4, h, w) in float32 on the CPU, from the disk or else encoded now.

        `digest` is the picture's pixel_hash; `image` decodes it and is called only if it is needed.
        """
        path = self.path(digest, fit, flip)
        found = _read(path)
        if found is None:
            found = self._encode(bucket_pixels(image(), fit, flip))
            _write(path, *found)
        return found

    def _encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        # One picture at a time: its latents must not depend on which others it shares a batch with.
        mean, std = (part[0].float().cpu().contiguous() for part in self.model.encode_images(pixels[None]))
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all()):
            raise UserError(f"the VAE of {self.model.path} gives no finite latents; give a base model with another VAE")
        return mean, std


def bucket_pixels(image: Image.Image, fit: Fit, flip: bool = False) -> Tensor:
    """Scale, crop and perhaps mirror an RGB picture into its bucket: pixels (3, H, W) in [-1, 1]."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    sized = image if image.size == fit.resized else image.resize(fit.resized, Image.Resampling.LANCZOS)
    sized = sized.crop(fit.crop)
    values = np.asarray(ImageOps.mirror(sized) if flip else sized, dtype=np.float32)
    return torch.from_numpy(values / 127.5 - 1).permute(2, 0, 1).contiguous()


def bucket_mask(mask: Image.Image, fit: Fit, flip: bool, scale: int) -> Tensor:
    """Bring a loss mask (L) into its picture's bucket and to the size of latents: (1, h, w), each the mean of scale x scale pixels."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    sized = mask if mask.size == fit.resized else mask.resize(fit.resized, Image.Resampling.BOX)
    sized = sized.crop(fit.crop)
    values = np.asarray(ImageOps.mirror(sized) if flip else sized, dtype=np.float32) / 255
    height, width = values.shape
    return torch.from_numpy(values.reshape(height // scale, scale, width // scale, scale).mean(axis=(1, 3)))[None]


def hash_vae(vae: Any) -> str:
    """Hash a VAE's weights and the scale of its latents."""
    import torch

    digest = hashlib.sha256(f"{vae.dtype}|{vae.config.scaling_factor}".encode())
    for name, tensor in sorted(vae.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _read(path: Path) -> tuple[Tensor, Tensor] | None:
    """Read cached latents; a file that is missing or broken is None, and is then made anew."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(path.read_bytes())
        return found["mean"], found["std"]
    except (FileNotFoundError, SafetensorError, KeyError):
        return None


def _write(path: Path, mean: Tensor, std: Tensor) -> None:
    from safetensors.torch import save

    atomic_write(path, save({"mean": mean, "std": std}))
