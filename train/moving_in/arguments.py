"""What becomes of each argument of sd-scripts' LoRA training: the same setting here, nothing because it is so anyway, or a reason why not.

Arguments that need more than a new name are in OF_THEIR_OWN: train.moving_in.convert and its neighbours turn them.
"""

from __future__ import annotations

# Argument -> the setting that means the same, with the same values.
SAME: dict[str, str] = {
    **{
        name: name
        for name in (
            "vae", "clip_skip", "keep_tokens", "keep_tokens_separator", "secondary_separator", "enable_wildcard", "caption_prefix",
            "caption_suffix", "shuffle_caption", "caption_dropout_rate", "caption_dropout_every_n_epochs", "caption_tag_dropout_rate",
            "token_warmup_min", "token_warmup_step", "color_aug", "flip_aug", "random_crop", "alpha_mask", "train_batch_size",
            "enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale", "weighted_captions",
            "prior_loss_weight", "cache_latents_to_disk", "cache_text_encoder_outputs", "network_dim", "network_alpha", "network_dropout",
            "scale_weight_norms", "network_weights", "dim_from_weights", "learning_rate", "unet_lr", "lr_scheduler_num_cycles",
            "lr_scheduler_power", "max_grad_norm", "gradient_accumulation_steps", "gradient_checkpointing", "loss_type", "huber_schedule",
            "huber_c", "min_snr_gamma", "debiased_estimation_loss", "noise_offset", "noise_offset_random_strength", "adaptive_noise_scale",
            "multires_noise_iterations", "multires_noise_discount", "ip_noise_gamma", "ip_noise_gamma_random_strength", "zero_terminal_snr",
            "min_timestep", "max_timestep", "validation_split", "validate_every_n_epochs", "validate_every_n_steps", "output_name",
            "mixed_precision", "seed", "save_every_n_epochs", "save_every_n_steps", "sample_every_n_epochs", "sample_every_n_steps",
            "log_tracker_name",
        )
    },
    "pretrained_model_name_or_path": "base",
    "output_dir": "output_dir",
    "batch_size": "train_batch_size",
    "class_tokens": "class",
}  # fmt: skip

# What a run here does in any case, or has no need of.
_ATTENTION = "torch's own fused attention is always used"
_LOADER = "pictures are encoded once and batches need no workers"
_LOGS = "the log lies beside the LoRA, in output_dir"
_STATE = "the state is saved as the run goes (save_state_every_n_steps), and a stopped run goes on from it by itself"
_LAUNCH = "torchrun, or the launcher of your choice, says how many processes there are"
_VAE = "the VAE stays in float32"
NEEDLESS: dict[str, str] = {
    "v2": "the family is found from the model's own files",
    "sdxl": "the family is found from the model's own files",
    "tokenizer_cache_dir": "the tokenizer is built in",
    "cache_latents": "pictures are always encoded once",
    "vae_batch_size": "pictures are encoded as memory allows",
    "skip_cache_check": "names in the cache are made from the content, so there is nothing to check",
    "cache_text_encoder_outputs_to_disk": "what is encoded lies on the disk unless cache_latents_to_disk is false",
    "cache_info": "what is known of picture files is always kept",
    "no_half_vae": _VAE,
    "xformers": _ATTENTION,
    "sdpa": _ATTENTION,
    "mem_eff_attn": _ATTENTION,
    "max_data_loader_n_workers": _LOADER,
    "persistent_data_loader_workers": _LOADER,
    "lowram": "weights are loaded straight to where they are used",
    "highvram": "weights are loaded straight to where they are used",
    "disable_mmap_load_safetensors": "files are read as the system does it best",
    "full_fp16": "the adapter's weights stay in float32, which costs little memory",
    "full_bf16": "the adapter's weights stay in float32, which costs little memory",
    "logging_dir": _LOGS,
    "log_prefix": _LOGS,
    "log_config": "all settings are in the LoRA's metadata and in the report",
    "console_log_level": "what a run says is short",
    "console_log_file": _LOGS,
    "console_log_simple": "what a run says is short",
    "save_state": _STATE,
    "save_state_on_train_end": _STATE,
    "save_last_n_epochs_state": _STATE,
    "save_last_n_steps_state": _STATE,
    "output_config": "all settings are in dataset.toml",
    "caption_extention": "captions are .txt or .caption",
    "ddp_timeout": _LAUNCH,
    "ddp_gradient_as_bucket_view": _LAUNCH,
    "ddp_static_graph": _LAUNCH,
    "network_multiplier": "the adapter acts with its full strength while it trains",
    "dataset_class": "there is one kind of data set",
}

