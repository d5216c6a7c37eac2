"""sd_dreambooth_extension: concepts_list.json, and square PNGs without transparency, which is what that trainer takes.

Source: dreambooth/dataclasses/db_concept.py and concepts_list.json of d8ahazard/sd_dreambooth_extension.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from prep.crop import square
from prep.detectors import detector
from prep.exports import Source
from prep.images import decode, save
from prep.options import atomic_write
from prep.tree import Folder


def write(source: Source, out: Path) -> None:
    """Write the list and a folder of square pictures for every folder of the tree."""
    side = source.settings["resolution"] or 512
    reg = [folder for folder in source.folders if folder.is_reg]
    for folder in source.folders:
        for picture in folder.pictures:
            target = out / _name(folder) / f"{picture.stem}.png"
            save(_squared(picture, side), target)
            atomic_write(target.with_suffix(".txt"), source.caption(folder, picture) + "\n")
    concepts = [_concept(source, folder, reg[0] if reg else None, out) for folder in source.folders if not folder.is_reg]
    atomic_write(out / "concepts_list.json", json.dumps(concepts, indent=2, ensure_ascii=False) + "\n")


def _name(folder: Folder) -> str:
    return f"{'reg' if folder.is_reg else 'img'}/{folder.path.name}"


def _squared(picture: Path, side: int) -> Image.Image:
    """Cut the square around the face, or else around the most detail, and scale it."""
    image = decode(picture, None).image
    (boxes,) = detector("face")([image])
    return image.crop(square(image, boxes, 0.4)).resize((side, side), Image.Resampling.LANCZOS)


def _concept(source: Source, folder: Folder, reg: Folder | None, out: Path) -> dict[str, Any]:
    per_picture = -(-len(reg.pictures) // max(1, len(folder.pictures))) if reg else 0
    return {
        "instance_data_dir": str((out / _name(folder)).resolve()),
        "class_data_dir": str((out / _name(reg)).resolve()) if reg else "",
        "instance_prompt": "[filewords]",
        "class_prompt": "[filewords]",
        "save_sample_prompt": ", ".join(filter(None, [source.keyword, source.class_])),
        "save_sample_template": "",
        "instance_token": source.keyword,
        "class_token": source.class_,
        "num_class_images_per": per_picture,
        "class_negative_prompt": "",
        "class_guidance_scale": 7.5,
        "class_infer_steps": 40,
        "save_sample_negative_prompt": "",
        "n_save_sample": 1,
        "sample_seed": -1,
        "save_guidance_scale": 7.5,
        "save_infer_steps": 20,
    }
