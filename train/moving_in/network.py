"""The adapter's arguments: which module of sd-scripts or LyCORIS it was, and what its network_args say."""

from __future__ import annotations

import re
from typing import Any

from train.adapters import ADAPTERS
from train.moving_in.moved import Moved, as_bool, as_list, asks_for_nothing, number

# network_module, or LyCORIS' algo -> our network_algo.
MODULES = {"networks.lora": "lora", "networks.loha": "loha", "networks.lokr": "lokr"}
ALGOS = {"": "lora", "lora": "lora", "locon": "lora", "loha": "loha", "lokr": "lokr", "glora": "glora", "ia3": "ia3", "(ia)^3": "ia3",
         "diag-oft": "diag-oft"}  # fmt: skip
# network_args -> the setting of the same meaning.
SAME = {
    **{
        name: name
        for name in (
            "conv_dim", "conv_alpha", "block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas", "down_lr_weight", "mid_lr_weight",
            "up_lr_weight", "block_lr_zero_threshold", "rank_dropout", "module_dropout", "loraplus_lr_ratio", "loraplus_unet_lr_ratio",
            "loraplus_text_encoder_lr_ratio", "rs_lora", "network_reg_dims", "network_reg_lrs",
        )
    },
    "dropout": "network_dropout", "rs_lycoris": "rs_lora",
}  # fmt: skip
LISTS = ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas", "down_lr_weight", "mid_lr_weight", "up_lr_weight",
         "network_reg_dims", "network_reg_lrs")  # fmt: skip
TRUTHS = ("rs_lora",)
WHOLE = ("conv_dim",)
REASONS = {
    "use_scalar": "the update begins at zero by its up half, so no scalar is needed",
    "train_norm": "norms are not trained",
    "bypass_mode": "the way in which a layer is computed is chosen here",
    "rank_dropout_scale": "ranks that are left out are made up for",
    "wd_on_output": "dora_wd measures each output",
    "block_size": "the parts of LoKr follow from factor",
    "verbose": "what a run says is short",
    "train_llm_adapter": "there is no such part in SD 1.x, 2.x and SDXL",
    "train_t5xxl": "there is no such part in SD 1.x, 2.x and SDXL",
    "split_qkv": "the layers of SD 1.x, 2.x and SDXL are apart anyway",
    "use_conv_cp": "use_tucker is its name today",
    "unit": "DyLoRA is not trained",
}
PRESETS = {
    "attn-mlp": "what has no conv_dim is trained in attention and feed-forward layers only",
    "full": "conv_dim adds the residual blocks",
    "unet-transformer-only": "train_text_encoder = false says it",
}


def turn_network(arguments: dict[str, Any], moved: Moved) -> None:
    """Take network_module and network_args out of the arguments."""
    module = arguments.pop("network_module", None)
    given = arguments.pop("network_args", None)
    pairs, strange = _pairs(as_list(given))
    algo = _algo(module, pairs, moved)
    own = dict(ADAPTERS[algo].arguments)
    extra = []
    for name, text in pairs.items():
        told = f"network_args {name}"
        if name in SAME:
            moved.set(told, text, {SAME[name]: _value(SAME[name], text)})
        elif name in own or (name == "constraint" and "constraint" in own):
            extra.append(f"{name}={text.lower() if text.lower() in ('true', 'false') else text}")
            moved.set(told, text, {"network_args": " ".join(extra)})
        elif name == "preset":
            known = PRESETS.get(text)
            (moved.needless if known else moved.unsupported)(told, text, known or "layers are chosen by network_reg_dims here")
        elif name in REASONS:
            moved.unsupported(told, text, REASONS[name])
        else:
            moved.unsupported(told, text, f"{algo} takes no such argument")
    for word in strange:
        moved.unsupported("network_args", word, "it is not NAME=VALUE")


def _pairs(words: list[str]) -> tuple[dict[str, str], list[str]]:
    found, strange = {}, []
    for word in words:
        name, equals, text = word.partition("=")
        if equals:
            found[name.strip()] = text.strip()
        else:
            strange.append(word)
    return found, strange


def _algo(module: Any, pairs: dict[str, str], moved: Moved) -> str:
    module = str(module or "networks.lora")
    if module in MODULES:
        algo = MODULES[module]
        moved.set("network_module", module, {"network_algo": algo})
        if "algo" in pairs:
            moved.needless("network_args algo", pairs.pop("algo"), f"{module} has none")
        return algo
    asked = pairs.pop("algo", "").lower()
    algo = ALGOS.get(asked, "") if module.startswith("lycoris") else ""
    if not algo:
        named = f"{module} {asked}".strip()
        moved.unsupported("network_module", named, f"it is not trained here; the file is made for lora, and {', '.join(ADAPTERS)} are there")
        algo = "lora"
    else:
        moved.set("network_module", f"{module} {asked}".strip(), {"network_algo": algo})
    if algo == "lora" and as_bool(pairs.get("dora_wd", "")):
        moved.set("network_args dora_wd", pairs.pop("dora_wd"), {"network_algo": "dora"})
        algo = "dora"
    return algo


def _value(name: str, text: str) -> Any:
    if name in LISTS:
        return re.sub(r"\s*,\s*", ",", text)
    if name in TRUTHS:
        return as_bool(text)
    return int(number(name, text)) if name in WHOLE else number(name, text)


def turn_weights(arguments: dict[str, Any], moved: Moved) -> None:
    """Take base_weights and their multipliers out of the arguments, several words each."""
    for name, sign in (("base_weights", "|"), ("base_weights_multiplier", ",")):
        if name in arguments:
            value = arguments.pop(name)
            words = as_list(value)
            if words:
                moved.set(name, value, {name: sign.join(words)})
            else:
                moved.needless(name, value, "it asks for nothing")


def turn_parts(arguments: dict[str, Any], moved: Moved) -> None:
    """Take out which parts are trained, and the text encoder's rate, which may be one for each encoder."""
    for name, setting in (("network_train_unet_only", "train_text_encoder"), ("network_train_text_encoder_only", "train_unet")):
        if name in arguments:
            value = arguments.pop(name)
            moved.set(name, value, {setting: not as_bool(value)})
    if "text_encoder_lr" not in arguments:
        return
    value = arguments.pop("text_encoder_lr")
    rates = [number("text_encoder_lr", word) for word in (as_list(value) if isinstance(value, str | list) else [value])]
    if asks_for_nothing(value) and value != 0:
        moved.needless("text_encoder_lr", value, "learning_rate holds for it")
    elif len(set(rates)) <= 1:
        moved.set("text_encoder_lr", value, {"text_encoder_lr": rates[0] if rates else 0.0})
    else:
        patterns = " ".join(f"lora_te{number}={rate:g}" for number, rate in enumerate(rates[:2], 1))
        moved.set("text_encoder_lr", value, {"network_reg_lrs": patterns}, "SDXL's two text encoders")
