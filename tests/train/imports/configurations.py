"""Twenty configurations as people keep them: training TOML, dataset TOML, scripts, argument texts and forms of the GUI."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """Files to write, which of them are imported, and what must come out."""

    name: str
    files: dict[str, str]
    train: dict[str, Any] = field(default_factory=dict)  # settings that must stand in [train]
    project: dict[str, str] = field(default_factory=dict)
    lost: tuple[str, ...] = ()  # arguments that cannot be taken, all of them
    subsets: list[dict[str, Any]] | None = None
    sources: tuple[str, ...] = ()  # what is imported; the last file if empty


FORM: dict[str, Any] = {
    "LoRA_type": "Standard", "LyCORIS_preset": "full", "adaptive_noise_scale": 0, "additional_parameters": "", "async_upload": False,
    "block_alphas": "", "block_dims": "", "block_lr_zero_threshold": "", "bucket_no_upscale": True, "bucket_reso_steps": 64, "bypass_mode": False,
    "cache_latents": True, "cache_latents_to_disk": False, "caption_dropout_every_n_epochs": 0, "caption_dropout_rate": 0,
    "caption_extension": ".txt", "clip_skip": "1", "color_aug": False, "constrain": 0, "conv_alpha": 1, "conv_dim": 1, "dataset_config": "",
    "debiased_estimation_loss": False, "decompose_both": False, "dim_from_weights": False, "dora_wd": False, "down_lr_weight": "",
    "dynamo_backend": "no", "dynamo_mode": "default", "enable_bucket": True, "epoch": 10, "extra_accelerate_launch_args": "", "factor": -1,
    "flip_aug": False, "fp8_base": False, "full_bf16": False, "full_fp16": False, "gpu_ids": "", "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False, "huber_c": 0.1, "huber_schedule": "snr", "huggingface_repo_id": "", "huggingface_token": "",
    "ip_noise_gamma": 0, "ip_noise_gamma_random_strength": False, "keep_tokens": 0, "learning_rate": 0.0001, "log_tracker_config": "",
    "log_tracker_name": "", "log_with": "", "logging_dir": "", "loss_type": "l2", "lr_scheduler": "cosine", "lr_scheduler_args": "",
    "lr_scheduler_num_cycles": 1, "lr_scheduler_power": 1, "lr_warmup": 10, "main_process_port": 0, "masked_loss": False,
    "max_bucket_reso": 2048, "max_data_loader_n_workers": 0, "max_grad_norm": 1, "max_resolution": "512,512", "max_timestep": 1000,
    "max_token_length": "75", "max_train_epochs": 0, "max_train_steps": 0, "mem_eff_attn": False, "mid_lr_weight": "", "min_bucket_reso": 256,
    "min_snr_gamma": 0, "min_timestep": 0, "mixed_precision": "fp16", "model_list": "custom", "module_dropout": 0, "multi_gpu": False,
    "multires_noise_discount": 0, "multires_noise_iterations": 0, "network_alpha": 16, "network_dim": 32, "network_dropout": 0,
    "network_weights": "", "noise_offset": 0, "noise_offset_random_strength": False, "noise_offset_type": "Original",
    "num_cpu_threads_per_process": 2, "num_machines": 1, "num_processes": 1, "optimizer": "AdamW8bit", "optimizer_args": "",
    "output_dir": "./model", "output_name": "form", "persistent_data_loader_workers": False,
    "pretrained_model_name_or_path": "runwayml/stable-diffusion-v1-5", "prior_loss_weight": 1, "random_crop": False, "rank_dropout": 0,
    "rank_dropout_scale": False, "reg_data_dir": "", "rescaled": False, "resume": "", "sample_every_n_epochs": 0, "sample_every_n_steps": 0,
    "sample_prompts": "", "sample_sampler": "euler_a", "save_every_n_epochs": 1, "save_every_n_steps": 0, "save_last_n_steps": 0,
    "save_model_as": "safetensors", "save_precision": "fp16", "save_state": False, "scale_v_pred_loss_like_noise_pred": False,
    "scale_weight_norms": 0, "sdxl": False, "sdxl_cache_text_encoder_outputs": False, "sdxl_no_half_vae": False, "seed": 0,
    "shuffle_caption": False, "stop_text_encoder_training": 0, "text_encoder_lr": 0, "train_batch_size": 1, "train_data_dir": "./img",
    "train_norm": False, "train_on_input": True, "training_comment": "", "unet_lr": 0, "unit": 1, "up_lr_weight": "", "use_cp": False,
    "use_scalar": False, "use_tucker": False, "use_wandb": False, "v2": False, "v_parameterization": False, "v_pred_like_loss": 0, "vae": "",
    "vae_batch_size": 0, "wandb_api_key": "", "wandb_run_name": "", "weighted_captions": False, "xformers": "xformers",
    "flux1_checkbox": False, "flux1_t5xxl": "", "sd3_checkbox": False, "t5xxl": "", "blocks_to_swap": 0,
}  # fmt: skip


def form(**changes: Any) -> dict[str, str]:
    return {"form.json": json.dumps({**FORM, **changes}, indent=1)}


# fmt: off
CASES = [
    Case(
        "a script of SD 1.5 with LoCon",
        {
            "train.sh": "#!/bin/bash\nMODEL=/m/any.safetensors\naccelerate launch --num_cpu_threads_per_process=2 train_network.py \\\n"
            ' --pretrained_model_name_or_path="$MODEL" --train_data_dir=./data/img --reg_data_dir=./data/reg --resolution=512,768 \\\n'
            " --output_name=mira --network_module=networks.lora --network_dim=32 --network_alpha=16 \\\n"
            ' --network_args "conv_dim=8" "conv_alpha=4" --learning_rate=1e-4 --text_encoder_lr=5e-5 --optimizer_type=Lion8bit \\\n'
            ' --optimizer_args weight_decay=0.1 "betas=0.9,0.99" --lr_scheduler=cosine --lr_warmup_steps=100 --max_train_steps=1500 \\\n'
            " --xformers --mixed_precision=fp16 --clip_skip=2 --keep_tokens=1 --enable_bucket --shuffle_caption --seed 7\n"
        },
        {"network_dim": 32, "network_alpha": 16.0, "conv_dim": 8, "conv_alpha": 4.0, "text_encoder_lr": 5e-5, "optimizer": "lion8bit",
         "optimizer_args": "weight_decay=0.1 betas=0.9,0.99", "max_train_steps": 1500, "clip_skip": 2, "seed": 7, "resolution": 627,
         "shuffle_caption": True, "alpha_mask": False},
        {"base": "/m/any.safetensors", "tree": "data", "name": "mira"},
    ),
    Case(
        "a training TOML in sections",
        {
            "config.toml": '[model_arguments]\npretrained_model_name_or_path = "stabilityai/sdxl-base"\nv2 = false\n[dataset_arguments]\n'
            'train_data_dir = "D:/lora/img"\nresolution = "1024,1024"\nenable_bucket = true\nmin_bucket_reso = 512\nmax_bucket_reso = 2048\n'
            '[training_arguments]\noutput_dir = "D:/lora/model"\noutput_name = "style"\nmax_train_epochs = 8\ntrain_batch_size = 4\n'
            'optimizer_type = "AdamW8bit"\nunet_lr = 4e-4\ntext_encoder_lr = [1e-4, 5e-5]\nmin_snr_gamma = 5\nnoise_offset = 0.0357\n'
            'network_module = "networks.lora"\nnetwork_dim = 8\nnetwork_alpha = 4\nsdpa = true\nno_half_vae = true\nbucket_no_upscale = true\n'
            'mixed_precision = "bf16"\nsave_precision = "float"\nscript = "sdxl_train_network.py"\n'
        },
        {"resolution": 1024, "num_epochs": 8, "unet_lr": 4e-4, "text_encoder_lr": 1e-4, "network_reg_lrs": "lora_te1=0.0001 lora_te2=5e-05",
         "min_snr_gamma": 5.0, "noise_offset": 0.0357, "mixed_precision": "bf16", "save_precision": "fp32", "max_bucket_reso": 2048},
        {"tree": "D:/lora", "base": "stabilityai/sdxl-base"},
    ),
    Case(
        "a dataset TOML in tree folders",
        {
            "set.toml": '[general]\nshuffle_caption = true\nkeep_tokens = 2\ncaption_extension = ".txt"\n[[datasets]]\nresolution = 768\n'
            'batch_size = 2\n'
            'enable_bucket = true\n[[datasets.subsets]]\nimage_dir = "tree/img/10_mira 1girl"\nnum_repeats = 10\n[[datasets.subsets]]\n'
            'image_dir = "tree/img/2_mira"\nnum_repeats = 4\nkeep_tokens = 1\nflip_aug = true\n[[datasets.subsets]]\nis_reg = true\n'
            'image_dir = "tree/reg/1_1girl"\nclass_tokens = "1girl"\n'
        },
        {"resolution": 768, "train_batch_size": 2, "shuffle_caption": True, "keep_tokens": 2},
        {"tree": "tree", "keyword": "mira", "class": "1girl"},
        subsets=[{"image_dir": "img/2_mira", "num_repeats": 4, "keep_tokens": 1, "flip_aug": True}],
    ),
    Case(
        "a dataset TOML of folders anywhere, at two sizes",
        {
            "set.toml": '[general]\nenable_bucket = true\ncaption_dropout_rate = 0.05\n[[datasets]]\nresolution = [512, 512]\nbatch_size = 4\n'
            '[[datasets.subsets]]\nimage_dir = "close ups"\nclass_tokens = "mira girl"\nnum_repeats = 3\ncolor_aug = true\n[[datasets]]\n'
            'resolution = 768\nbatch_size = 2\nbucket_reso_steps = 32\n[[datasets.subsets]]\nimage_dir = "whole"\nnum_repeats = 2\n'
            '[[datasets.subsets]]\nimage_dir = "close ups"\nnum_repeats = 1\n'
        },
        {"resolution": 512, "train_batch_size": 4, "caption_dropout_rate": 0.05},
        {"tree": "tree", "keyword": "mira", "class": "girl"},
        ("datasets 2 resolution", "datasets 2 batch_size", "datasets 2 bucket_reso_steps", "subset 3 image_dir", "subset 3 num_repeats"),
        subsets=[{"image_dir": "img/3_mira girl", "color_aug": True}],
    ),
    Case(
        "a training TOML and its data set, named from a script",
        {
            "set.toml": '[[datasets]]\nresolution = 640\n[[datasets.subsets]]\nimage_dir = "/t/img/5_sks dog"\nnum_repeats = 5\n',
            "cfg.toml": 'network_module = "networks.lora"\nnetwork_dim = 16\nlearning_rate = 2e-4\nmax_train_epochs = 4\nseed = 1\n',
            "run.bat": "@echo off\r\naccelerate launch ^\r\n train_network.py "
            "--config_file=cfg.toml ^\r\n --dataset_config=set.toml --network_dim=64\r\n",
        },
        {"network_dim": 64, "network_alpha": 1.0, "learning_rate": 2e-4, "num_epochs": 4, "resolution": 640, "seed": 1},
        {"tree": "/t"},
        subsets=[],
    ),
    Case("the plain form of the GUI", form(),
        {"network_dim": 32, "lr_warmup_ratio": 0.1, "num_epochs": 10, "optimizer": "adamw8bit"}, {"name": "form"}),
    Case(
        "a form of LyCORIS' LoKr",
        form(LoRA_type="LyCORIS/LoKr", factor=8, decompose_both=True, conv_dim=4, conv_alpha=2, use_scalar=True, module_dropout=0.1),
        {"network_algo": "lokr", "network_args": "decompose_both=True factor=8", "conv_dim": 4, "module_dropout": 0.1},
        lost=("use_scalar",),
    ),
    Case(
        "a form of LyCORIS' LoCon with DoRA on SDXL",
        form(LoRA_type="LyCORIS/LoCon", dora_wd=True, sdxl=True, clip_skip=2, max_resolution="1024,1024", LyCORIS_preset="attn-mlp",
             sdxl_no_half_vae=True, sdxl_cache_text_encoder_outputs=True, additional_parameters="--network_train_unet_only --max_grad_norm=0"),
        {"network_algo": "dora", "conv_dim": 1, "train_text_encoder": False, "cache_text_encoder_outputs": True, "max_grad_norm": 0.0},
        lost=("LyCORIS_preset",),
    ),
    Case(
        "a form with Prodigy and a rate of its own for each part",
        form(optimizer="Prodigy", learning_rate=1, unet_lr=1, text_encoder_lr=0.5, lr_scheduler="constant", lr_warmup=5,
             optimizer_args="decouple=True weight_decay=0.01 d_coef=2 use_bias_correction=True"),
        {"optimizer": "prodigy", "learning_rate": 1.0, "lr_scheduler": "constant",
         "optimizer_args": "weight_decay=0.01 use_bias_correction=True safeguard_warmup=False decouple=True d_coef=2"},
    ),
    Case(
        "a form of Adafactor with a relative step, pyramid noise and steps in place of epochs",
        form(optimizer="Adafactor", lr_scheduler="adafactor", optimizer_args=[], noise_offset_type="Multires", noise_offset=0.05,
             multires_noise_iterations=6, multires_noise_discount=0.3, max_train_steps=2000, text_encoder_lr=0.00005, unet_lr=0.0001),
        {"optimizer": "adafactor", "multires_noise_iterations": 6, "max_train_steps": 2000, "lr_scheduler": "constant", "unet_lr": 1e-4},
        lost=("lr_scheduler",),
    ),
    Case(
        "a form with what cannot be had",
        form(fp8_base=True, full_fp16=True, stop_text_encoder_training=50, wandb_api_key="SECRET", huggingface_repo_id="me/lora", resume="./state",
             sample_prompts="a girl --n bad\na boy", save_model_as="ckpt", caption_extension=".cap", v_pred_like_loss=0.1, training_comment="first"),
        {"sample_every_n_steps": None},
        lost=("fp8_base", "full_fp16", "stop_text_encoder_training", "wandb_api_key", "huggingface_repo_id", "resume", "sample_prompts",
              "save_model_as", "caption_extension", "v_pred_like_loss", "training_comment"),
    ),
    Case(
        "the arguments alone, of SD 2.x with v-prediction",
        {},
        {"prediction_type": "v_prediction", "zero_terminal_snr": True, "train_unet": False, "network_alpha": 8.0, "max_train_steps": 1600},
        lost=("scale_v_pred_loss_like_noise_pred",),
        sources=(
            "--v2 --v_parameterization --zero_terminal_snr --scale_v_pred_loss_like_noise_pred --network_train_text_encoder_only"
            " --network_alpha=0 --network_dim=8 --learning_rate 1e-4",
        ),
    ),
    Case(
        "PowerShell with DAdaptation and block weights",
        {
            "train.ps1": '$dir = "C:\\train"\naccelerate launch "C:\\kohya\\train_network.py" `\n --train_data_dir="$dir\\img" `\n'
            " --optimizer_type=DAdaptation --unet_lr=1 --text_encoder_lr=1 --learning_rate=1 --network_dim=16 --network_alpha=8 `\n"
            ' --network_args "down_lr_weight=sine" "mid_lr_weight=1" "up_lr_weight=cosine+.25" "block_lr_zero_threshold=0.1"'
            " --prior_loss_weight=0.5\n"
        },
        {"optimizer": "dadaptadam", "optimizer_args": "weight_decay=0.0 decouple=False", "down_lr_weight": "sine", "up_lr_weight": "cosine+.25",
         "block_lr_zero_threshold": 0.1, "prior_loss_weight": 0.5},
        {"tree": "C:/train"},
    ),
    Case(
        "a TOML with losses, masks and timesteps",
        {
            "config.toml": 'pretrained_model_name_or_path = "a/b"\nloss_type = "smooth_l1"\nhuber_schedule = "exponential"\nhuber_c = 0.2\n'
            "masked_loss = true\nmin_timestep = 100\nmax_timestep = 900\nip_noise_gamma = 0.1\nip_noise_gamma_random_strength = true\n"
            "min_snr_gamma = 5.0\ndebiased_estimation_loss = true\nhuber_scale = 2.0\nmax_token_length = 225\nweighted_captions = true\n"
            "adaptive_noise_scale = 0.01\nnoise_offset_random_strength = true\n"
        },
        {"loss_type": "smooth_l1", "huber_c": 0.2, "alpha_mask": True, "min_timestep": 100, "max_timestep": 900, "ip_noise_gamma": 0.1,
         "min_snr_gamma": 5.0, "max_token_length": 225, "weighted_captions": True},
        lost=("debiased_estimation_loss", "huber_scale"),
    ),
    Case(
        "a TOML of captions",
        {
            "config.toml": 'shuffle_caption = true\nkeep_tokens_separator = "|||"\nsecondary_separator = ";;;"\nenable_wildcard = true\n'
            'caption_prefix = "masterpiece, "\ncaption_suffix = "art"\ncaption_tag_dropout_rate = 0.1\ncaption_dropout_every_n_epochs = 5\n'
            'token_warmup_min = 2\ntoken_warmup_step = 0.5\nalpha_mask = true\nface_crop_aug_range = "2.0,4.0"\ncaption_separator = ";"\n'
        },
        {"keep_tokens_separator": "|||", "secondary_separator": ";;;", "caption_prefix": "masterpiece, ", "caption_tag_dropout_rate": 0.1,
         "token_warmup_step": 0.5, "alpha_mask": True},
        lost=("face_crop_aug_range", "caption_separator"),
    ),
    Case(
        "a whole model",
        {"go.sh": "accelerate launch train_db.py --use_8bit_adam --learning_rate=1e-6 --train_text_encoder"
            " --max_train_epochs 5 --save_n_epoch_ratio=2"},
        {"full": True, "optimizer": "adamw8bit", "learning_rate": 1e-6, "save_every_n_epochs": 2},
    ),
    Case(
        "going on from a LoRA, others merged first",
        {
            "config.toml": 'network_weights = "old.safetensors"\ndim_from_weights = true\nbase_weights = ["a.safetensors", "b.safetensors"]\n'
            'base_weights_multiplier = [1.0, 0.5]\noptimizer_type = "AdamWScheduleFree"\nlr_scheduler = "cosine"\nscale_weight_norms = 1\n'
            "save_every_n_steps = 100\nsave_last_n_steps = 300\nsample_every_n_epochs = 1\nsample_every_n_steps = 50\nlr_decay_steps = 0.2\n"
        },
        {"network_weights": "old.safetensors", "dim_from_weights": True, "base_weights": "a.safetensors|b.safetensors", "lr_scheduler": "constant",
         "base_weights_multiplier": "1.0,0.5", "save_last_n": 4, "sample_every_n_epochs": 1, "optimizer_args": "weight_decay=0.0"},
        lost=("lr_decay_steps",),
    ),
    Case(
        "LoRA+, custom classes and unknown words",
        {
            "config.toml": 'network_args = ["loraplus_lr_ratio=16", "rank_dropout=0.1", "convdim=4"]\noptimizer_type = "pytorch_optimizer.CAME"\n'
            'lr_scheduler_type = "LoraEasyCustomOptimizer.RexAnnealingWarmRestarts.REX"\n'
            'learning_rat = 0.1\nfrobnicate = 3\nnetwork_module = "networks.lora"\n'
        },
        {"loraplus_lr_ratio": 16.0, "rank_dropout": 0.1, "optimizer": "pytorch_optimizer:CAME", "lr_scheduler": "rex"},
        lost=("network_args convdim", "learning_rat", "frobnicate"),
    ),
    Case(
        "LoHa with what it has not",
        {
            "config.toml": 'network_module = "lycoris.kohya"\nnetwork_args = ["algo=loha", "preset=full", "conv_dim=4", "use_cp=True",'
            ' "train_norm=False",'
            ' "loraplus_lr_ratio=4"]\nnetwork_dropout = 0.1\nscale_weight_norms = 1.0\nnetwork_dim = 8\nnetwork_alpha = 4\noptimizer_type = "Frob"\n'
        },
        {"network_algo": "loha", "network_args": "use_tucker=True", "conv_dim": 4, "conv_alpha": 4.0, "scale_weight_norms": 1.0,
         "optimizer": "adamw"},
        lost=("network_dropout", "network_args loraplus_lr_ratio", "optimizer_type"),
    ),
    Case(
        "two files, the later one wins",
        {"a.toml": "learning_rate = 1e-4\nseed = 1\nunet_lr = 0\n",
         "b.toml": 'learning_rate = 3e-4\nlr_scheduler = "linear"\nlr_warmup_steps = 0.1\n'},
        {"learning_rate": 3e-4, "seed": 1, "train_unet": False, "lr_scheduler": "linear", "lr_warmup_ratio": 0.1},
        sources=("a.toml", "b.toml"),
    ),
]
# fmt: on