# What there is not, or what would mean something else; a value that asks for nothing (false, 0, empty) counts as needless.
_HUB = "a LoRA is a file; `hf upload` puts it on the hub"
_DEEPSPEED = "DeepSpeed is not used; an adapter's gradients and optimizer are small"
_META = "there are no such fields; a text editor's note beside the file, or the hub's page, is the place"
_COMPILE = "whole-model compilation is not offered"
_RESUME = "states of sd-scripts cannot be read; network_weights goes on from a LoRA file"
UNSUPPORTED: dict[str, str] = {
    **dict.fromkeys(
        ("huggingface_repo_id", "huggingface_repo_type", "huggingface_path_in_repo", "huggingface_token", "huggingface_repo_visibility",
         "save_state_to_huggingface", "resume_from_huggingface", "async_upload"), _HUB),
    **dict.fromkeys(
        ("deepspeed", "zero_stage", "offload_optimizer_device", "offload_optimizer_nvme_path", "offload_param_device", "offload_param_nvme_path",
         "zero3_init_flag", "zero3_save_16bit_model", "fp16_master_weights_and_gradients"), _DEEPSPEED),
    **dict.fromkeys(("metadata_title", "metadata_author", "metadata_description", "metadata_license", "metadata_tags", "training_comment"), _META),
    **dict.fromkeys(("torch_compile", "dynamo_backend", "dynamo_mode", "dynamo_use_fullgraph", "dynamo_use_dynamic"), _COMPILE),
    **dict.fromkeys(("resume", "initial_epoch", "initial_step", "skip_until_initial_step"), _RESUME),
    "fp8_base": "the frozen base is kept in the type that is computed in",
    "fp8_base_unet": "the frozen base is kept in the type that is computed in",
    "fused_backward_pass": "an adapter's gradients are small, so there is nothing to gain",
    "cpu_offload_checkpointing": "activations are not moved to the processor",
    "face_crop_aug_range": "`prep crop --mode stages` makes crops of head and body instead",
    "resize_interpolation": "pictures are resized with Lanczos, or by area where they shrink much",
    "custom_attributes": "subsets have no free attributes",
    "caption_separator": "tags are separated by commas",
    "in_json": "captions are read from .txt and .caption beside the pictures; sd-scripts' own tools write those from its JSON",
    "metadata_file": "captions are read from .txt and .caption beside the pictures; sd-scripts' own tools write those from its JSON",
    "conditioning_data_dir": "masks are the picture's own transparency; `prep marks` and `prep subject` make them",
    "debug_dataset": "`prep check` and the first lines of `train run` show what a run would use",
    "huber_scale": "huber_c alone says where the loss turns",
    "scale_v_pred_loss_like_noise_pred": "debiased_estimation_loss or min_snr_gamma weigh timesteps for v-prediction too",
    "v_pred_like_loss": "the loss is that of what the base predicts",
    "validation_seed": "the held-out pictures follow from seed, and copies and crops of one picture stay together",
    "max_validation_steps": "validate_every_n_epochs says how much judging may cost",
    "sample_at_first": "the report shows the base's pictures beside the run's",
    "sample_sampler": "sample pictures are drawn with DDIM",
    "no_metadata": "the web UIs need the metadata; paths in it are cut to names",
    "wandb_run_name": "runs are shown by output_name",
    "log_tracker_config": "W&B reads its own settings from the environment",
    "wandb_api_key": "a secret does not belong in a settings file; run `wandb login`",
    "lr_scheduler_type": "classes of one's own are not loaded; lr_scheduler names the courses",
    "lr_scheduler_args": "classes of one's own are not loaded; lr_scheduler names the courses",
    "lr_decay_steps": "the courses fall to the run's end",
    "lr_scheduler_timescale": "there is no inverse_sqrt course",
    "lr_scheduler_min_lr_ratio": "the courses fall to 0",
    "num_cpu_threads_per_process": "OMP_NUM_THREADS says it",
}  # fmt: skip

# Turned by functions, each of which says what it made of them.
OF_THEIR_OWN = (
    "v_parameterization", "network_module", "network_args", "network_train_unet_only", "network_train_text_encoder_only", "text_encoder_lr",
    "base_weights", "base_weights_multiplier", "optimizer_type", "optimizer_args", "use_8bit_adam", "use_lion_optimizer", "lr_scheduler",
    "lr_warmup_steps", "max_train_steps", "max_train_epochs", "resolution", "max_token_length", "save_precision", "save_model_as",
    "save_last_n_epochs", "save_last_n_steps", "save_n_epoch_ratio", "log_with", "sample_prompts", "masked_loss", "caption_extension",
    "train_data_dir", "reg_data_dir", "dataset_config", "dataset_repeats", "config_file", "image_dir", "is_reg", "num_repeats",
)  # fmt: skip

# What sd-scripts takes where nothing is said, in our settings, where ours is another.
DEFAULTS: dict[str, object] = {
    "learning_rate": 2e-6, "lr_scheduler": "constant", "lr_warmup_ratio": 0.0, "network_dim": 4, "network_alpha": 1.0, "shuffle_caption": False,
    "keep_tokens": 0, "enable_bucket": False, "alpha_mask": False, "save_precision": "fp32", "mixed_precision": "no", "validation_split": 0.0,
    "cache_text_encoder_outputs": False, "reg_use": "sd-scripts",
}  # fmt: skip


def known_arguments() -> list[str]:
    """List every argument that something is said of."""
    return sorted({*SAME, *NEEDLESS, *UNSUPPORTED, *OF_THEIR_OWN})
