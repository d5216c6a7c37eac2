"""What a LoRA file says about itself: the ss_* keys that the web UIs show, and the modelspec.* keys (modelspec 1.0.1)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.config import TrainConfig
    from train.families.sd import Model

Facts = Mapping[str, Any]  # key -> value in its own type; None is written as the word None, as readers expect


def build_metadata(config: TrainConfig, model: Model, summary: Facts, progress: Facts) -> dict[str, str]:
    """Gather a file's metadata, all values as text; the hashes are added when it is saved.

    `summary` is TrainingSet.summary(); `progress` holds steps, epochs and max_train_steps and, where known, started_at and
    finished_at (seconds since 1970, default now) and mixed_precision (what "auto" became).
    """
    now = time.time()
    progress = {"started_at": now, "finished_at": now, "mixed_precision": config.output.mixed_precision, **progress}
    facts = {
        **_model_facts(config, model),
        **_data_facts(config, summary),
        **_training_facts(config),
        **_progress_facts(config, progress),
        **_modelspec(config, model, summary, progress),
    }
    return {key: _text(value) for key, value in sorted(facts.items())}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _model_facts(config: TrainConfig, model: Model) -> Facts:
    network = config.network
    v_prediction = model.prediction_type == "v_prediction"
    return {
        # The web UI picks the family by these two alone; without them an SDXL user would not even see the file.
        "ss_base_model_version": model.family.version(v_prediction),
        "ss_v2": model.family.base_version.startswith("sd_v2"),
        "ss_sd_model_name": Path(config.model.base).name,  # a hub id ends in a name too
        "ss_output_name": config.output.output_name,
        "ss_network_module": "networks.lora",
        "ss_network_dim": network.network_dim,
        "ss_network_alpha": network.network_alpha,
        "ss_network_args": {},
        "ss_network_dropout": None,
        "ss_scale_weight_norms": None,
        "ss_clip_skip": config.model.clip_skip if config.model.clip_skip > 1 else None,
        "ss_max_token_length": config.model.max_token_length if config.model.max_token_length > 75 else None,
        "ss_zero_terminal_snr": False,
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
        "ss_total_batch_size": data.train_batch_size,
        "ss_enable_bucket": data.enable_bucket,
        "ss_min_bucket_reso": data.min_bucket_reso,
        "ss_max_bucket_reso": data.max_bucket_reso,
        "ss_bucket_no_upscale": data.bucket_no_upscale,
        "ss_bucket_info": {"buckets": buckets, "mean_img_ar_error": summary["mean_ar_error"]},
        "ss_dataset_dirs": summary["dataset_dirs"],
        "ss_reg_dataset_dirs": summary["reg_dataset_dirs"],
        "ss_tag_frequency": summary["tag_frequency"],
        "ss_shuffle_caption": data.shuffle_caption,
        "ss_keep_tokens": data.keep_tokens,
        "ss_caption_dropout_rate": data.caption_dropout_rate,
        "ss_caption_dropout_every_n_epochs": 0,
        "ss_caption_tag_dropout_rate": 0.0,
        "ss_flip_aug": data.flip_aug,
        "ss_color_aug": False,
        "ss_random_crop": False,
        "ss_face_crop_aug_range": None,
        "ss_cache_latents": True,
        "ss_prior_loss_weight": data.prior_loss_weight,
    }


def _training_facts(config: TrainConfig) -> Facts:
    optimizer, objective, network = config.optimizer, config.objective, config.network
    rates = {
        "unet": (network.train_unet, optimizer.unet_lr),
        "text_encoder": (network.train_text_encoder, optimizer.text_encoder_lr),
    }
    return {
        "ss_optimizer": optimizer.optimizer,
        "ss_learning_rate": optimizer.learning_rate,
        **{f"ss_{part}_lr": (optimizer.learning_rate if rate is None else rate) if trained else None for part, (trained, rate) in rates.items()},
        "ss_lr_scheduler": optimizer.lr_scheduler,
        "ss_max_grad_norm": optimizer.max_grad_norm,
        "ss_gradient_accumulation_steps": optimizer.gradient_accumulation_steps,
        "ss_gradient_checkpointing": False,
        "ss_min_snr_gamma": objective.min_snr_gamma or None,
        "ss_noise_offset": objective.noise_offset or None,
        "ss_multires_noise_iterations": None,
        "ss_multires_noise_discount": 0.3,
        "ss_adaptive_noise_scale": None,
        "ss_ip_noise_gamma": None,
        "ss_loss_type": objective.loss_type,
        "ss_huber_schedule": "snr",
        "ss_huber_c": 0.1,
        "ss_debiased_estimation": False,
        "ss_full_fp16": False,
        "ss_lowram": False,
        "ss_training_comment": None,
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
