"""What a LoRA file says about itself: the ss_* keys that the web UIs show, and the modelspec.* keys (modelspec 1.0.1)."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.tree import MANIFEST
from train.adapters import ADAPTERS
from train.adapters.settings import algo_arguments
from train.config import NetworkConfig, TrainConfig
from train.optimizers import learning_rates, samples_per_step

if TYPE_CHECKING:
    from train.families.sd import Model

# Key, the setting it comes from, and what it is where there is no such setting; None is also written for a setting that is off.
SETTINGS: tuple[tuple[str, str, Any], ...] = (
    ("ss_shuffle_caption", "shuffle_caption", False),
    ("ss_keep_tokens", "keep_tokens", 0),
    ("ss_caption_dropout_rate", "caption_dropout_rate", 0.0),
    ("ss_caption_dropout_every_n_epochs", "caption_dropout_every_n_epochs", 0),
    ("ss_caption_tag_dropout_rate", "caption_tag_dropout_rate", 0.0),
    ("ss_flip_aug", "flip_aug", False),
    ("ss_color_aug", "color_aug", False),
    ("ss_random_crop", "random_crop", False),
    ("ss_face_crop_aug_range", "face_crop_aug_range", None),
    ("ss_cache_latents", "cache_latents", True),
    ("ss_prior_loss_weight", "prior_loss_weight", 1.0),
    ("ss_learning_rate", "learning_rate", 0.0),
    ("ss_lr_scheduler", "lr_scheduler", ""),
    ("ss_max_grad_norm", "max_grad_norm", 1.0),
    ("ss_gradient_accumulation_steps", "gradient_accumulation_steps", 1),
    ("ss_gradient_checkpointing", "gradient_checkpointing", False),
    ("ss_min_snr_gamma", "min_snr_gamma", None),
    ("ss_noise_offset", "noise_offset", None),
    ("ss_noise_offset_random_strength", "noise_offset_random_strength", False),
    ("ss_multires_noise_iterations", "multires_noise_iterations", None),
    ("ss_multires_noise_discount", "multires_noise_discount", 0.3),
    ("ss_adaptive_noise_scale", "adaptive_noise_scale", None),
    ("ss_ip_noise_gamma", "ip_noise_gamma", None),
    ("ss_ip_noise_gamma_random_strength", "ip_noise_gamma_random_strength", False),
    ("ss_loss_type", "loss_type", "l2"),
    ("ss_huber_schedule", "huber_schedule", "snr"),
    ("ss_huber_c", "huber_c", 0.1),
    ("ss_debiased_estimation", "debiased_estimation_loss", False),
    ("ss_full_fp16", "full_fp16", False),
    ("ss_lowram", "lowram", False),
    ("ss_training_comment", "training_comment", None),
)
# What sd-scripts writes as ss_network_args, where it is not the default.
NETWORK_ARGS = (
    "conv_dim", "conv_alpha", "rank_dropout", "module_dropout", "block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas",
    "down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_lr_zero_threshold", "network_reg_dims", "network_reg_lrs", "loraplus_lr_ratio",
    "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio", "rs_lora",
)  # fmt: skip
LYCORIS_NAMES = {"dora": "lora"}
# Settings that are paths: a file that is shared need not say how its maker's folders are called.
PATHS = ("base", "vae", "tree", "output_dir", "sample_prompts", "network_weights", "base_weights")

Facts = Mapping[str, Any]  # key -> value in its own type; None is written as the word None, as readers expect


def build_metadata(config: TrainConfig, model: Model, summary: Facts, progress: Facts) -> dict[str, str]:
    """Gather a file's metadata, all values as text; the hashes are added when it is saved.

    `summary` is TrainingSet.summary(); `progress` holds steps, epochs and max_train_steps and, where known, started_at and
    finished_at (seconds since 1970, default now), mixed_precision (what "auto" became), and the dims and alphas of the layers.
    """
    now = time.time()
    progress = {"started_at": now, "finished_at": now, "mixed_precision": config.output.mixed_precision, **progress}
    facts = {
        **_model_facts(config, model),
        **_network_facts(config, progress),
        **_data_facts(config, summary),
        **_settings_facts(config),
        **_rate_facts(config, summary.get("processes", 1)),
        **_progress_facts(config, progress),
        **_modelspec(config, model, summary, progress),
        **_origin(config),
    }
    return {key: _text(value) for key, value in sorted(facts.items())}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _model_facts(config: TrainConfig, model: Model) -> Facts:
    v_prediction = model.prediction_type == "v_prediction"
    return {
        # The web UI picks the family by these two alone; without them an SDXL user would not even see the file.
        "ss_base_model_version": model.family.version(v_prediction),
        "ss_v2": model.family.base_version.startswith("sd_v2"),
        "ss_sd_model_name": Path(config.model.base).name,  # a hub id ends in a name too
        "ss_output_name": config.output.output_name,
        "ss_clip_skip": config.model.clip_skip if config.model.clip_skip > 1 else None,
        "ss_max_token_length": config.model.max_token_length if config.model.max_token_length > 75 else None,
        "ss_zero_terminal_snr": bool(model.scheduler_config.get("rescale_betas_zero_snr", False)),
    }


def _data_facts(config: TrainConfig, summary: Facts) -> Facts:
    data = config.data
    buckets = {str(number): {"resolution": list(bucket["size"]), "count": bucket["count"]} for number, bucket in enumerate(summary["buckets"])}
    return {
        "ss_num_train_images": summary["train_samples"],
        "ss_num_reg_images": summary["reg_samples"],
        "ss_num_validation_images": 0,
        "ss_num_batches_per_epoch": summary["batches_per_epoch"],
        "ss_resolution": str(tuple(summary["resolution"])),
        "ss_batch_size_per_device": data.train_batch_size,
        "ss_total_batch_size": data.train_batch_size * summary.get("processes", 1),
        "ss_enable_bucket": data.enable_bucket,
        "ss_min_bucket_reso": data.min_bucket_reso,
        "ss_max_bucket_reso": data.max_bucket_reso,
        "ss_bucket_no_upscale": data.bucket_no_upscale,
        "ss_bucket_info": {"buckets": buckets, "mean_img_ar_error": summary["mean_ar_error"]},
        "ss_dataset_dirs": summary["dataset_dirs"],
        "ss_reg_dataset_dirs": summary["reg_dataset_dirs"],
        "ss_tag_frequency": summary["tag_frequency"],
    }


def _network_facts(config: TrainConfig, progress: Facts) -> Facts:
    """Say what the adapter is; readers that resize or merge take "Dynamic" for ranks or alphas that differ by layer."""
    network = config.network
    row = ADAPTERS[network.network_algo]
    found: dict[str, Any] = {"dims": network.network_dim, "alphas": network.network_alpha}
    for name in found:
        if several := progress.get(name):
            found[name] = next(iter(several)) if len(several) == 1 else "Dynamic"
    given = {key: getattr(network, key) for key in NETWORK_ARGS}
    plain = NetworkConfig()
    arguments: dict[str, Any] = {key: str(value) for key, value in given.items() if value != getattr(plain, key)}
    if network.network_algo != "lora":
        arguments = {"algo": LYCORIS_NAMES.get(network.network_algo, network.network_algo), **arguments, **algo_arguments(network)}
    if network.network_algo == "dora":
        arguments["dora_wd"] = True
    return {
        "ss_network_module": row.module,
        "ss_network_dim": found["dims"],
        "ss_network_alpha": found["alphas"],
        "ss_network_args": arguments,
        "ss_network_dropout": network.network_dropout or None,
        "ss_scale_weight_norms": network.scale_weight_norms or None,
    }


def _settings_facts(config: TrainConfig) -> Facts:
    flat = config.flat()

    def fact(setting: str, otherwise: Any) -> Any:
        value = flat.get(setting, otherwise)
        return otherwise if not value and otherwise in (None, False) else value

    return {key: fact(setting, otherwise) for key, setting, otherwise in SETTINGS}


def _rate_facts(config: TrainConfig, processes: int) -> Facts:
    optimizer, network = config.optimizer, config.network
    trained = {"unet": network.train_unet, "text_encoder": network.train_text_encoder}
    rates = learning_rates(optimizer, samples_per_step(config, processes))
    arguments = f"({','.join(optimizer.optimizer_args.split())})" if optimizer.optimizer_args else ""
    return {"ss_optimizer": optimizer.optimizer + arguments, **{f"ss_{part}_lr": rates[part] if trained[part] else None for part in rates}}


def _origin(config: TrainConfig) -> Facts:
    """Hold the whole settings, paths cut to their names, and the hash of the tree's manifest, which says what each picture came from."""
    settings = {key: Path(str(value)).name if key in PATHS and value else value for key, value in config.flat().items()}
    manifest = config.data.tree / MANIFEST
    return {
        "atelier_settings": settings,
        "atelier_tree_manifest": hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else None,
    }


