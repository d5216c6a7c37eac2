"""The sheet of pictures: no label is cut, each stands where its picture does, and the page needs nothing outside it."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from prep.options import UserError
from train.sheet import FONT_SIZE, INK, LABEL_WIDTH, MARGIN, Sheet, grid, wrap

FONT = ImageFont.load_default(FONT_SIZE)
RED, BLUE = Image.new("RGB", (64, 64), (255, 0, 0)), Image.new("RGB", (64, 64), (0, 0, 255))


@given(st.text("abcMWi_ -.\n", max_size=80), st.integers(40, 200))
def test_lines_fit_and_no_letter_is_lost(text: str, width: int) -> None:
    found = wrap(text, FONT, width)
    assert all(FONT.getlength(line) <= width for line in found.split("\n"))
    assert re.sub(r"\s", "", found) == re.sub(r"\s", "", text)
    assert len(found.split("\n")) >= len(text.split("\n"))


def test_a_label_higher_than_its_picture_is_shown_whole() -> None:
    label = "\n".join(f"line {i}" for i in range(40))
    sheet = np.asarray(grid([[RED], [BLUE]], [label, "second"], ["one_name_without_any_space_that_is_much_wider_than_the_picture_below_it"]))
    ink = (np.abs(sheet.astype(int) - INK).sum(2) < 90)[:, : LABEL_WIDTH + MARGIN]
    blue = np.flatnonzero((sheet == (0, 0, 255)).all(2).any(1))
    lines = np.flatnonzero(ink.any(1))
    starts = [y for y in lines if y - 1 not in set(lines)]
    assert len(starts) >= 41, "forty lines and the second label"
    assert starts[-1] >= blue[0] - 1 and starts[-2] < blue[0], "the second label begins where its picture does, the first ends before"


def test_the_page_holds_everything_itself(tmp_path: Path) -> None:
    sheet = Sheet(["base", "a<b> & c × 0.5\n10 steps"], ['say "hi"\nseed 1', "other\nseed 2"], [[RED, BLUE], [BLUE, RED]])
    picture, page = sheet.save(tmp_path / "grid.png", "mine <1>")
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/webp;base64,") == 4 and "a&lt;b&gt; &amp; c × 0.5" in text and "say &quot;hi&quot;" in text
    assert not re.search(r"(?:src|href)=\"(?!data:)", text) and "<script" not in text
    assert Image.open(picture).text["Title"] == "mine <1>"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        sheet.save(tmp_path / "file" / "grid.png", "x")
