"""OneTrainer: concepts.json, and pictures with their masks as NAME-masklabel.png beside them.

Source: modules/util/config/ConceptConfig.py of Nerogar/OneTrainer. What is left out there keeps OneTrainer's default.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prep.exports import Source, place
from prep.images import decode, save
from prep.options import atomic_write
from prep.tree import Folder

MASK = "-masklabel.png"


def write(source: Source, out: Path) -> None:
    """Write the list; folders with masks are linked into the export, with the masks beside their pictures."""
    concepts = [_concept(source, folder, _folder(source, folder, out)) for folder in source.folders]
    atomic_write(out / "concepts.json", json.dumps(concepts, indent=4, ensure_ascii=False) + "\n")


def _folder(source: Source, folder: Folder, out: Path) -> Path:
    if not source.masked(folder):
        return folder.path
    target = out / ("reg" if folder.is_reg else "img") / folder.path.name
    for picture in folder.pictures:
        place(picture, target / picture.name, source.caption(folder, picture))
        alpha = decode(picture, None).alpha
        if alpha is not None:
            save(alpha, target / f"{picture.stem}{MASK}")
    return target


def _concept(source: Source, folder: Folder, path: Path) -> dict[str, Any]:
    train = source.of(folder)
    return {
        "__version": 1,
        "name": f"{'regularization: ' if folder.is_reg else ''}{folder.concept}",
        "path": str(path.resolve()),
        "seed": train["seed"],
        "enabled": True,
        "validation_concept": False,
        "include_subdirectories": False,
        "image_variations": 1,
        "text_variations": 1,
        "balancing": float(folder.repeats),
        "balancing_strategy": "REPEATS",
        "loss_weight": float(train["prior_loss_weight"]) if folder.is_reg else 1.0,
        "image": {"enable_crop_jitter": False, "enable_random_flip": train["flip_aug"]},
        "text": {
            "prompt_source": "sample",
            "enable_tag_shuffling": train["shuffle_caption"],
            "tag_delimiter": ",",
            "keep_tags_count": train["keep_tokens"],
        },
    }
