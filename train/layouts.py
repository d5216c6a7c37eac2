"""How a layer is called in each layout of LoRA files: kohya's names, diffusers' module paths and Stability's own, from fixed tables.

Names are never taken from module paths, which libraries rename (transformers 5 dropped `text_model`): a layer that is missing must be
an error, never a smaller LoRA.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Prefix of kohya's names -> the part of a diffusers pipeline.
COMPONENTS = {"lora_unet_": "unet", "lora_te_": "text_encoder", "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2"}
# The SDXL UNet has two residual blocks a level and a change of size: Stability's code numbers these three through.
LEVEL = 3

_ATTENTION = {f"{attn}_{to}": f"{attn}.{path}" for attn in ("attn1", "attn2") for to, path in zip(
    ("to_q", "to_k", "to_v", "to_out_0"), ("to_q", "to_k", "to_v", "to_out.0"), strict=True)}  # fmt: skip
_BLOCK = {**_ATTENTION, "ff_net_0_proj": "ff.net.0.proj", "ff_net_2": "ff.net.2"}
_TEXT = {**{f"self_attn_{to}_proj": f"self_attn.{to}_proj" for to in ("q", "k", "v", "out")}, "mlp_fc1": "mlp.fc1", "mlp_fc2": "mlp.fc2"}
_INNER = {"proj_in", "proj_out", "conv1", "conv2", "time_emb_proj", "conv_shortcut", "conv"}
# A residual block's layers: diffusers' name -> Stability's.
RESIDUAL = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}
_FROM_STABILITY = {path.replace(".", "_"): name for name, path in RESIDUAL.items()}
_PLACE = re.compile(r"((?:down|up)_blocks_\d+|mid_block)_(attentions|resnets|downsamplers|upsamplers)_(\d+)_(.+)")
_TRANSFORMER = re.compile(r"transformer_blocks_(\d+)_(.+)")
_TEXT_LAYER = re.compile(r"text_model_encoder_layers_(\d+)_(.+)")
_STABILITY = re.compile(r"(?:(input_blocks|output_blocks)_(\d+)|(middle_block))_(\d+)_(.+)")


def kohya_name(prefix: str, path: str) -> str:
    """Return kohya's name of a layer whose path within the part is given in dots."""
    return f"{prefix}_{path}".replace(".", "_")


def diffusers_path(name: str) -> tuple[str, str] | None:
    """Return the part and the module path that diffusers has for a layer under kohya's name; None for a name of no such layer."""
    prefix = next((prefix for prefix in COMPONENTS if name.startswith(prefix)), None)
    if prefix is None:
        return None
    rest = name.removeprefix(prefix)
    path = _unet_path(_from_stability(rest) or rest) if prefix == "lora_unet_" else _text_path(rest)
    return (COMPONENTS[prefix], path) if path else None


def stability_path(path: str, level: int = LEVEL, attention: bool = True) -> str:
    """Return the path that a UNet layer has in Stability's own code, from its module path in diffusers.

    `level` is the residual blocks of a level, and one for the change of size: 3 for all real bases. An upsampler stands behind its level's
    `attention`, if there is one (in SD 1.x and 2.x the first level has none).
    """
    kind, number, group, index, inner = _taken_apart(path)
    inner = RESIDUAL.get(inner, inner) if group == "resnets" else inner
    if kind == "mid_block":
        return f"middle_block.{2 * index if group == 'resnets' else 1}.{inner}"
    if group == "downsamplers":
        return f"input_blocks.{level * (number + 1)}.0.op"
    if group == "upsamplers":
        return f"output_blocks.{level * number + level - 1}.{1 + attention}.conv"
    place = "0" if group == "resnets" else "1"
    block = f"input_blocks.{1 + level * number + index}" if kind == "down_blocks" else f"output_blocks.{level * number + index}"
    return f"{block}.{place}.{inner}"


def _taken_apart(path: str) -> tuple[str, int, str, int, str]:
    kind, *rest = path.split(".")
    number = 0 if kind == "mid_block" else int(rest.pop(0))
    group, index, *inner = rest
    return kind, number, group, int(index), ".".join(inner)


def _unet_path(rest: str) -> str | None:
    match = _PLACE.fullmatch(rest)
    if not match:
        return None
    block, group, index, inner = match.groups()
    place = f"{re.sub(r'_(?=[0-9])', '.', block)}.{group}.{index}"
    if inner in _INNER:
        return f"{place}.{inner}"
    deep = _TRANSFORMER.fullmatch(inner)
    return f"{place}.transformer_blocks.{deep[1]}.{_BLOCK[deep[2]]}" if deep and deep[2] in _BLOCK else None


def _text_path(rest: str) -> str | None:
    match = _TEXT_LAYER.fullmatch(rest)
    return f"text_model.encoder.layers.{match[1]}.{_TEXT[match[2]]}" if match and match[2] in _TEXT else None


def _from_stability(rest: str) -> str | None:
    """Turn an SDXL name in Stability's numbering to diffusers' spelling, still with underscores."""
    match = _STABILITY.fullmatch(rest)
    if not match:
        return None
    side, number, middle, place, inner = match.groups()
    inner = _FROM_STABILITY.get(inner, inner)
    if middle:
        return f"mid_block_{'attentions_0' if place == '1' else f'resnets_{int(place) // 2}'}_{inner}"
    level, index = divmod(int(number) - (side == "input_blocks"), LEVEL)
    block = f"{'down' if side == 'input_blocks' else 'up'}_blocks_{level}"
    if inner == "op":
        return f"{block}_downsamplers_0_conv"
    if inner == "conv":
        return f"{block}_upsamplers_0_conv"
    return f"{block}_{'resnets' if place == '0' else 'attentions'}_{index}_{inner}"


def layer_names(keys: Iterable[str]) -> list[str]:
    """List the layers of a file's keys in their order, each once."""
    return list(dict.fromkeys(key.partition(".")[0] for key in keys))
