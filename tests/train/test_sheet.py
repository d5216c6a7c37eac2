"""The sheet: every picture in its place, and labels of any length that are whole, apart from each other and told apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from train.sheet import PAPER, font, grid, readable, text_height, wrap

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)


def squares(*colours: tuple[int, int, int], side: int = 64) -> list[Image.Image]:
    return [Image.new("RGB", (side, side), colour) for colour in colours]


def test_every_picture_is_large_enough_and_in_its_place() -> None:
    rows = [squares(RED, GREEN), squares(BLUE, YELLOW)]
    sheet = grid(rows, ["without the LoRA", "with the LoRA, a long label that has to be broken into lines"], ["seed 1", "seed 2"])
    found = {colour: count for count, colour in sheet.getcolors(100000) or ()}
    assert all(found[colour] == 192 * 192 for colour in (RED, GREEN, BLUE, YELLOW))
    places = {colour: np.argwhere((np.asarray(sheet) == colour).all(2)).min(0) for colour in (RED, GREEN, BLUE, YELLOW)}
    assert places[RED][0] == places[GREEN][0] < places[BLUE][0] and places[RED][1] == places[BLUE][1] < places[GREEN][1]
    bare = grid(rows)
    assert bare.width < sheet.width and bare.height < sheet.height
    assert grid(rows, scale=5).width > 2 * 5 * 64
    assert grid([squares(RED, side=512)]).width < 540


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=120), st.integers(60, 400))
def test_no_line_is_wider_than_its_room_and_no_letter_is_lost(text: str, width: int) -> None:
    lines = wrap(text, width).split("\n")
    assert all(font().getlength(line) <= width or len(line) == 1 for line in lines)
    assert "".join("".join(lines).split()) == "".join(readable(text).split())


def test_the_lines_of_a_label_stay_and_long_names_break_at_their_signs() -> None:
    assert wrap("learning_rate = 0.1\nnetwork_dim = 4", 400) == "learning_rate = 0.1\nnetwork_dim = 4"
    first, *_ = wrap("mira-of-the-north_version-with-a-long-name-000012", 160).split("\n")
    assert first.endswith(("-", "_"))


def test_letters_that_the_font_lacks_are_told_apart() -> None:
    assert readable("mira (2)") == "mira (2)"
    assert len({readable(name) for name in ("玉", "木", "\U0001f600")}) == 3


@pytest.mark.parametrize("label", ["word " * 300, "w" * 900])
def test_a_row_is_as_tall_as_its_label(label: str) -> None:
    sheet = grid([squares(RED), squares(BLUE)], [label, "next"], ["head"])
    pixels = np.asarray(sheet)
    blue = np.argwhere((pixels == BLUE).all(2)).min(0)
    red = np.argwhere((pixels == RED).all(2))
    assert blue[0] - red.min(0)[0] >= text_height(wrap(label, red.min(0)[1] - 16))
    beside = pixels[:, red.min(0)[1] - 8 : red.min(0)[1]]
    assert (beside[red.min(0)[0] :] == PAPER).all(), "no label reaches its pictures"


def test_a_column_is_as_wide_as_words_need_and_heads_stay_apart() -> None:
    sheet = grid([squares(RED, GREEN, side=200)], (), ["a-file-with-a-very-long-name-indeed-000001 strength 0.75\nepoch 1", "b"])
    pixels = np.asarray(sheet)
    green, top = np.argwhere((pixels == GREEN).all(2)).min(0)[1], np.argwhere((pixels == RED).all(2)).min(0)[0]
    assert (pixels[:top, green - 8 : green] == PAPER).all()
