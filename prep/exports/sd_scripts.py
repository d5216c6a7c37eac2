"""sd-scripts: dataset.toml for --dataset_config, and metadata.json for its fine-tuning data sets.

Source: docs/config_README-en.md and library/config_util.py of kohya-ss/sd-scripts. A subset does not read repeats from its folder's name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tomlkit

from prep.captions import caption_path
from prep.exports import Source
from prep.options import atomic_write


def write(source: Source, out: Path) -> None:
    """Write both files; they name the pictures where they lie in the tree."""
    train = source.settings
    general = {
        "caption_extension": ".txt",
        "shuffle_caption": train["shuffle_caption"],
        "keep_tokens": train["keep_tokens"],
        "caption_dropout_rate": float(train["caption_dropout_rate"]),
        "flip_aug": train["flip_aug"],
    }
    dataset: dict[str, Any] = {
        "resolution": train["resolution"] or 512,
        "batch_size": train["train_batch_size"],
        **{key: train[key] for key in ("enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale")},
        "subsets": [_subset(source, index) for index in range(len(source.folders))],
    }
    atomic_write(out / "dataset.toml", tomlkit.dumps({"general": general, "datasets": [dataset]}))
    rows = {
        picture.resolve().as_posix(): {"caption": source.caption(folder, picture), "tags": source.caption(folder, picture)}
        for folder in source.folders
        if not folder.is_reg
        for picture in folder.pictures
    }
    atomic_write(out / "metadata.json", json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


def _subset(source: Source, index: int) -> dict[str, Any]:
    folder = source.folders[index]
    subset: dict[str, Any] = {"image_dir": str(folder.path.resolve()), "num_repeats": folder.repeats}
    if folder.is_reg:
        subset["is_reg"] = True
    if not all(caption_path(picture).exists() for picture in folder.pictures):
        subset["class_tokens"] = folder.concept
    if source.masked(folder):
        subset["alpha_mask"] = True
    return subset | dict(source.own.get(folder.path, {}))  # sd-scripts calls these settings as we do
