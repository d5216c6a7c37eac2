"""Read a configuration that the GUI kohya_ss saved: its names and meanings, brought to those of sd-scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prep.options import UserError
from train.imports.entries import NETWORK_ARG, Entry, entries_of, placed
from train.imports.outcome import OFF, boolean
from train.imports.shell import read_command

# The GUI's kind of LoRA -> sd-scripts' module and LyCORIS' algo.
KINDS = {
    "standard": ("networks.lora", ""),
    "kohya locon": ("networks.lora", ""),
    "kohya dylora": ("networks.dylora", ""),
    "lora-fa": ("networks.lora_fa", ""),
    "lycoris/locon": ("lycoris.kohya", "locon"),
    "lycoris/loha": ("lycoris.kohya", "loha"),
    "lycoris/lokr": ("lycoris.kohya", "lokr"),
    "lycoris/ia3": ("lycoris.kohya", "ia3"),
    "lycoris/glora": ("lycoris.kohya", "glora"),
    "lycoris/dylora": ("lycoris.kohya", "dylora"),
    "lycoris/diag-oft": ("lycoris.kohya", "diag-oft"),
    "lycoris/boft": ("lycoris.kohya", "boft"),
    "lycoris/native fine-tuning": ("lycoris.kohya", "full"),
}
NAMES = {
    "max_resolution": "resolution",
    "optimizer": "optimizer_type",
    "lora_network_weights": "network_weights",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
    "sdxl_no_half_vae": "no_half_vae",
    "stop_text_encoder_training_pct": "stop_text_encoder_training",
}
PLAIN_ARGS = ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas", "down_lr_weight", "mid_lr_weight", "up_lr_weight")
DROPS = ("block_lr_zero_threshold", "rank_dropout", "module_dropout", "loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")
CONV = ("conv_dim", "conv_alpha")
LYCORIS_ARGS = (
    "factor", "decompose_both", "full_matrix", "use_tucker", "use_cp", "use_scalar", "train_norm", "dora_wd", "rescaled", "constrain", "unit",
    "bypass_mode", "rank_dropout_scale", "train_on_input", "wd_on_output", "rs_lora",
)  # fmt: skip
# Arguments that the form passes on for some kinds alone.
ALGO_ONLY = {
    **dict.fromkeys(("factor", "decompose_both", "full_matrix"), ("lokr",)),
    **dict.fromkeys(("constrain", "rescaled"), ("diag-oft", "boft")),
    "train_on_input": ("ia3",),
    "unit": ("dylora",),
}
# Forms of models that are not trained here; off, they say nothing.
OTHER_MODELS = ("flux1_checkbox", "sd3_checkbox", "lumina_checkbox", "hunyuan_checkbox", "anima_checkbox")
UNUSED = "the GUI does not pass it on under the other settings"


def is_gui(values: Mapping[str, Any]) -> bool:
    """Tell whether a JSON file is one that the GUI saved."""
    return "LoRA_type" in values or "max_resolution" in values or "lr_warmup" in values


def read_gui(values: Mapping[str, Any], where: str, folder: Path) -> list[Entry]:
    """List the entries of a saved form; raises UserError if it is of a model that is not trained here."""
    kind = str(values.get("LoRA_type", "Standard")).lower()
    others = [name for name in OTHER_MODELS if boolean(values.get(name))]
    if kind not in KINDS or others:
        raise UserError(
            f"{where} is of {others[0] if others else values['LoRA_type']}, which is not trained here; take a form for SD 1.x, 2.x or SDXL"
        )
    found: list[Entry] = []
    for name, value in values.items():
        found += _entries(name, value, values, kind, where, folder)
    more = values.get("additional_parameters")
    if more not in OFF:  # a command line's own word wins over the form
        found += entries_of(read_command(f"--{str(more).strip().removeprefix('--')}"), where, folder)
    if "LoRA_type" not in values:
        found.append(Entry("script", "train_db.py", where, "script", "train_db.py"))
    return found


def _entries(name: str, value: Any, values: Mapping[str, Any], kind: str, where: str, folder: Path) -> Iterator[Entry]:
    """Yield one field of the form as the entries that it is."""

    def entry(target: str, target_value: Any = value, reason: str = "") -> Entry:
        return Entry(name, value, where, target, target_value, reason)

    module, algo = KINDS[kind]
    lycoris = module == "lycoris.kohya"
    if name == "LoRA_type":
        yield entry("network_module", module)
        if algo:
            yield entry(f"{NETWORK_ARG}algo", algo)
    elif name == "LyCORIS_preset":
        yield entry(f"{NETWORK_ARG}preset") if lycoris else entry("", reason=UNUSED)
    elif name in CONV:
        yield entry(f"{NETWORK_ARG}{name}", str(value)) if lycoris or "locon" in kind or "dylora" in kind else entry("", reason=UNUSED)
    elif name in LYCORIS_ARGS:
        passed = lycoris and algo in ALGO_ONLY.get(name, (algo,))
        yield entry(f"{NETWORK_ARG}{name}", str(value)) if passed else entry("", reason=UNUSED)
    elif name in PLAIN_ARGS or name in DROPS:
        yield entry("", reason="is not set") if value in OFF else entry(f"{NETWORK_ARG}{name}", str(value))
    else:
        yield _field(name, value, values, where, folder)


def _field(name: str, value: Any, values: Mapping[str, Any], where: str, folder: Path) -> Entry:
    """Bring one field to sd-scripts' argument; the GUI means by 0 that most are not passed on."""
    rule = MEANINGS.get(name)
    target, meant, reason = rule(value, values) if rule else (NAMES.get(name, name), value, "")
    if name in ZERO_IS_UNSET and value in (*OFF, "0.0"):
        reason = "is not set"
    return Entry(name, value, where, target, placed(target, meant, folder), reason)


