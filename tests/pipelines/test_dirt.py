"""The demo's raw folder holds exactly the dirt that the demo promises."""

import pytest
from PIL import Image

from pipelines.dirt import PICTURES, write_raw
from prep.images import PictureError, load


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_raw(folder)
    return folder


def test_count_and_names(raw):
    names = [path.name for path in raw.iterdir()]
    assert len(names) == PICTURES and any(name.endswith(".jpeg") for name in names)


def test_modes_and_orientation(raw):
    assert Image.open(raw / "mira 17 (transparent).png").getchannel("A").getextrema() == (0, 255)
    assert Image.open(raw / "mira_19_print.jpg").mode == "CMYK"
    assert Image.open(raw / "mira_18_phone.jpg").getexif()[0x0112] == 6


def test_one_is_truncated_and_one_too_small(raw):
    with pytest.raises(PictureError) as caught:
        load(raw / "mira_21_broken.jpg")
    assert caught.value.reason == "truncated"
    assert load(raw / "mira_20_thumbnail.png").size == (96, 96)


def test_duplicates_are_there(raw):
    assert (raw / "copy of mira_03.png").read_bytes() == (raw / "mira_03.png").read_bytes()
    assert load(raw / "mira_05_reposted.jpg").width < load(raw / "mira_05.png").width
