"""SimpleTuner: multidatabackend.json, a local data set per folder and the store of text embeddings it asks for.

Source: documentation/DATALOADER.md of bghira/SimpleTuner. Its repeats count beyond the first time a picture is seen.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prep.exports import Source
from prep.options import atomic_write
from prep.tree import Folder


def write(source: Source, out: Path) -> None:
    """Write multidatabackend.json; the pictures stay in the tree, SimpleTuner's caches go beside the file."""
    rows = [_image(source, folder, out.resolve()) for folder in source.folders]
    text = {
        "id": f"{source.name}-text",
        "dataset_type": "text_embeds",
        "default": True,
        "type": "local",
        "cache_dir": str(out.resolve() / "cache" / "text"),
    }
    atomic_write(out / "multidatabackend.json", json.dumps([*rows, text], indent=2, ensure_ascii=False) + "\n")


def _image(source: Source, folder: Folder, out: Path) -> dict[str, Any]:
    side = source.settings["resolution"] or 512
    identity = f"{source.name}-{'reg' if folder.is_reg else 'img'}-{folder.path.name}"
    row = {
        "id": identity,
        "type": "local",
        "dataset_type": "image",
        "instance_data_dir": str(folder.path.resolve()),
        "crop": False,
        "resolution": side,
        "resolution_type": "pixel_area",
        "minimum_image_size": 0,
        "caption_strategy": "textfile",
        "cache_dir_vae": str(out / "cache" / "vae" / identity),
        "repeats": folder.repeats - 1,
    }
    return row | ({"is_regularisation_data": True} if folder.is_reg else {})
