"""The settings that kohya_ss saves as JSON, in the words of sd-scripts: other names, percents, and values of kinds that are not chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# LoRA_type -> network module and LyCORIS' algo; a type that is not here is not trained.
KINDS: dict[str, tuple[str, str]] = {
    "Standard": ("networks.lora", ""),
    "Kohya LoCon": ("networks.lora", ""),
    "LoCon": ("networks.lora", ""),
    "LyCORIS/LoCon": ("lycoris.kohya", "locon"),
    "LyCORIS/LoHa": ("lycoris.kohya", "loha"),
    "LyCORIS/LoKr": ("lycoris.kohya", "lokr"),
    "LyCORIS/GLoRA": ("lycoris.kohya", "glora"),
    "LyCORIS/iA3": ("lycoris.kohya", "ia3"),
    "LyCORIS/Diag-OFT": ("lycoris.kohya", "diag-oft"),
    "LyCORIS/BOFT": ("lycoris.kohya", "boft"),
    "LyCORIS/DyLoRA": ("lycoris.kohya", "dylora"),
    "LyCORIS/Native Fine-Tuning": ("lycoris.kohya", "full"),
    "Kohya DyLoRA": ("networks.dylora", ""),
    "LoRA-FA": ("networks.lora_fa", ""),
}
# JSON name -> argument of the same meaning.
RENAMED = {
    "optimizer": "optimizer_type", "epoch": "max_train_epochs", "max_resolution": "resolution", "constrain": "constraint", "use_cp": "use_tucker",
    "sdxl_no_half_vae": "no_half_vae", "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs", "vae_path": "vae",
}  # fmt: skip
# Values that go into network_args: for every kind, for convolutions, and for LyCORIS alone.
BLOCKS = (
    "block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas", "down_lr_weight", "mid_lr_weight", "up_lr_weight",
    "block_lr_zero_threshold", "rank_dropout", "module_dropout", "loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio",
)  # fmt: skip
CONVOLUTIONS = ("conv_dim", "conv_alpha")
LYCORIS = (
    "factor", "decompose_both", "full_matrix", "use_tucker", "use_scalar", "train_norm", "dora_wd", "rescaled", "constraint", "train_on_input",
    "bypass_mode", "rank_dropout_scale", "wd_on_output",
)  # fmt: skip
OF_ITS_OWN = (
    "LoRA_type", "LyCORIS_preset", "lr_warmup", "noise_offset_type", "stop_text_encoder_training", "stop_text_encoder_training_pct",
    "additional_parameters", "unit", "full_bf16", *BLOCKS, *CONVOLUTIONS, *LYCORIS,
)  # fmt: skip
# Of the window itself and of its launcher.
_WINDOW = (
    "model_list", "num_processes", "num_machines", "multi_gpu", "gpu_ids", "main_process_port", "extra_accelerate_launch_args", "dynamo_backend",
    "dynamo_mode", "dynamo_use_dynamic", "dynamo_use_fullgraph", "num_cpu_threads_per_process", "folder_names", "save_as_bool", "accelerate_path",
    "sdxl", "weights", "config_path", "show_timesteps",
)  # fmt: skip
WINDOW = dict.fromkeys(_WINDOW, "it says how the window or its launcher works, not what is trained")
EMPTY: tuple[Any, ...] = ("", None, "None", "none", [])


def from_gui(saved: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], str]:
    """Return arguments of sd-scripts, what has no counterpart with the reason, and the line of additional arguments."""
    values = {RENAMED.get(key, key): value for key, value in saved.items() if value not in EMPTY}
    left = {f"{key} = {value}": WINDOW[key] for key, value in values.items() if key in WINDOW and value}
    found = {key: value for key, value in values.items() if key not in WINDOW and key not in OF_ITS_OWN}
    if not values.get("max_train_steps"):
        found.pop("max_train_steps", None)  # 0 lets the epochs decide
    else:
        found.pop("max_train_epochs", None)  # the window's "epoch" only makes steps; those stand here
        if saved.get("max_train_epochs"):
            found["max_train_epochs"] = saved["max_train_epochs"]
    for rate in ("unet_lr", "text_encoder_lr"):
        if found.get(rate) in (0, "0", 0.0):
            found.pop(rate)  # the window then passes none, and learning_rate holds
    attention = found.pop("xformers", "")
    if attention not in ("", False):
        found["xformers" if attention in (True, "xformers") else "sdpa"] = True
    _network(values, found, left)
    _noise(values, found)
    if "lr_warmup" in values and "lr_warmup_steps" not in values:
        found["lr_warmup_steps"] = float(values["lr_warmup"]) / 100  # in the window it is percent
    for name in ("stop_text_encoder_training", "stop_text_encoder_training_pct"):
        if values.get(name) and float(values[name]) > 0:
            left[f"{name} = {values[name]}"] = "the text encoder is trained to the end, or not at all; a lower text_encoder_lr is near"
        elif values.get(name) and float(values[name]) < 0:
            found["network_train_unet_only"] = True  # -1 in the window
    return found, left, str(values.get("additional_parameters", ""))


def _network(values: Mapping[str, Any], found: dict[str, Any], left: dict[str, str]) -> None:
    kind = str(values.get("LoRA_type", "Standard"))
    module, algo = KINDS.get(kind, (f"LoRA_type {kind}", ""))
    found["network_module"] = module
    taken = [name for name in BLOCKS if values.get(name)]
    taken += [name for name in CONVOLUTIONS if values.get(name) and kind != "Standard"]
    taken += [name for name in LYCORIS if values.get(name) and algo]
    arguments = [f"algo={algo}"] if algo else []
    if algo and values.get("LyCORIS_preset"):
        arguments.append(f"preset={values['LyCORIS_preset']}")
    found["network_args"] = [*arguments, *(f"{name}={values[name]}" for name in taken)]
    for name in (*CONVOLUTIONS, *LYCORIS, "unit"):
        if values.get(name) and name not in taken:
            left[f"{name} = {values[name]}"] = f"the LoRA_type {kind} does not use it, in kohya_ss either"


def _noise(values: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Keep the values of the noise that is chosen; the window saves those of the other as well."""
    chosen = values.get("noise_offset_type", "Original")
    for name in ("multires_noise_iterations", "multires_noise_discount") if chosen == "Original" else ("noise_offset", "adaptive_noise_scale"):
        found.pop(name, None)
    if not values.get("noise_offset"):
        found.pop("adaptive_noise_scale", None)
