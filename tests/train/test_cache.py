"""Cached latents: they are reused only when nothing that they depend on has changed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prep.images import pixel_hash
from prep.options import UserError
from train.buckets import BucketRule
from train.cache import LatentCache, bucket_mask, bucket_pixels, hash_vae
from train.families import load_model
from train.families.sd import Model

FIT = BucketRule((64, 64), step=32, min_reso=32, max_reso=128).fit


@pytest.fixture
def model(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model that counts in `encoded` how often its VAE ran."""
    model = load_model(str(tiny_base))
    encode = model.encode_images
    model.encoded = 0  # type: ignore[attr-defined]

    def counted(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        model.encoded += 1  # type: ignore[attr-defined]
        return encode(pixels)

    monkeypatch.setattr(model, "encode_images", counted)
    return model


def noise(seed: int, size: tuple[int, int] = (70, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def get(cache: LatentCache, image: Image.Image, flip: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    return cache.latents(pixel_hash(image), FIT(*image.size), flip, lambda: image)


def test_second_time_comes_from_the_disk_and_is_the_same(model: Model, tmp_path: Path) -> None:
    first = get(LatentCache.open(tmp_path, model), noise(0))
    second = get(LatentCache.open(tmp_path, model), noise(0))
    assert model.encoded == 1
    assert first[0].shape == first[1].shape == (4, 16, 16)
    assert all(map(torch.equal, first, second))


def test_every_change_is_noticed(model: Model, tmp_path: Path) -> None:
    image, cache = noise(0), LatentCache.open(tmp_path, model)
    get(cache, image)
    get(cache, image, flip=True)
    changed = image.copy()
    changed.putpixel((3, 3), (1, 2, 3))
    get(cache, changed)
    other_size = BucketRule((96, 96), step=32, min_reso=32, max_reso=128).fit(*image.size)
    cache.latents(pixel_hash(image), other_size, False, lambda: image)
    assert model.encoded == 4
    with torch.no_grad():
        model.vae.quant_conv.bias += 0.01
    get(LatentCache.open(tmp_path, model), image)
    assert model.encoded == 5


def test_vae_hash_sees_weights_and_scale(model: Model) -> None:
    before = hash_vae(model.vae)
    assert hash_vae(model.vae) == before
    model.vae.register_to_config(scaling_factor=0.5)
    assert hash_vae(model.vae) != before


@pytest.mark.parametrize("keep", [0, 7, 100])
def test_broken_file_is_made_anew(model: Model, tmp_path: Path, keep: int) -> None:
    cache = LatentCache.open(tmp_path, model)
    first = get(cache, noise(0))
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:keep])
    assert torch.equal(get(cache, noise(0))[0], first[0]) and model.encoded == 2
    get(cache, noise(0))
    assert model.encoded == 2


def test_no_half_written_file_is_left(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prep.options.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        get(LatentCache.open(tmp_path, model), noise(0))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_vae_that_gives_no_numbers_is_named(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = torch.full((1, 4, 16, 16), float("nan"))
    monkeypatch.setattr(model, "encode_images", lambda pixels: (broken, broken))
    with pytest.raises(UserError, match="no finite latents"):
        get(LatentCache.open(tmp_path, model), noise(0))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_pixels_are_centred_scaled_and_mirrored() -> None:
    image = Image.new("RGB", (128, 64), (0, 0, 0))
    image.paste((255, 255, 255), (64, 0, 128, 64))
    fit = BucketRule((64, 64), enabled=False).fit(*image.size)
    pixels = bucket_pixels(image, fit)
    assert pixels.shape == (3, 64, 64)
    assert pixels[:, :, :28].max() == -1 and pixels[:, :, 36:].min() == 1
    assert torch.equal(bucket_pixels(image, fit, flip=True), pixels.flip(2))


@pytest.mark.parametrize("flip", [False, True])
def test_a_mask_lies_on_its_pictures_pixels(flip: bool) -> None:
    mask = Image.new("L", (140, 128), 255)
    mask.paste(0, (40, 64, 80, 128))
    fit = FIT(*mask.size)
    found = bucket_mask(mask, fit, flip, 4)
    pixels = bucket_pixels(mask.convert("RGB"), fit, flip)
    assert found.shape == (1, pixels.shape[1] // 4, pixels.shape[2] // 4)
    blocks = (pixels[0].reshape(found.shape[1], 4, found.shape[2], 4).mean(dim=(1, 3)) + 1) / 2
    assert (found[0] - blocks).abs().max() < 0.15  # Lanczos rings at the edge, the mask's box filter does not
    assert {0.0, 1.0} <= set(found.flatten().tolist()) and found.min() >= 0 and found.max() <= 1