def _progress_facts(config: TrainConfig, progress: Facts) -> Facts:
    warmup = 0 if config.optimizer.lr_scheduler == "constant" else int(config.optimizer.lr_warmup_ratio * progress["max_train_steps"])
    return {
        "ss_steps": progress["steps"],
        "ss_max_train_steps": progress["max_train_steps"],
        "ss_epoch": progress["epochs"],
        "ss_num_epochs": config.data.num_epochs,
        "ss_lr_warmup_steps": warmup,
        "ss_mixed_precision": progress["mixed_precision"],
        "ss_seed": config.output.seed,
        # Groups the files of one run in the readers that list epochs.
        "ss_session_id": int(progress["started_at"] * 1000) % 2**32,
        "ss_training_started_at": progress["started_at"],
        "ss_training_finished_at": progress["finished_at"],
    }


def _modelspec(config: TrainConfig, model: Model, summary: Facts, progress: Facts) -> Facts:
    family, v_prediction = model.family, model.prediction_type == "v_prediction"
    width, height = summary["resolution"]
    spec = {
        "sai_model_spec": "1.0.1",
        "architecture": family.v_architecture if v_prediction else family.architecture,
        "implementation": family.implementation,
        "title": config.output.output_name,
        "resolution": f"{width}x{height}",
        "date": datetime.fromtimestamp(progress["finished_at"], UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "prediction_type": "v" if v_prediction else "epsilon",
    }
    if config.data.keyword:
        spec["trigger_phrase"] = config.data.keyword
    if config.model.clip_skip > 1:
        spec["encoder_layer"] = str(config.model.clip_skip)
    return {f"modelspec.{key}": value for key, value in spec.items()}