def _warmup(value: Any, values: Mapping[str, Any]) -> tuple[str, Any, str]:
    """Per cent of the run, unless lr_warmup_steps has the steps."""
    if values.get("lr_warmup_steps") not in OFF:
        return "lr_warmup_steps", value, "lr_warmup_steps takes its place"
    try:
        return "lr_warmup_steps", float(value or 0) / 100, ""
    except ValueError:
        return "lr_warmup_steps", value, ""


def _warmup_steps(value: Any, values: Mapping[str, Any]) -> tuple[str, Any, str]:
    return "lr_warmup_steps", value, "is not set" if value in OFF else ""


def _epoch(value: Any, values: Mapping[str, Any]) -> tuple[str, Any, str]:
    if values.get("max_train_epochs") not in OFF:
        return "max_train_epochs", value, "max_train_epochs takes its place"
    if values.get("max_train_steps") not in OFF:
        return "max_train_epochs", value, "max_train_steps takes its place"
    return "max_train_epochs", value, ""


def _attention(value: Any, values: Mapping[str, Any]) -> tuple[str, Any, str]:
    return "xformers", value, ""


def _noise(kind: str) -> Any:
    """Make the meaning of a noise setting: only those of noise_offset_type are passed on."""

    def meaning(value: Any, values: Mapping[str, Any]) -> tuple[str, Any, str]:
        chosen = str(values.get("noise_offset_type", kind)).lower()
        return kind, value, "" if chosen == kind.lower() else f"noise_offset_type is {values['noise_offset_type']}"

    return meaning


def _original(name: str) -> Any:
    return lambda value, values: (name, value, _noise("Original")(value, values)[2])


def _multires(name: str) -> Any:
    return lambda value, values: (name, value, _noise("Multires")(value, values)[2])


def _nothing(reason: str) -> Any:
    return lambda value, values: ("", value, reason)


ZERO_IS_UNSET = (
    "unet_lr", "text_encoder_lr", "seed", "max_train_steps", "max_train_epochs", "save_last_n_epochs", "lr_scheduler_power", "max_timestep",
    "text_encoder_lr_1", "text_encoder_lr_2", "loraplus_lr_ratio",
)  # fmt: skip
MEANINGS: dict[str, Any] = {
    "epoch": _epoch,
    "lr_warmup": _warmup,
    "lr_warmup_steps": _warmup_steps,
    "xformers": _attention,
    **{name: _original(name) for name in ("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale")},
    **{name: _multires(name) for name in ("multires_noise_iterations", "multires_noise_discount")},
    "additional_parameters": _nothing("its arguments are listed by themselves"),
    "noise_offset_type": _nothing("it chooses which settings of noise count"),
    **{name: _nothing("says nothing of the training") for name in ("model_list", "folders", "tool", "training_preset")},
    **dict.fromkeys(OTHER_MODELS, _nothing("is off")),
}
