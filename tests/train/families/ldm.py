"""Writes a model of diffusers in the layout of its authors' single files, as a check of how such files are read."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from train.families.sd import Model

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}  # fmt: skip
OUTER = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2", "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip


def core(encoder: Any) -> Any:
    """Return what holds a text encoder's layers, which transformers 5 has at the top."""
    return getattr(encoder, "text_model", encoder)


def unet_name(name: str, layers: int, has_attention: dict[str, bool]) -> str:
    """Translate the name of a UNet's tensor."""
    for old, new in OUTER.items():
        if name.startswith(old + "."):
            return new + name.removeprefix(old)
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, number, rest = match.groups()
        place = 1 if kind == "attentions" else 2 * int(number)
        return f"middle_block.{place}.{resnet(rest) if kind == 'resnets' else rest}"
    side, block, kind, number, rest = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name).groups()  # type: ignore[union-attr]
    b, n = int(block), int(number)
    if side == "down":
        index = 1 + b * (layers + 1) + (layers if kind == "downsamplers" else n)
        inner = {"resnets": f"0.{resnet(rest)}", "attentions": f"1.{rest}", "downsamplers": "0.op" + rest.removeprefix("conv")}[kind]
        return f"input_blocks.{index}.{inner}"
    index = b * (layers + 1) + (layers if kind == "upsamplers" else n)
    last = 2 if has_attention[f"up_blocks.{b}"] else 1
    inner = {"resnets": f"0.{resnet(rest)}", "attentions": f"1.{rest}", "upsamplers": f"{last}.{rest}"}[kind]
    return f"output_blocks.{index}.{inner}"


def resnet(rest: str) -> str:
    head, _, tail = rest.partition(".")
    return f"{RESNET.get(head, head)}.{tail}"


def vae_name(name: str, levels: int) -> str:
    """Translate the name of a VAE's tensor."""
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0.group_norm", "mid.attn_1.norm").replace("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out")
    name = re.sub(r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
    return re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", name)


def open_clip(encoder: Any) -> dict[str, Tensor]:
    """Translate a text encoder to OpenCLIP's names, where q, k and v are one matrix."""
    state = core(encoder).state_dict()
    names = {"embeddings.position_embedding.weight": "positional_embedding", "embeddings.token_embedding.weight": "token_embedding.weight"}
    found = {new: state[old] for old, new in names.items()}
    found |= {f"ln_final.{end}": state[f"final_layer_norm.{end}"] for end in ("weight", "bias")}
    inner = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj"}
    for i in range(encoder.config.num_hidden_layers):
        here, there = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
        for end in ("weight", "bias"):
            found |= {f"{there}.{new}.{end}": state[f"{here}.{old}.{end}"] for old, new in inner.items()}
            found[f"{there}.attn.in_proj_{end}"] = torch.cat([state[f"{here}.self_attn.{part}_proj.{end}"] for part in "qkv"])
    if hasattr(encoder, "text_projection"):
        found["text_projection"] = encoder.text_projection.weight.T.contiguous()
    return found


def to_ldm(model: Model) -> dict[str, Tensor]:
    """Return the tensors of a whole single file."""
    has_attention = {f"up_blocks.{i}": hasattr(block, "attentions") for i, block in enumerate(model.unet.up_blocks)}
    layers = model.unet.config.layers_per_block
    found = {f"model.diffusion_model.{unet_name(name, layers, has_attention)}": value for name, value in model.unet.state_dict().items()}
    levels = len(model.vae.config.block_out_channels)
    for name, value in model.vae.state_dict().items():
        attention = "mid_block.attentions" in name and name.endswith("weight") and "group_norm" not in name
        found[f"first_stage_model.{vae_name(name, levels)}"] = value[:, :, None, None] if attention else value
    if len(model.text_encoders) == 2:
        first, second = model.text_encoders
        found |= {f"conditioner.embedders.0.transformer.text_model.{name}": value for name, value in core(first).state_dict().items()}
        return found | {f"conditioner.embedders.1.model.{name}": value for name, value in open_clip(second).items()}
    if model.family.name == "sd2":
        return found | {f"cond_stage_model.model.{name}": value for name, value in open_clip(model.text_encoders[0]).items()}
    return found | {f"cond_stage_model.transformer.text_model.{n}": v for n, v in core(model.text_encoders[0]).state_dict().items()}
