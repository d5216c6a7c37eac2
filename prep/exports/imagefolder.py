"""Hugging Face imagefolder: train/ with the pictures and a metadata.jsonl of file_name and text, as `datasets` and diffusers read it.

Source: the datasets documentation, "Create an image dataset".
"""

from __future__ import annotations

import json
from pathlib import Path

from prep.exports import Source, place
from prep.options import atomic_write


def write(source: Source, out: Path) -> None:
    """Write the pictures of the concept and their captions; the format knows neither repeats nor regularization, so both are columns."""
    rows = []
    for folder in source.folders:
        for picture in folder.pictures:
            name = f"{'reg' if folder.is_reg else 'img'}/{folder.path.name}/{picture.name}"
            place(picture, out / "train" / name)
            rows.append({"file_name": name, "text": source.caption(folder, picture), "repeats": folder.repeats, "is_reg": folder.is_reg})
    atomic_write(out / "train" / "metadata.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
