"""The sheet as one HTML file with nothing outside it: a table of pictures whose heads stay in view, in light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from prep.report_page import FOOT, head
from train.report_images import uri

if TYPE_CHECKING:
    from PIL import Image

# Longer side and quality that are tried, until all pictures take no more than so many characters.
SIZES, ROOM = ((768, 90), (512, 85), (384, 80), (256, 75), (160, 60)), 12_000_000
SHOWN = 256  # longer side in CSS pixels; a small picture is enlarged, a large one is seen whole when it is opened by itself
STYLE = f"""
body{{max-width:none}}.sheet{{overflow:auto;max-height:92vh;width:fit-content;max-width:100%;border:1px solid var(--line);border-radius:8px}}
.sheet table{{border:0;border-radius:0;overflow:visible}}
.sheet th,.sheet td{{padding:6px;border:0;vertical-align:top;text-align:left;overflow-wrap:anywhere;white-space:pre-line;font-weight:400}}
.sheet thead th{{position:sticky;top:0;z-index:1;background:var(--card);max-width:{SHOWN}px;font-weight:600}}
.sheet tbody th{{position:sticky;left:0;background:var(--card);min-width:9rem;max-width:22rem}}.sheet thead th:first-child{{left:0;z-index:2}}
.sheet img{{width:{SHOWN}px;height:auto;max-height:none;image-rendering:auto}}
"""


def page(title: str, rows: Sequence[Sequence[Image.Image]], row_labels: Sequence[str], column_labels: Sequence[str]) -> str:
    """Return the page of pictures in rows, each with its label, under the labels of the columns."""
    uris = _uris(rows)
    heads = "".join(f'<th scope="col">{escape(label)}</th>' for label in column_labels)
    lines = []
    for label, row in zip(row_labels, uris, strict=True):
        pairs = zip(row, column_labels, strict=True)
        cells = "".join(f'<td><img src="{data}" alt="{escape(f"{label}; {column}")}" loading="lazy"></td>' for data, column in pairs)
        lines.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
    table = f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'{head(escape(title))}<style>{STYLE}</style><div class="sheet">{table}</div>{FOOT}'


def _uris(rows: Sequence[Sequence[Image.Image]]) -> list[list[str]]:
    """Return the pictures as data URIs, as large as the room for all allows."""
    found: list[list[str]] = []
    for side, quality in SIZES:
        found = [[uri(image, side, quality) for image in row] for row in rows]
        if sum(len(data) for row in found for data in row) <= ROOM:
            break
    return found
