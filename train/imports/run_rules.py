"""Rules for the base model, precision, saving, sample pictures, logging and what only concerns the machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path, PureWindowsPath
from typing import Any

from prep.options import UserError
from train.imports.outcome import (
    CHANGED,
    LOST,
    NEEDLESS,
    OFF,
    TAKEN,
    Arguments,
    Outcome,
    Rule,
    coerced,
    lost,
    needless,
    not_set,
    path_of,
    take,
    take_if_there,
    take_some,
)  # fmt: skip
from train.log import missing

MODEL_SUFFIXES = (".safetensors", ".ckpt", ".pt")


def base(value: Any, arguments: Arguments) -> Outcome:
    """Take the base model: a path, or a hub id as it is."""
    if value in OFF:
        return not_set()
    text = str(value)
    windows = PureWindowsPath(text)
    if windows.suffix.lower() in MODEL_SUFFIXES or windows.drive or Path(text).is_absolute():
        text = arguments.path(text)
    return Outcome(TAKEN, project={"base": text})


def v2(value: Any, arguments: Arguments) -> Outcome:
    """SD 2.x is seen in the file; that a single file of it predicts the noise is not."""
    if not arguments.on("v2"):
        return Outcome(NEEDLESS, text="the family is found in the model's own files")
    if arguments.on("v_parameterization"):
        return Outcome(NEEDLESS, text="the family is found in the model's own files; what it predicts is said by v_parameterization")
    return Outcome(CHANGED, {"prediction_type": "epsilon"}, "the family is found in the file, and without v_parameterization it predicts the noise")


def v_parameterization(value: Any, arguments: Arguments) -> Outcome:
    if arguments.on("v_parameterization"):
        return Outcome(TAKEN, {"prediction_type": "v_prediction"})
    return Outcome(NEEDLESS, text="what the base predicts is read from the base")


def zero_terminal_snr(value: Any, arguments: Arguments) -> Outcome:
    if not arguments.on("zero_terminal_snr"):
        return Outcome(NEEDLESS, text="is read from the base")
    if not arguments.on("v_parameterization"):
        return Outcome(LOST, text="pure noise says nothing to a model that predicts the noise; it needs v_parameterization")
    return Outcome(TAKEN, {"zero_terminal_snr": True})


def clip_skip(value: Any, arguments: Arguments) -> Outcome:
    if value in OFF:
        return not_set()
    if arguments.sdxl:
        return Outcome(NEEDLESS, text="SDXL's layers are fixed, and sd-scripts does not read it there either")
    return Outcome(TAKEN, {"clip_skip": coerced("clip_skip", value)})


def save_precision(value: Any, arguments: Arguments) -> Outcome:
    if value in OFF:
        return not_set()
    return Outcome(TAKEN, {"save_precision": {"float": "fp32"}.get(str(value), str(value))})


def precision(value: Any, arguments: Arguments) -> Outcome:
    return not_set() if value in (None, "") else Outcome(TAKEN, {"mixed_precision": "no" if value is False else str(value)})


def torch_compile(value: Any, arguments: Arguments) -> Outcome:
    return Outcome(TAKEN, {"compile": "max"}) if arguments.on("torch_compile") else not_set()


def save_last_n_steps(value: Any, arguments: Arguments) -> Outcome:
    """Theirs is an age in steps, ours a number of files."""
    every, steps = int(arguments.number("save_every_n_steps")), int(arguments.number("save_last_n_steps"))
    if not steps:
        return not_set()
    if not every:
        return Outcome(NEEDLESS, text="nothing is saved by steps")
    kept = steps // every + 1
    return Outcome(CHANGED, {"save_last_n": kept}, f"the files of the last {steps} steps are the last {kept}")


def save_n_epoch_ratio(value: Any, arguments: Arguments) -> Outcome:
    ratio, epochs = int(arguments.number("save_n_epoch_ratio")), int(arguments.number("max_train_epochs"))
    if not ratio:
        return not_set()
    if not epochs:
        return Outcome(LOST, text="a share of the epochs needs max_train_epochs; set save_every_n_epochs")
    every = max(1, epochs // ratio)
    return Outcome(CHANGED, {"save_every_n_epochs": every}, f"{ratio} files in {epochs} epochs is one every {every}")


def save_model_as(value: Any, arguments: Arguments) -> Outcome:
    if value in ("safetensors", *OFF):
        return Outcome(NEEDLESS, text="files are safetensors")
    return Outcome(LOST, text="only safetensors is written, which runs no code when it is read and which all web UIs take")


def by_steps(value: Any, arguments: Arguments) -> Outcome:
    """Theirs draws by steps only if it does not by epochs."""
    if arguments.number("sample_every_n_epochs") > 0:
        return Outcome(NEEDLESS, text="sample_every_n_epochs takes its place")
    return take("sample_every_n_steps")(value, arguments) if arguments.number("sample_every_n_steps") > 0 else not_set()


def by_epochs(value: Any, arguments: Arguments) -> Outcome:
    if arguments.number("sample_every_n_epochs") <= 0:
        return not_set()
    return Outcome(TAKEN, {"sample_every_n_epochs": coerced("sample_every_n_epochs", value)})


def sample_prompts(value: Any, arguments: Arguments) -> Outcome:
    """Take a .txt file, or the lines that a GUI holds if they are plain."""
    if value in OFF:
        return not_set()
    text = str(value)
    if text.endswith(".txt"):
        return Outcome(TAKEN, {"sample_prompts": arguments.path(text)})
    if text.endswith((".toml", ".json")):
        return Outcome(LOST, text="prompts are read from a .txt file, one a line with --n, --w, --h, --d, --s, --l; write one and set sample_prompts")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if any(" --" in line or "|" in line for line in lines):
        return Outcome(LOST, text="prompts with flags stand in a .txt file; put these lines into one and set sample_prompts to it")
    return Outcome(TAKEN, {"sample_prompts": " | ".join(lines)})


def log_with(value: Any, arguments: Arguments) -> Outcome:
    """Draw curves if the package is there; its absence would be an error of the file."""
    board = str(arguments.get("log_with", "tensorboard" if arguments.get("logging_dir") else ""))
    if not board:
        return not_set()
    text, board = ("two boards at once are not drawn; tensorboard is", "tensorboard") if board == "all" else ("", board)
    coerced("log_with", board)
    if missing(board):
        return Outcome(LOST, text=f'its package is missing; run `pip install {board}` and set log_with = "{board}" (NAME.jsonl has the curves too)')
    return Outcome(CHANGED if text else TAKEN, {"log_with": board}, text)


def logging_dir(value: Any, arguments: Arguments) -> Outcome:
    if value in OFF:
        return not_set()
    if not arguments.get("log_with"):
        found = log_with(value, arguments)
        return Outcome(CHANGED if found.kind == TAKEN else found.kind, found.settings, found.text or "the curves go into output_dir")
    return Outcome(CHANGED, text="the curves go into output_dir")


def use_wandb(value: Any, arguments: Arguments) -> Outcome:
    return log_with(value, dataclasses.replace(arguments, values={"log_with": "wandb"})) if arguments.on("use_wandb") else not_set()


def script(value: Any, arguments: Arguments) -> Outcome:
    """Say what a script trains; raises UserError for a model or a kind of training that is not here."""
    name = Path(str(value)).name
    if name in ("train_network.py", "sdxl_train_network.py"):
        return Outcome(NEEDLESS, text="a LoRA is trained, and the family is found in the base")
    if name in ("train_db.py", "fine_tune.py", "sdxl_train.py"):
        return Outcome(CHANGED, {"full": True}, "the whole model is trained; an adapter learns most of it in a small file (full = false)")
    raise UserError(f"{name} trains what is not trained here; take a configuration of train_network.py, sdxl_train_network.py or train_db.py")


MACHINE = needless("attention, memory and workers are chosen by the run itself")
TOLD = needless("only what is shown of a run")
HUB = lost("nothing is uploaded; put the finished file onto the hub yourself")
CARD = lost("title, author and the like are not written into the file")
UNUSED = needless("DeepSpeed is not used")
SPREAD = needless("several processes are started as docs/train.md says")
HALF = lost("weights that are trained stay in fp32, which halves would round to nothing at usual rates; mixed_precision computes in half precision")

OTHER_MODELS = (
    "t5xxl", "t5xxl_device", "t5xxl_dtype", "t5xxl_max_token_length", "apply_t5_attn_mask", "clip_l", "clip_g", "ae", "guidance_scale",
    "timestep_sampling", "sigmoid_scale", "model_prediction_type", "discrete_flow_shift", "weighting_scheme", "logit_mean", "logit_std", "mode_scale",
    "training_shift", "blocks_to_swap", "split_mode", "split_qkv", "train_t5xxl", "train_blocks", "train_double_block_indices",
    "train_single_block_indices", "single_dim", "double_dim", "img_attn_dim", "img_mlp_dim", "img_mod_dim", "single_mod_dim", "txt_attn_dim",
    "txt_mlp_dim", "txt_mod_dim", "in_dims", "enable_all_linear", "save_clip", "save_t5xxl", "mem_eff_save", "gemma2", "cfg_trunc",
    "renorm_cfg", "use_flash_attn", "use_sage_attn", "network_multiplier", "clip_l_dropout_rate", "clip_g_dropout_rate", "t5_dropout_rate",
    "single_blocks_to_swap", "double_blocks_to_swap", "cpu_offload_checkpointing_blocks", "text_encoder_attn_dim",
)  # fmt: skip
RULES: dict[str, Rule] = {
    "script": script,
    "pretrained_model_name_or_path": base,
    "vae": path_of("vae"),
    "v2": v2,
    "sdxl": needless("the family is found in the model's own files"),
    "v_parameterization": v_parameterization,
    "zero_terminal_snr": zero_terminal_snr,
    "clip_skip": clip_skip,
    "max_token_length": take_some("max_token_length"),
    "tokenizer_cache_dir": needless("the tokenizer is built in"),
    "no_half_vae": needless("the VAE computes in fp32 where halves would overflow"),
    "mixed_precision": precision,
    "save_precision": save_precision,
    **dict.fromkeys(("full_fp16", "full_bf16"), HALF),
    **dict.fromkeys(("fp8_base", "fp8_base_unet"), lost("it changes the result a little; set base_precision if memory is short")),
    "gradient_checkpointing": take_if_there("gradient_checkpointing", "there is none; lower train_batch_size or resolution if memory is short"),
    "cpu_offload_checkpointing": lost("activations are not moved off the GPU; lower train_batch_size or resolution if memory is short"),
    **dict.fromkeys(("xformers", "sdpa", "mem_eff_attn", "lowram", "highvram", "vae_batch_size", "max_data_loader_n_workers"), MACHINE),
    **dict.fromkeys(("persistent_data_loader_workers", "disable_mmap_load_safetensors", "diffusers_xformers"), MACHINE),
    "num_cpu_threads_per_process": MACHINE,
    "torch_compile": torch_compile,
    **dict.fromkeys(("dynamo_backend", "dynamo_mode", "dynamo_use_fullgraph", "dynamo_use_dynamic"), needless("compile says how it is done")),
    "seed": take_some("seed"),
    "output_dir": path_of("output_dir"),
    "output_name": lambda value, arguments: not_set() if value in OFF else Outcome(TAKEN, project={"name": str(value)}),
    "save_every_n_epochs": take_some("save_every_n_epochs"),
    "save_every_n_steps": take_some("save_every_n_steps"),
    "save_last_n_epochs": take_some("save_last_n"),
    "save_last_n_steps": save_last_n_steps,
    "save_n_epoch_ratio": save_n_epoch_ratio,
    "save_model_as": save_model_as,
    "no_metadata": lost("A1111 finds an SDXL file's family by its metadata, so it is always written"),
    **dict.fromkeys(("save_state", "save_state_on_train_end"), needless("save_state_every_n_steps saves it, until a run is done")),
    **dict.fromkeys(("save_last_n_epochs_state", "save_last_n_steps_state"), needless("one state is kept, the last")),
    "resume": lost("their states cannot be read; give the LoRA file itself as network_weights to go on from it"),
    **dict.fromkeys(("initial_epoch", "initial_step", "skip_until_initial_step"), lost("a run goes on where it was stopped by itself")),
    "sample_every_n_steps": by_steps,
    "sample_every_n_epochs": by_epochs,
    "sample_prompts": sample_prompts,
    "sample_sampler": needless("sample pictures are drawn by DDIM, so that they can be compared from run to run"),
    "sample_at_first": needless("the base's own pictures stand beside the LoRA's on each sheet"),
    "log_with": log_with,
    "logging_dir": logging_dir,
    "use_wandb": use_wandb,
    "log_tracker_name": take("log_tracker_name"),
    **dict.fromkeys(("config_file", "dataset_config"), needless("the file that it names is read as well")),
    **dict.fromkeys(("log_prefix", "wandb_run_name", "log_config", "console_log_level", "console_log_file", "console_log_simple"), TOLD),
    **dict.fromkeys(("debug_dataset", "output_config", "print_only", "headless", "model_list"), TOLD),
    "log_tracker_config": lost("a tracker's own configuration is not read; set W&B by its WANDB_ variables"),
    "wandb_api_key": lost("keys are not kept in files; run `wandb login`"),
    "validation_split": take("validation_split"),
    "validation_seed": needless("the held-out pictures follow seed, whole groups of likes together"),
    "validate_every_n_epochs": take_some("validate_every_n_epochs"),
    "validate_every_n_steps": take_some("validate_every_n_steps"),
    "max_validation_steps": needless("as much is judged as takes an eighth of the time at most"),
    "training_comment": CARD,
    **dict.fromkeys([f"metadata_{name}" for name in ("title", "author", "description", "license", "tags", "usage_hint", "thumbnail")], CARD),
    **dict.fromkeys([f"metadata_{name}" for name in ("merged_from", "trigger_phrase", "preprocessor", "is_negative_embedding", "reso")], CARD),
    **dict.fromkeys([f"huggingface_{name}" for name in ("repo_id", "repo_type", "path_in_repo", "token", "repo_visibility")], HUB),
    **dict.fromkeys(("save_state_to_huggingface", "resume_from_huggingface", "async_upload"), HUB),
    **dict.fromkeys(("ddp_timeout", "ddp_gradient_as_bucket_view", "ddp_static_graph", "multi_gpu", "gpu_ids", "num_machines"), SPREAD),
    **dict.fromkeys(("num_processes", "main_process_port", "machine_rank", "main_process_ip", "extra_accelerate_launch_args"), SPREAD),
    "deepspeed": lost("DeepSpeed is not used; a LoRA's states are small enough for each GPU"),
    **dict.fromkeys(("zero_stage", "offload_optimizer_device", "offload_optimizer_nvme_path", "offload_param_device"), UNUSED),
    **dict.fromkeys(("offload_param_nvme_path", "zero3_init_flag", "zero3_save_16bit_model"), UNUSED),
    "fp16_master_weights_and_gradients": UNUSED,
    **dict.fromkeys(OTHER_MODELS, needless("only models that are not trained here read it")),
}  # fmt: skip
