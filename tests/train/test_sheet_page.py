"""The page of a sheet: all pictures inside it, large sets smaller, and labels that are text and not markup."""

import base64
import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from train import sheet_page
from train.sheet_page import page


def pictures(html: str) -> list[Image.Image]:
    return [Image.open(BytesIO(base64.b64decode(data))).convert("RGB") for data in re.findall(r'src="data:image/webp;base64,([^"]+)"', html)]


def test_every_picture_stands_in_its_row_with_both_labels() -> None:
    colours = [[(250, 0, 0), (0, 250, 0)], [(0, 0, 250), (250, 250, 0)]]
    rows = [[Image.new("RGB", (64, 64), colour) for colour in row] for row in colours]
    html = page("mine", rows, ["a cat\nseed 1", "<b> & seed 2"], ["base", 'lora "x"'])
    found = [np.asarray(image).mean((0, 1)) for image in pictures(html)]
    assert np.abs(np.array(found) - np.array(colours).reshape(4, 3)).max() < 12
    assert re.findall(r'alt="([^"]+)"', html)[3] == "&lt;b&gt; &amp; seed 2; lora &quot;x&quot;"
    assert "<b>" not in html and html.count('scope="row"') == 2 and html.count('scope="col"') == 2
    assert not re.search(r'(?:src|href)="(?!data:)', html), "nothing is outside the page"


def test_many_pictures_are_scaled_down_to_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (600, 600, 3), dtype=np.uint8))
    monkeypatch.setattr(sheet_page, "ROOM", 100_000)
    html = page("mine", [[noise, noise]], ["a"], ["b", "c"])
    assert len(html) < 110_000 and {image.size for image in pictures(html)} == {(256, 256)}
