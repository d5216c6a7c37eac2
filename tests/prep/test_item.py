"""Item: one picture, and its pixels as its crop leaves them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from prep.images import PictureError
from prep.item import Item


def test_an_image_is_cropped_and_a_broken_one_says_why(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), "red").save(tmp_path / "a.png")
    item = Item("a", tmp_path / "a.png")
    assert item.image().size == (8, 6)
    item.crop = (1, 2, 5, 6)
    assert item.image().size == (4, 4)
    item.path.write_bytes(b"")
    with pytest.raises(PictureError) as caught:
        item.image()
    assert caught.value.reason == "empty_file"
