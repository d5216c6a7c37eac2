"""What the settings need beside their arguments: sd-scripts' defaults where ours differ, and an end to what cannot stand together here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prep.options import settings_of
from train.adapters import ADAPTERS
from train.config import NetworkConfig
from train.conflicts import FULL
from train.imports.network_rules import dims
from train.imports.optimizer_rules import optimizer_args
from train.imports.outcome import Arguments
from train.optimizers import row_of

# sd-scripts' defaults of settings whose defaults differ here (library/train_util.py and train_network.py of kohya-ss/sd-scripts).
DATA_DEFAULTS: dict[str, Any] = {"shuffle_caption": False, "keep_tokens": 0, "enable_bucket": False, "alpha_mask": False}
RUN_DEFAULTS: dict[str, Any] = {
    "learning_rate": 2e-6,
    "lr_scheduler": "constant",
    "lr_warmup_ratio": 0.0,
    "save_precision": "fp32",
    "mixed_precision": "no",
}
STEPS = 1600


def defaults(settings: Mapping[str, Any], arguments: Arguments, is_run: bool) -> dict[str, Any]:
    """Return what sd-scripts does where nothing was said, as far as we would do another thing."""
    found = dict(DATA_DEFAULTS)
    if is_run:
        found |= RUN_DEFAULTS
        if row_of(settings.get("optimizer", "adamw")).finds_rate:
            found["learning_rate"] = 1.0
        if not settings.get("full") and not settings.get("dim_from_weights"):
            dim, alpha = dims(arguments)
            found |= {"network_dim": dim, "network_alpha": alpha}
        if "num_epochs" not in settings:
            found |= {"max_train_steps": STEPS, "num_epochs": STEPS}
        text, _ = optimizer_args(arguments)
        if text:
            found["optimizer_args"] = text
    return {key: value for key, value in found.items() if key not in settings}


def conflicts(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each setting that cannot stand here beside the others, with the reason."""
    network = {setting.key for setting in settings_of(NetworkConfig)}
    row = ADAPTERS[settings.get("network_algo", "lora")]
    for key in settings:
        if settings.get("full") and (key in network and key not in FULL):
            yield key, "the whole model is trained, without an adapter"
        elif key == "dim_from_weights" and settings[key] and not settings.get("network_weights"):
            yield key, "network_weights is not set"
        elif key in ("block_alphas", "conv_block_alphas") and not settings.get(key.replace("alphas", "dims")):
            yield key, f"{key.replace('alphas', 'dims')} is not set"
        elif key == "base_weights_multiplier" and not settings.get("base_weights"):
            yield key, "base_weights is not set"
        elif key == "rs_lora" and settings[key] and not row.has_rank:
            yield key, f"{settings.get('network_algo')} has no alpha that it could scale"
        elif key == "conv_alpha" and not (settings.get("conv_dim") or settings.get("conv_block_dims")):
            yield key, "conv_dim is not set"
