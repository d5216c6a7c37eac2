"""The sheet on which pictures are compared, side by side under their labels: as one picture, and as a page that holds everything itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from prep.options import UserError, atomic_write
from prep.report_page import FOOT
from prep.report_page import STYLE as FRAME
from train.report_images import uri

# The sheet, in pixels: pictures smaller than this are enlarged by a whole factor, so that a person can see them.
CELL, MARGIN, FONT_SIZE, LABEL_WIDTH = 160, 8, 15, 200
PAPER, INK = (255, 255, 255), (30, 30, 30)
# Longer side, quality and the characters that all pictures of a page may take: the first that fits is taken.
SIZES, ROOM = ((768, 85), (512, 80), (320, 75), (192, 65)), 20_000_000

STYLE = """
.sheet{overflow:auto;max-height:92vh;border:1px solid var(--line);border-radius:8px}
.sheet table{border:0;border-radius:0;overflow:visible}
.sheet th{background:var(--card);white-space:pre-wrap;overflow-wrap:anywhere;vertical-align:top;font-size:.85rem}
.sheet thead th{position:sticky;top:0;z-index:2}.sheet th:first-child{position:sticky;left:0;z-index:1;min-width:9rem;max-width:16rem}
.sheet thead th:first-child{z-index:3}.sheet td{padding:3px}.sheet td img{width:auto;height:auto;min-width:160px;max-width:none;image-rendering:auto}
"""


@dataclass(frozen=True)
class Sheet:
    """Pictures by row and column, with a label for each."""

    columns: Sequence[str]
    rows: Sequence[str]
    pictures: Sequence[Sequence[Image.Image]]  # row by row

    def save(self, path: Path, title: str) -> list[Path]:
        """Write PATH as a picture and, with the ending .html, as a page; returns both. Raises UserError if there is no room."""
        from prep.images import save

        page = path.with_suffix(".html")
        try:
            save(grid(self.pictures, self.rows, self.columns), path, texts={"Title": title})
            atomic_write(page, self.page(title))
        except OSError as error:
            raise UserError(f"cannot write {path} ({error.strerror}); make room, or give another folder") from error
        return [path, page]

    def page(self, title: str) -> str:
        """Return the page."""
        uris: list[list[str]] = []
        for side, quality in SIZES:
            uris = [[uri(picture, side, quality) for picture in row] for row in self.pictures]
            if sum(len(found) for row in uris for found in row) <= ROOM:
                break
        head = "".join(f'<th scope="col">{escape(label)}</th>' for label in self.columns)
        body = "".join(
            f'<tr><th scope="row">{escape(label)}</th>{"".join(map(_cell, found, [label] * len(found), self.columns))}</tr>'
            for label, found in zip(self.rows, uris, strict=True)
        )
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{escape(title)}</title><style>{FRAME}{STYLE}</style></head><body><main><h1>{escape(title)}</h1>"
            f'<div class="sheet" tabindex="0"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>{FOOT}'
        )


def _cell(source: str, row: str, column: str) -> str:
    words = escape(f"{column}; {row}".replace("\n", ", "))
    return f'<td><img src="{source}" alt="{words}" title="{words}"></td>'


def grid(rows: Sequence[Sequence[Image.Image]], row_labels: Sequence[str] = (), column_labels: Sequence[str] = (), scale: int = 1) -> Image.Image:
    """Lay pictures out in labelled rows on one sheet; small ones are enlarged by `scale`, or so far that they can be seen.

    No label is cut: a row is at least as high as its label, and the head as the highest of the columns'.
    """
    font = ImageFont.load_default(FONT_SIZE)
    factor = scale if scale > 1 else max(1, math.ceil(CELL / min(min(image.size) for row in rows for image in row)))
    shown = [[image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC) for image in row] for row in rows]
    width = max(image.width for row in shown for image in row) + MARGIN
    columns = [wrap(label, font, width - MARGIN) for label in column_labels]
    labels = [wrap(label, font, LABEL_WIDTH - MARGIN) for label in row_labels] or [""] * len(shown)
    heights = [max(*(image.height for image in row), text_height(text, font)) + MARGIN for row, text in zip(shown, labels, strict=True)]
    left = LABEL_WIDTH + MARGIN if row_labels else MARGIN
    top = max((text_height(text, font) for text in columns), default=0) + 2 * MARGIN
    sheet = Image.new("RGB", (left + width * max(map(len, shown)), top + sum(heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, text in enumerate(columns):
        draw.multiline_text((left + i * width, MARGIN), text, INK, font)
    for i, (row, label) in enumerate(zip(shown, labels, strict=True)):
        draw.multiline_text((MARGIN, top + sum(heights[:i])), label, INK, font)
        for j, image in enumerate(row):
            sheet.paste(image, (left + j * width, top + sum(heights[:i])))
    return sheet


def wrap(text: str, font: Any, width: int) -> str:
    """Break a label into lines of at most `width` pixels, between words and, where one is longer, within it; its own breaks stay."""
    return "\n".join(line for own in text.split("\n") for line in _broken(own, font, width))


def _broken(text: str, font: Any, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        together = f"{lines[-1]} {word}".strip()
        if font.getlength(together) <= width:
            lines[-1] = together
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def text_height(text: str, font: Any) -> int:
    """Return the height in pixels of a label."""
    return math.ceil(ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font)[3])
