"""Encoded pictures: each change of pixels, crop, mirroring, colours or VAE is noticed."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prep.images import pixel_hash
from prep.options import UserError
from train.buckets import BucketRule, Fit
from train.cache import Store
from train.families import load_model
from train.families.sd import Model
from train.latents import LatentCache, Wanted, hash_vae
from train.views import View, bucket_mask, bucket_pixels


def fitted(size: tuple[int, int], side: int = 64) -> Fit:
    return BucketRule((side, side), step=32, min_reso=32, max_reso=128).fit(*size)


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Model:
    return load_model(str(tiny_base))


def noise(seed: int, size: tuple[int, int] = (70, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def get(cache: LatentCache, image: Image.Image, view: View | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    return cache.latents(pixel_hash(image), view or View(fitted(image.size)), lambda: image)


def test_second_time_comes_from_the_disk_and_is_the_same(model: Model, tmp_path: Path) -> None:
    first = get(LatentCache.open(Store(tmp_path), model), noise(0))
    cache = LatentCache.open(Store(tmp_path), model)
    second = get(cache, noise(0))
    assert cache.store.made == 0
    assert first[0].shape == first[1].shape == (4, 16, 16)
    assert all(map(torch.equal, first, second))


def pixel(image: Image.Image) -> Image.Image:
    changed = image.copy()
    changed.putpixel((3, 3), (1, 2, 3))
    return changed


CHANGES: dict[str, Callable[[Image.Image, View], tuple[Image.Image, View]]] = {
    "pixel": lambda image, view: (pixel(image), view),
    "size": lambda image, view: (image, View(fitted(image.size, 96))),
    "crop": lambda image, view: (image, dataclasses.replace(view, fit=view.fit.at(1, 0))),
    "mirroring": lambda image, view: (image, dataclasses.replace(view, flip=True)),
    "hue": lambda image, view: (image, dataclasses.replace(view, hue=3.0)),
    "gamma": lambda image, view: (image, dataclasses.replace(view, gamma=1.02)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_or_view_is_encoded_anew(model: Model, tmp_path: Path, change: str) -> None:
    image, view = noise(0), View(fitted((70, 64)))
    get(LatentCache.open(Store(tmp_path), model), image, view)
    cache = LatentCache.open(Store(tmp_path), model)
    found = get(cache, *CHANGES[change](image, view))
    assert cache.store.made == 1
    assert all(map(torch.equal, found, get(LatentCache.open(Store(None), model), *CHANGES[change](image, view))))


@pytest.mark.parametrize("change", ["weights", "scale"])
def test_a_changed_vae_encodes_anew(tiny_base: Path, tmp_path: Path, change: str) -> None:
    model = load_model(str(tiny_base))
    before = hash_vae(model.vae)
    first = get(LatentCache.open(Store(tmp_path), model), noise(0))
    if change == "weights":
        with torch.no_grad():
            model.vae.quant_conv.bias += 0.01
    else:
        model.vae.config["scaling_factor"] = 0.5
        model.use_vae(model.vae)
    cache = LatentCache.open(Store(tmp_path), model)
    assert hash_vae(model.vae) != before
    assert not torch.equal(get(cache, noise(0))[0], first[0]) and cache.store.made == 1


def test_vae_that_gives_no_numbers_is_named(tiny_base: Path, tmp_path: Path) -> None:
    model = load_model(str(tiny_base))
    with torch.no_grad():
        model.vae.quant_conv.bias += float("nan")
    with pytest.raises(UserError, match="no finite latents"):
        get(LatentCache.open(Store(tmp_path), model), noise(0))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_masks_follow_their_own_digest(model: Model, tmp_path: Path) -> None:
    cache, view = LatentCache.open(Store(tmp_path), model), View(fitted((64, 64)))
    white, half = Image.new("L", (64, 64), 255), Image.new("L", (64, 64), 128)
    assert cache.mask("white", view, lambda: white).mean() == 1
    assert cache.mask("half", view, lambda: half).mean() == pytest.approx(128 / 255)
    assert LatentCache.open(Store(tmp_path), model).mask("white", view, lambda: half).mean() == 1


@pytest.mark.parametrize("flip", [False, True])
def test_a_mask_lies_on_its_pictures_pixels(flip: bool) -> None:
    mask = Image.new("L", (140, 128), 255)
    mask.paste(0, (40, 64, 80, 128))
    view = View(fitted(mask.size).at(3, 0), flip)
    found, pixels = bucket_mask(mask, view, 4), bucket_pixels(mask.convert("RGB"), view)
    assert found.shape == (1, pixels.shape[1] // 4, pixels.shape[2] // 4)
    blocks = (pixels[0].reshape(found.shape[1], 4, found.shape[2], 4).mean(dim=(1, 3)) + 1) / 2
    assert (found[0] - blocks).abs().max() < 0.15  # Lanczos rings at the edge, the mask's box filter does not
    assert found.min() >= 0 and found.max() <= 1


def test_threads_write_what_one_picture_after_another_would(model: Model, tmp_path: Path) -> None:
    images = [noise(seed, (70 + 10 * (seed % 3), 64)) for seed in range(12)]
    wanted = [Wanted(pixel_hash(image), View(fitted(image.size)), lambda image=image: image) for image in images]  # type: ignore[misc]
    cache = LatentCache.open(Store(tmp_path / "together"), model)
    assert len(list(cache.prepare(wanted))) == cache.store.made == 12
    for image in images:
        get(LatentCache.open(Store(tmp_path / "alone"), model), image)
    files = sorted(path.relative_to(tmp_path / "alone") for path in (tmp_path / "alone").rglob("*.safetensors"))
    assert len(files) == 12
    assert all((tmp_path / "alone" / file).read_bytes() == (tmp_path / "together" / file).read_bytes() for file in files)


def test_what_is_there_is_not_decoded(model: Model, tmp_path: Path) -> None:
    decoded: list[int] = []
    images = [noise(seed) for seed in range(4)]

    def wanted(count: int) -> list[Wanted]:
        def opened(number: int) -> Image.Image:
            decoded.append(number)
            return images[number]

        return [Wanted(pixel_hash(images[i]), View(fitted(images[i].size)), partial(opened, i)) for i in range(count)]

    for count in (2, 4):
        list(LatentCache.open(Store(tmp_path), model).prepare(wanted(count)))
    assert sorted(decoded) == [0, 1, 2, 3]
