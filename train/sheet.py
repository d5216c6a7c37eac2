"""The sheet on which pictures are compared: labelled rows and columns, drawn so that no label is cut or runs into another."""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

# In pixels: pictures smaller than CELL are enlarged by a whole factor, so that a person can see them. Labels of rows are as wide as the
# first of these widths in which the longest is no taller than its pictures.
CELL, MARGIN, FONT_SIZE, LABEL_WIDTHS = 160, 8, 15, (200, 280, 380, 520)
PAPER, INK = (255, 255, 255), (30, 30, 30)
BREAKS = "-_/.,=:"  # behind these a word that is too long is broken first


def grid(rows: Sequence[Sequence[Image.Image]], row_labels: Sequence[str] = (), column_labels: Sequence[str] = (), scale: int = 1) -> Image.Image:
    """Lay pictures out in labelled rows on one sheet; small ones are enlarged by `scale`, or so far that they can be seen.

    A label's own line breaks stay, and a row or the head is as tall as its label needs.
    """
    factor = scale if scale > 1 else max(1, math.ceil(CELL / min(min(image.size) for row in rows for image in row)))
    shown = [[image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC) for image in row] for row in rows]
    tallest = [max(image.height for image in row) for row in shown]
    width = max(CELL if column_labels else 0, *(image.width for row in shown for image in row)) + MARGIN
    labels, label_width = _row_labels(row_labels, tallest)
    columns = [wrap(label, width - MARGIN) for label in column_labels]
    left = label_width + 2 * MARGIN if labels else MARGIN
    top = max(map(text_height, columns), default=0) + 2 * MARGIN
    heights = [max(tall, text_height(label)) + MARGIN for tall, label in zip(tallest, labels or [""] * len(shown), strict=True)]
    sheet = Image.new("RGB", (left + width * max(map(len, shown)), top + sum(heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for j, text in enumerate(columns):
        draw.multiline_text((left + j * width, MARGIN), text, INK, font())
    for i, row in enumerate(shown):
        y = top + sum(heights[:i])
        draw.multiline_text((MARGIN, y), labels[i] if labels else "", INK, font())
        for j, image in enumerate(row):
            sheet.paste(image, (left + j * width, y))
    return sheet


def _row_labels(labels: Sequence[str], tallest: Sequence[int]) -> tuple[list[str], int]:
    """Break the labels of rows into lines; returns them and the width in pixels that they have."""
    found: list[str] = []
    for width in LABEL_WIDTHS:
        found = [wrap(label, width) for label in labels]
        if all(text_height(label) <= tall for label, tall in zip(found, tallest, strict=False)):
            break
    return found, width


def wrap(text: str, width: int) -> str:
    """Break a label into lines of at most `width` pixels; what the font cannot draw is written as its code, such as \\u6587."""
    return "\n".join(line for part in readable(text).split("\n") for line in _lines(part.split(), width))


def _lines(words: Sequence[str], width: int) -> list[str]:
    lines, left = [""], list(words)
    while left:
        word = left.pop(0)
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if font().getlength(longer) <= width:
            lines[-1] = longer
        elif lines[-1]:
            lines.append("")
            left.insert(0, word)
        else:
            cut = _cut(word, width)
            lines[-1:] = [word[:cut], ""]
            left.insert(0, word[cut:])
    return lines


def _cut(word: str, width: int) -> int:
    """Return how many letters of a word that is too long stand on this line, one at least."""
    most = max(1, bisect.bisect_right(range(len(word)), width, key=lambda n: font().getlength(word[:n])) - 1)
    sign = max((word.rfind(sign, 0, most) for sign in BREAKS), default=-1) + 1
    return sign if sign > most // 2 else most


def readable(text: str) -> str:
    """Replace letters that the font has not, which would all look alike."""
    return "".join(letter if letter == "\n" or _drawn(letter) else letter.encode("unicode_escape").decode() for letter in text.expandtabs(1))


@functools.cache
def _drawn(letter: str) -> bool:
    missing = font().getmask("\uffff")
    mask = font().getmask(letter)
    same = (mask.size, bytes(mask)) == (missing.size, bytes(missing))
    return letter == " " or (mask.size[0] > 0 and not same)


@functools.cache
def font() -> Any:
    return ImageFont.load_default(FONT_SIZE)


def text_height(text: str) -> int:
    """Return the height in pixels of a label."""
    return math.ceil(ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font())[3]) if text else 0
