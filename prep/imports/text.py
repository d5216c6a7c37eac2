"""Text: a caption that a person wrote beside the raw picture, kept as it is."""

from __future__ import annotations

from pathlib import Path

from prep.captions import caption_path, read_caption
from prep.imports import Asked, Found


def read(source: Path, asked: Asked) -> Found | None:
    """Read STEM.txt, else STEM.caption."""
    caption = read_caption(source)
    file = caption_path(source)
    return Found(file if file.exists() else source.with_suffix(".caption"), caption=caption) if caption else None
