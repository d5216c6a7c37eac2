"""A saved file through the eyes of its readers: A1111, ComfyUI and diffusers, each by its own rules for names, written down here once more.

The rules were read in the readers' code; they share nothing with what writes the file but the table of Stability's layer numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from train.layouts import kohya_name, stability_path

# What each reader knows to do with a layer's tensors: suffixes by kind of adapter.
_LORA = frozenset({"lora_up.weight", "lora_down.weight", "alpha"})
_PRODUCTS = frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2",
                       "lokr_w2_a", "lokr_w2_b", "lokr_t2", "a1.weight", "a2.weight", "b1.weight", "b2.weight", "oft_blocks", "rescale"})  # fmt: skip
A1111_KNOWS = _LORA | _PRODUCTS | {"weight", "on_input"}
COMFY_KNOWS = _LORA | _PRODUCTS | {"dora_scale"}
DIFFUSERS_KNOWS = _LORA


@dataclass(frozen=True)
class Reading:
    """What one reader makes of a file: how many layers it takes, and what it trips over."""

    reader: str
    layers: int
    fault: str = ""


@dataclass(frozen=True)
class BaseLayers:
    """The layers of a base by diffusers' module paths, with the number of their weight's axes; and the family's name."""

    family: str  # sd1, sd2, sdxl
    unet: Mapping[str, int]
    text_encoders: Sequence[Mapping[str, int]]
    attention: frozenset[str]  # blocks of the UNet that have transformers, such as up_blocks.1


def layers_of(family: str, unet: Any, text_encoders: Iterable[Any]) -> BaseLayers:
    """List the layers of loaded models, or of models on the meta device."""

    from train.stored import base_shape

    def weights(part: Any) -> dict[str, int]:
        return {path: len(base_shape(m)) for path, m in part.named_modules() if type(m).__name__.removeprefix("Stored") in ("Linear", "Conv2d")}

    texts = [{f"text_model.{path.removeprefix('text_model.')}": axes for path, axes in weights(encoder).items()} for encoder in text_encoders]
    found = weights(unet)
    return BaseLayers(family, found, texts, frozenset(path.partition(".attentions.")[0] for path in found if ".attentions." in path))


def read_back(keys: Mapping[str, Sequence[int]], metadata: Mapping[str, str], base: BaseLayers) -> list[Reading]:
    """Say what each reader makes of a file in kohya's layout, given its keys with their shapes."""
    return [_a1111(keys, metadata, base), _comfy(keys, base), _diffusers(keys, base)]


def sentence(readings: Sequence[Reading], wanted: Iterable[str], layers: int) -> str:
    """Put the readings into one line; `wanted` names the readers that are to read this kind of adapter."""
    whole = [reading.reader for reading in readings if not reading.fault and reading.layers == layers]
    faults = [f"{reading.reader} does not ({reading.fault})" for reading in readings if reading.reader not in whole and reading.reader in set(wanted)]
    others = [reading.reader for reading in readings if reading.reader not in whole and reading.reader not in set(wanted)]
    text = f"{_listed(whole) or 'no reader'} {'take' if len(whole) > 1 else 'takes'} all {layers} layers"
    return text + "".join(f"; {fault}" for fault in faults) + (f"; {_listed(others)} cannot read this kind of adapter" if others else "")


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" and {words[-1]}" if words else ""


