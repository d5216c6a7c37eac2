"""Pictures that a page holds in itself: sample sheets and thumbnails as data URIs, together no larger than a page should be."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from prep.images import PictureError, load

if TYPE_CHECKING:
    from PIL import Image

SHEETS = 12  # sample sheets that are shown of a run, evenly spread
# Characters that the sheets and the thumbnails may take; with curves and tables a page stays under 5 MB.
SHEETS_ROOM, THUMBS_ROOM = 3_000_000, 1_000_000
# Longer side and quality that are tried, until the sheets fit. Measured: twelve sheets of coloured noise,
# 2048 x 1024, take 9.0, 3.7, 1.6, 0.63 and 0.15 MB.
SIZES = ((1400, 82), (1000, 80), (760, 75), (560, 70), (400, 55))
THUMB = (96, 65)
PREFIX = "data:image/webp;base64,"


def sheet_uris(paths: Sequence[Path]) -> list[str]:
    """Return each sheet as a data URI, as large as the room for all allows; "" for one that cannot be read."""
    images = [opened(path) for path in paths]
    uris: list[str] = []
    for side, quality in SIZES:
        uris = [uri(image, side, quality) if image else "" for image in images]
        if sum(map(len, uris)) <= SHEETS_ROOM:
            break
    return uris


def thumb_uris(paths: Iterable[Path]) -> list[str]:
    """Return a thumbnail of each picture as a data URI; "" for one that cannot be read, and for those there is no room for."""
    uris, room = [], THUMBS_ROOM
    for path in paths:
        image = opened(path) if room > 0 else None
        uris.append(uri(image, *THUMB) if image else "")
        room -= len(uris[-1])
    return uris


def opened(path: Path) -> Image.Image | None:
    """Decode a picture; None if it is not there or broken, which is no reason to have no page."""
    try:
        return load(path)
    except (OSError, PictureError):
        return None


def uri(image: Image.Image, side: int, quality: int) -> str:
    """Return a picture, scaled down so that its longer side is at most so many pixels, as a data URI."""
    small = image.copy()
    small.thumbnail((side, side))
    buffer = BytesIO()
    small.save(buffer, "WEBP", quality=quality, method=4)
    return PREFIX + base64.b64encode(buffer.getvalue()).decode()


def spread(count: int, most: int) -> list[int]:
    """Choose at most so many of `count` places, evenly, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(n * (count - 1) / (most - 1)) for n in range(most)]
