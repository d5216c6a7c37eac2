"""Masks: what a picture's mask is made of, and how it reaches the tree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prep.item import Box, Item
from prep.masks import keep_alpha, loss_mask, mask_path, update_mask, with_mask
from prep.store import Store


@pytest.fixture
def item(tmp_path: Path) -> Item:
    Image.new("RGB", (10, 8), (200, 10, 10)).save(tmp_path / "a.png")
    return Item("a", tmp_path / "a.png", width=10, height=8)


def pixels(mask: Image.Image | None) -> np.ndarray:
    assert mask is not None
    return np.asarray(mask)


def test_boxes_are_black_to_their_last_pixel_and_no_further(item: Item, tmp_path: Path) -> None:
    item.masked = [Box("text", 1, 2, 3, 5, 6)]
    update_mask(item, Store(tmp_path))
    wanted = np.full((8, 10), 255)
    wanted[3:6, 2:5] = 0
    assert mask_path(item) == tmp_path / "a.mask.png"
    assert (pixels(loss_mask(item)) == wanted).all()


def test_transparency_and_boxes_add_up_and_nothing_masked_means_no_file(item: Item, tmp_path: Path) -> None:
    store = Store(tmp_path)
    alpha = Image.new("L", (10, 8), 255)
    alpha.putpixel((9, 7), 40)
    keep_alpha(item, store, alpha)
    item.masked = [Box("text", 1, 0, 0, 1, 1)]
    update_mask(item, store)
    assert pixels(loss_mask(item))[7, 9] == 40 and pixels(loss_mask(item))[0, 0] == 0 and pixels(loss_mask(item)).sum() == 255 * 78 + 40
    item.masked = []
    keep_alpha(item, store, None)
    update_mask(item, store)
    assert loss_mask(item) is None and not mask_path(item).exists()


def test_a_mask_is_cropped_with_its_picture_and_one_of_another_size_is_not_used(item: Item, tmp_path: Path) -> None:
    item.masked = [Box("text", 1, 0, 0, 5, 8)]
    update_mask(item, Store(tmp_path))
    item.crop = (4, 2, 8, 6)
    assert (pixels(loss_mask(item)) == [[0, 255, 255, 255]] * 4).all()
    item.width = 11
    assert loss_mask(item) is None


def test_the_colours_under_a_mask_are_kept(item: Item, tmp_path: Path) -> None:
    item.masked = [Box("text", 1, 0, 0, 5, 8)]
    update_mask(item, Store(tmp_path))
    picture = with_mask(item.image, lambda: loss_mask(item))
    assert picture.mode == "RGBA" and picture.getpixel((0, 0)) == (200, 10, 10, 0) and picture.getpixel((9, 0)) == (200, 10, 10, 255)
    assert with_mask(item.image, lambda: None).mode == "RGB"
    assert with_mask(item.image, lambda: Image.new("L", (10, 8), 255)).mode == "RGB", "a mask that hides nothing is no mask"


def test_a_mask_is_no_picture(item: Item, tmp_path: Path) -> None:
    item.masked = [Box("text", 1, 0, 0, 5, 8)]
    update_mask(item, Store(tmp_path))
    assert [found.key for found in Store(tmp_path).items()] == ["a"]
