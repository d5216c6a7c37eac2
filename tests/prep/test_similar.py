"""Similar: hashes stay near through what copies go through, and the index finds each near pair once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pipelines.pocket import world
from prep.sights import candidates
from prep.similar import MIRROR, RADIUS, borders, look, near_pairs


def drawings(count: int = 6) -> list[Image.Image]:
    return [image for image, _ in world.demo_pictures(count, 3)]


def brute(hashes: np.ndarray, turn: int) -> set[tuple[int, int]]:
    apart = np.bitwise_count(hashes[:, None] ^ np.uint64(turn) ^ hashes[None, :]) <= RADIUS
    return {(int(i), int(j)) for i, j in np.argwhere(apart) if i < j}


@given(seed=st.integers(0, 10**6), turn=st.sampled_from((0, MIRROR)), count=st.integers(0, 150), kinds=st.integers(1, 40))
def test_the_index_finds_each_near_pair_once(seed: int, turn: int, count: int, kinds: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, kinds, dtype=np.uint64)[rng.integers(0, kinds, count)]
    for _ in range(8):  # up to eight wrong bits, and one in two mirrored, so that there are pairs on either side of the radius
        hashes ^= np.where(rng.random(count) < 0.5, np.uint64(1) << rng.integers(0, 64, count, dtype=np.uint64), np.uint64(0))
    hashes ^= np.where(rng.random(count) < 0.5, np.uint64(MIRROR), np.uint64(0))
    found = [(min(pair), max(pair)) for left, right in near_pairs(hashes, turn) for pair in zip(left.tolist(), right.tolist(), strict=True)]
    assert len(found) == len(set(found))
    assert set(found) == brute(hashes, turn)


def test_a_mirrored_picture_has_the_mirrored_hash() -> None:
    for image in drawings():
        plain, mirrored = look(image).hashes[0], look(ImageOps.mirror(image)).hashes[0]
        assert (np.bitwise_count(plain ^ np.uint64(MIRROR) ^ mirrored) <= 1).all()


def test_a_turned_hue_leaves_the_second_hash() -> None:
    image = drawings()[0]
    hue, saturation, value = image.convert("HSV").split()
    other = Image.merge("HSV", (hue.point([(level + 90) % 256 for level in range(256)]), saturation, value)).convert("RGB")
    assert np.bitwise_count(look(image).hashes[0, 1] ^ look(other).hashes[0, 1]) <= 2


@pytest.mark.parametrize("border", [(20, 20), (0, 30), (25, 0)])
def test_a_border_is_taken_off(border: tuple[int, int]) -> None:
    data = pytest.importorskip("skimage.data")
    image = Image.fromarray(data.astronaut())
    across, down = border
    frames = borders(ImageOps.expand(image, border, (30, 200, 90)))
    assert frames[:2] == [(0, 0, image.width + 2 * across, image.height + 2 * down), (across, down, image.width + across, image.height + down)]


def test_plain_and_tiny_pictures_have_a_look() -> None:
    for size in ((1, 1), (1, 400), (400, 1), (300, 200)):
        found = look(Image.new("RGB", size, "white"))
        assert (found.width, found.height) == size
        assert found.frames.tolist() == [[0, 0, *size]]


def test_candidates_are_few_and_hold_the_copies() -> None:
    images = drawings(30)
    images[29] = ImageOps.mirror(images[4]).resize((200, 200))
    pairs = candidates([look(image) for image in images])
    assert (0, 0, True) in pairs[4, 29]
    assert len(pairs) < 40
    assert candidates([look(images[0])]) == {}


def test_a_hundred_thousand_hashes_take_seconds() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 100_000, dtype=np.uint64)
    hashes[-1] = hashes[5] ^ np.uint64(0x8001_0001_0101_8000)
    found = [pair for left, right in near_pairs(hashes) for pair in zip(left.tolist(), right.tolist(), strict=True)]
    assert {frozenset(pair) for pair in found} >= {frozenset((5, 99_999))}
    assert len(found) < 30