def _by_layer(keys: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key in keys:
        name, _, suffix = key.partition(".")
        found.setdefault(name, set()).add(suffix)
    return found


def _reading(reader: str, keys: Iterable[str], known: Iterable[str], suffixes: frozenset[str]) -> Reading:
    """Count the layers that a reader finds in the base; the first that it does not know is its fault."""
    layers, names = _by_layer(keys), set(known)
    strange = next((name for name in layers if name not in names), None)
    unknown = next((f"{name}.{suffix}" for name, found in layers.items() for suffix in sorted(found) if suffix not in suffixes), None)
    taken = sum(name in names and found <= suffixes for name, found in layers.items())
    fault = f"it has no layer {strange}" if strange else f"it does not know {unknown}" if unknown else ""
    return Reading(reader, taken, fault)


# --- A1111: the family comes from the metadata alone, and every name is turned into Stability's before it is looked up


def a1111_family(metadata: Mapping[str, str]) -> str:
    """Say for which bases A1111 shows a file."""
    if metadata.get("ss_base_model_version", "").startswith("sdxl_"):
        return "sdxl"
    if metadata.get("ss_v2") == "True":
        return "sd2"
    return "sd1" if metadata else "all"


_A1111_RULES = (
    (r"lora_unet_down_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)", lambda m: f"input_blocks_{1 + 3 * int(m[1]) + int(m[3])}_{_inner(m[2], m[4])}"),
    (r"lora_unet_mid_block_(attentions|resnets)_(\d+)_(.+)", lambda m: f"middle_block_{_middle(m[1], m[2])}_{_own(m[1], m[3])}"),
    (r"lora_unet_up_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)", lambda m: f"output_blocks_{3 * int(m[1]) + int(m[3])}_{_inner(m[2], m[4])}"),
    (r"lora_unet_down_blocks_(\d+)_downsamplers_0_conv", lambda m: f"input_blocks_{3 + 3 * int(m[1])}_0_op"),
    (r"lora_unet_up_blocks_(\d+)_upsamplers_0_conv", lambda m: f"output_blocks_{2 + 3 * int(m[1])}_{2 if int(m[1]) else 1}_conv"),
    (r"lora_unet_((?:input|output)_blocks_.+|middle_block_.+)", lambda m: m[1]),
)
_RESIDUAL = {"conv1": "in_layers_2", "conv2": "out_layers_3", "time_emb_proj": "emb_layers_1", "conv_shortcut": "skip_connection"}


def _middle(group: str, index: str) -> int:
    return 1 if group == "attentions" else 2 * int(index)


def _own(group: str, inner: str) -> str:
    return _RESIDUAL.get(inner, inner) if group == "resnets" else inner


def _inner(group: str, inner: str) -> str:
    return f"{1 if group == 'attentions' else 0}_{_own(group, inner)}"


def a1111_name(name: str, family: str) -> str:
    """Turn a name of a file into the name under which A1111 looks for the layer."""
    for pattern, build in _A1111_RULES:
        if match := re.fullmatch(pattern, name):
            return f"diffusion_model_{build(match)}"
    match = re.fullmatch(r"lora_(te|te1|te2)_text_model_encoder_layers_(\d+)_(.+)", name)
    if not match:
        return name
    encoder, number, inner = match.groups()
    if encoder == "te2" or (encoder == "te" and family == "sd2"):  # OpenCLIP's own names
        open_clip = {"mlp_fc1": "mlp_c_fc", "mlp_fc2": "mlp_c_proj"}.get(inner, inner.replace("self_attn", "attn"))
        return f"{'1_' if encoder == 'te2' else ''}model_transformer_resblocks_{number}_{open_clip}"
    return f"{'0_' if encoder == 'te1' else ''}transformer_text_model_encoder_layers_{number}_{inner}"


def _a1111(keys: Mapping[str, Sequence[int]], metadata: Mapping[str, str], base: BaseLayers) -> Reading:
    seen = a1111_family(metadata)
    if seen not in (base.family, "all"):
        return Reading("A1111", 0, f"it shows the file for {seen} only, by ss_base_model_version and ss_v2")
    known = {f"diffusion_model_{_stability(path, base)}".replace(".", "_") for path in base.unet if path.startswith(("down_", "mid_", "up_"))}
    for number, encoder in enumerate(base.text_encoders):
        known |= {_a1111_text(path, number, base.family) for path in encoder if ".layers." in path}
    names = {f"{a1111_name(key.partition('.')[0], base.family)}.{key.partition('.')[2]}" for key in keys}
    return _reading("A1111", names, known, A1111_KNOWS)


def _a1111_text(path: str, number: int, family: str) -> str:
    """Name a text encoder's layer as A1111 calls the module itself; OpenCLIP's q, k and v are one matrix there, taken apart by name."""
    flat = path.removeprefix("text_model.").replace(".", "_")
    prefix = {("sdxl", 0): "0_transformer_text_model_", ("sdxl", 1): "1_model_transformer_resblocks_", ("sd2", 0): "model_transformer_resblocks_"}
    start = prefix.get((family, number), "transformer_text_model_")
    if "resblocks" not in start:
        return start + flat
    inner = flat.removeprefix("encoder_layers_").replace("mlp_fc1", "mlp_c_fc").replace("mlp_fc2", "mlp_c_proj")
    return start + inner.replace("self_attn", "attn")


def _stability(path: str, base: BaseLayers) -> str:
    try:
        return stability_path(path, attention=".".join(path.split(".")[:2]) in base.attention)
    except ValueError:
        return path


# --- ComfyUI: a map from every name that it knows to a layer; what is not in it is reported and left out


def _comfy(keys: Mapping[str, Sequence[int]], base: BaseLayers) -> Reading:
    blocks = [path for path in base.unet if path.startswith(("down_", "mid_", "up_"))]
    known = {kohya_name("lora_unet", path) for path in blocks} | {kohya_name("lora_unet", _stability(path, base)) for path in blocks}
    prefixes = {"sdxl": (("lora_te1",), ("lora_te2",))}.get(base.family, (("lora_te", "lora_te1"),))
    for encoder, names in zip(base.text_encoders, prefixes, strict=False):
        known |= {kohya_name(name, path) for path in encoder if ".layers." in path for name in names}
    return _reading("ComfyUI", keys, known, COMFY_KNOWS)


# --- diffusers: halves in pairs, the module's own number of axes, one alpha for attention, no key left over


def _diffusers(keys: Mapping[str, Sequence[int]], base: BaseLayers) -> Reading:
    blocks = {path: axes for path, axes in base.unet.items() if path.startswith(("down_", "mid_", "up_"))}
    named = {kohya_name("lora_unet", _stability(path, base) if base.family == "sdxl" else path): axes for path, axes in blocks.items()}
    prefixes = ("lora_te1", "lora_te2") if base.family == "sdxl" else ("lora_te",)
    for prefix, encoder in zip(prefixes, base.text_encoders, strict=False):
        named |= {kohya_name(prefix, path): axes for path, axes in encoder.items() if ".layers." in path}
    reading = _reading("diffusers", keys, named, DIFFUSERS_KNOWS)
    for name, suffixes in _by_layer(keys).items():
        halves = {"lora_up.weight", "lora_down.weight"} & suffixes
        wrong = [half for half in halves if name in named and len(keys[f"{name}.{half}"]) != named[name]]
        if not reading.fault and (len(halves) != 2 or wrong):
            what = f"{name}.{wrong[0]} has {len(keys[f'{name}.{wrong[0]}'])} axes, its layer {named[name]}" if wrong else f"{name} lacks a half"
            return Reading("diffusers", reading.layers, what)
    return reading
