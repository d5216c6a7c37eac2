"""The names that tensors have in single-file checkpoints, the layout of the models' own authors, and those of diffusers, there and back.

`train.families.single_file` reads such files by these tables, and `train.checkpoint` writes them: github.com/Stability-AI/generative-models and
github.com/mlfoundations/open_clip, whose modules give the names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from train.layouts import stability_path

if TYPE_CHECKING:
    from torch import Tensor

    from train.families.sd import Model

UNET, VAE = "model.diffusion_model.", "first_stage_model."
# Prefix of each text encoder by family; OpenCLIP's names follow where it ends in "model.", CLIP's own else.
TEXT = {
    "sd1": ("cond_stage_model.transformer.text_model.",),
    "sd2": ("cond_stage_model.model.",),
    "sdxl": ("conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."),
}
_OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2", "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
_NORMS = {"norm1": "in_layers.0", "norm2": "out_layers.0"}  # of a residual block
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {
    "embeddings.position_embedding.weight": "positional_embedding", "embeddings.token_embedding.weight": "token_embedding.weight",
    "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
}  # fmt: skip
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip
THIRDS = ("q", "k", "v")  # OpenCLIP holds these three as one matrix, one above the other


@dataclass(frozen=True)
class Place:
    """Where a tensor of a part lies in a single file: under which name, and in which form."""

    part: str  # unet, vae, text_encoder, text_encoder_2
    key: str  # in the part's state dict
    name: str  # in the file
    third: int | None = None  # it is this third of the file's tensor
    transposed: bool = False
    as_convolution: bool = False  # the file has two more axes of 1

    def to_file(self, tensor: Tensor) -> Tensor:
        """Turn a part's tensor into the file's, or into its third of that."""
        tensor = tensor.T if self.transposed else tensor
        return tensor[:, :, None, None] if self.as_convolution else tensor

    def from_file(self, tensor: Tensor) -> Tensor:
        """Turn the file's tensor into the part's."""
        tensor = tensor if self.third is None else tensor.chunk(3)[self.third]
        tensor = tensor[:, :, 0, 0] if self.as_convolution and tensor.ndim == 4 else tensor  # some files lack the two axes
        return tensor.T if self.transposed else tensor


def parts_of(model: Model) -> dict[str, Any]:
    """Return the modules of a model under the names that they have in a diffusers folder."""
    encoders = {f"text_encoder{f'_{n}' if n > 1 else ''}": encoder for n, encoder in enumerate(model.text_encoders, 1)}
    return {"unet": model.unet, "vae": model.vae, **encoders}


def places_of(model: Model) -> list[Place]:
    """List all tensors of a model with their places in a single file."""
    return places(parts_of(model), model.family.name)


def places(parts: Mapping[str, Any], family: str) -> list[Place]:
    """List all tensors of some parts, by their names in a diffusers folder, with their places in a single file of the family."""
    found: list[Place] = []
    for part, module in parts.items():
        if part == "unet":
            found += _unet(module)
        elif part == "vae":
            found += _vae(module)
        else:
            prefix = TEXT[family][int(part.removeprefix("text_encoder").removeprefix("_") or 1) - 1]
            keys = [key for key, tensor in module.state_dict().items() if tensor.is_floating_point()]
            found += [_open_clip(part, key, prefix) if prefix.endswith(".model.") else Place(part, key, prefix + _inner(key)) for key in keys]
    return found


def _inner(key: str) -> str:
    return key.removeprefix("text_model.")


def _unet(unet: Any) -> Iterator[Place]:
    level, deep = unet.config.layers_per_block + 1, {f"up_blocks.{i}" for i, block in enumerate(unet.up_blocks) if hasattr(block, "attentions")}
    for key in unet.state_dict():
        path, _, end = key.rpartition(".")
        if path in _OUTSIDE:
            name = _OUTSIDE[path]
        else:
            name = stability_path(path, level, ".".join(path.split(".")[:2]) in deep)
            head, _, last = name.rpartition(".")
            name = f"{head}.{_NORMS.get(last, last)}" if ".resnets." in path else name
        yield Place("unet", key, f"{UNET}{name}.{end}")


def _vae(vae: Any) -> Iterator[Place]:
    last = len(vae.config.block_out_channels) - 1
    rules: tuple[tuple[str, Any], ...] = (
        (r"mid_block\.attentions\.0\.(group_norm|to_[qkv]|to_out\.0)", lambda m: f"mid.attn_1.{_VAE_ATTENTION[m[1]]}"),
        (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
        (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
        (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
        (r"up_blocks\.(\d)\.resnets", lambda m: f"up.{last - int(m[1])}.block"),  # numbered from the fine level to the coarse one
        (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample"),
        (r"conv_norm_out", "norm_out"),
        (r"conv_shortcut", "nin_shortcut"),
    )
    for key, tensor in vae.state_dict().items():
        name = key
        for pattern, instead in rules:
            name = re.sub(pattern, instead, name)
        yield Place("vae", key, VAE + name, as_convolution=".attentions." in key and tensor.ndim == 2)


def _open_clip(part: str, key: str, prefix: str) -> Place:
    inner = _inner(key)
    if inner in _OPEN_CLIP:
        return Place(part, key, prefix + _OPEN_CLIP[inner])
    if inner == "text_projection.weight":
        return Place(part, key, f"{prefix}text_projection", transposed=True)
    number, path, end = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", inner).groups()  # type: ignore[union-attr]
    block = f"{prefix}transformer.resblocks.{number}"
    if match := re.fullmatch(r"self_attn\.([qkv])_proj", path):
        return Place(part, key, f"{block}.attn.in_proj_{end}", third=THIRDS.index(match[1]))
    return Place(part, key, f"{block}.{_OPEN_CLIP_LAYER[path]}.{end}")
