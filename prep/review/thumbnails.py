"""Thumbnails: small copies of the pictures, made when first looked at and kept in .atelier/thumbs."""

from __future__ import annotations

import threading
from pathlib import Path

from prep.images import PictureError, encode, load
from prep.options import atomic_write
from prep.review.library import Library

SIDE = 256  # pixels of the longer side; shown at up to 200, and screens have more
QUALITY = 80
AT_ONCE = 4  # pictures that are decoded at a time, each of which may take 500 MB


class Thumbnails:
    """FOLDER/.atelier/thumbs/KEY.jpg; one older than its picture is made anew."""

    def __init__(self, library: Library) -> None:
        self._library, self._folder = library, library.store.hidden / "thumbs"
        self._turns = threading.Semaphore(AT_ONCE)

    def of(self, key: str) -> bytes:
        """Return the thumbnail of a picture, JPEG, whole and without its crop; raises UserError or PictureError."""
        picture, small = self._library.picture(key), self._folder / f"{key}.jpg"
        found = _newer(small, picture)
        if found is None:
            with self._turns:
                found = _newer(small, picture) or self._made(picture, small)
        return found

    def _made(self, picture: Path, small: Path) -> bytes:
        image = load(picture)
        image.thumbnail((SIDE, SIDE), reducing_gap=2)
        data = encode(image, ".jpg", QUALITY)
        atomic_write(small, data)
        return data


def _newer(small: Path, picture: Path) -> bytes | None:
    """Read a thumbnail that is not older than its picture."""
    try:
        if small.stat().st_mtime_ns >= picture.stat().st_mtime_ns:
            return small.read_bytes()
    except FileNotFoundError:
        if not picture.exists():
            raise PictureError("unreadable", f"{picture.name} is gone") from None
    return None
