"""ai-toolkit: a job YAML with a data set per folder and the settings that both trainers have.

Source: toolkit/config_modules.py and config/examples of ostris/ai-toolkit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from prep.exports import Source
from prep.options import atomic_write
from prep.tree import Folder


def write(source: Source, out: Path) -> None:
    """Write NAME.yaml; the pictures stay in the tree."""
    train = source.settings
    samples = sum(folder.samples for folder in source.folders)
    process = {
        "type": "sd_trainer",
        "training_folder": "output",
        "device": "cuda:0",
        "network": {"type": "lora", "linear": train["network_dim"], "linear_alpha": train["network_alpha"]},
        "save": {"dtype": "float16", "save_every": 250, "max_step_saves_to_keep": 4},
        "datasets": [_dataset(source, folder) for folder in source.folders],
        "train": {
            "batch_size": train["train_batch_size"],
            "steps": max(1, samples // train["train_batch_size"]) * train["num_epochs"],
            "gradient_accumulation_steps": train["gradient_accumulation_steps"],
            "train_unet": train["train_unet"],
            "train_text_encoder": train["train_text_encoder"],
            "gradient_checkpointing": True,
            "noise_scheduler": "ddpm",
            "optimizer": train["optimizer"],
            "lr": train["learning_rate"],
            "dtype": "bf16",
        },
        "model": {"name_or_path": train["base"]},
        "sample": {
            "sampler": "ddpm",
            "sample_every": 250,
            "prompts": [", ".join(filter(None, [source.keyword, source.class_]))],
            "seed": train["seed"],
            "guidance_scale": train["guidance_scale"],
            "sample_steps": train["sample_steps"],
        },
    }
    job = {"job": "extension", "config": {"name": source.name, "process": [process]}, "meta": {"name": "[name]", "version": "1.0"}}
    atomic_write(out / f"{source.name}.yaml", yaml.safe_dump(job, sort_keys=False, allow_unicode=True))


def _dataset(source: Source, folder: Folder) -> dict[str, Any]:
    train = source.of(folder)
    dataset = {
        "folder_path": str(folder.path.resolve()),
        "caption_ext": "txt",
        "default_caption": folder.concept,
        "caption_dropout_rate": float(train["caption_dropout_rate"]),
        "shuffle_tokens": train["shuffle_caption"],
        "keep_tokens": train["keep_tokens"],
        "flip_x": train["flip_aug"],
        "cache_latents_to_disk": True,
        "num_repeats": folder.repeats,
        "resolution": [train["resolution"] or 512],
        "alpha_mask": source.masked(folder),
    }
    return dataset | ({"is_reg": True} if folder.is_reg else {})
