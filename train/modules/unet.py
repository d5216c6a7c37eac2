"""The UNet of Stable Diffusion (arxiv.org/abs/2112.10752) and SDXL (arxiv.org/abs/2307.01952): what noise is in these latents?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.modules.blocks import Attention, Config, Conv2d, Downsample2D, GroupNorm, LayerNorm, Linear, Part, Recomputed, ResnetBlock2D, Upsample2D

DEFAULTS: dict[str, Any] = {
    "sample_size": None, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "norm_eps": 1e-5,
    "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 1280, "attention_head_dim": 8, "transformer_layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "use_linear_projection": False, "addition_embed_type": None, "addition_time_embed_dim": None, "projection_class_embeddings_input_dim": None,
}  # fmt: skip
FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"), "center_input_sample": (False,), "flip_sin_to_cos": (True,), "freq_shift": (0,), "downsample_padding": (1,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",), "mid_block_scale_factor": (1,), "only_cross_attention": (False,), "dropout": (0, 0.0),
    "dual_cross_attention": (False,), "class_embed_type": (None,), "encoder_hid_dim": (None,), "encoder_hid_dim_type": (None,),
    "num_class_embeds": (None,), "resnet_time_scale_shift": ("default",), "resnet_skip_time_act": (False,), "resnet_out_scale_factor": (1.0,),
    "time_embedding_type": ("positional",), "time_embedding_dim": (None,), "time_embedding_act_fn": (None,), "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,), "conv_in_kernel": (3,), "conv_out_kernel": (3,), "attention_type": ("default",),
    "class_embeddings_concat": (False,), "mid_block_only_cross_attention": (None, False), "cross_attention_norm": (None,),
    "addition_embed_type": (None, "text_time"), "num_attention_heads": (None,), "reverse_transformer_layers_per_block": (None,),
}  # fmt: skip


def sinusoid(values: Tensor, width: int) -> Tensor:
    """Write numbers (...,) as waves (..., width) in float32: half cosines, half sines, of falling frequency."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=values.device) / half)
    angles = values[..., None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """(B, inputs) -> (B, outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear_1 = Linear(inputs, outputs)
        self.linear_2 = Linear(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return out


class GEGLU(nn.Module):
    """A linear layer whose second half opens and shuts the first (arxiv.org/abs/2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        out: Tensor = value * F.gelu(gate)
        return out


class FeedForward(nn.Module):
    """(B, n, width) -> the same, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([GEGLU(width, 4 * width), nn.Identity(), Linear(4 * width, width)])  # the second has no weights

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net[2](self.net[0](x))
        return out


class BasicTransformerBlock(Recomputed):
    """Attention of the places (B, n, width) to themselves and to the caption (B, m, context), and a feed-forward layer."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attn1 = Attention(width, heads)
        self.norm2 = LayerNorm(width)
        self.attn2 = Attention(width, heads, context)
        self.norm3 = LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, states: Tensor) -> Tensor:
        x = self.attn1(self.norm1(x)) + x
        x = self.attn2(self.norm2(x), states) + x
        out: Tensor = self.ff(self.norm3(x)) + x
        return out


class Transformer2DModel(nn.Module):
    """Transformer blocks over the places of (B, width, h, w), beside the input."""

    def __init__(self, width: int, heads: int, context: int, layers: int, groups: int, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.norm = GroupNorm(groups, width, 1e-6)
        self.proj_in = Linear(width, width) if linear else Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([BasicTransformerBlock(width, heads, context) for _ in range(layers)])
        self.proj_out = Linear(width, width) if linear else Conv2d(width, width, 1)

    def forward(self, x: Tensor, states: Tensor) -> Tensor:
        hidden, (height, width) = self.norm(x), x.shape[2:]
        hidden = hidden if self.linear else self.proj_in(hidden)
        hidden = hidden.permute(0, 2, 3, 1).flatten(1, 2)
        hidden = self.proj_in(hidden) if self.linear else hidden
        for block in self.transformer_blocks:
            hidden = block(hidden, states)
        hidden = self.proj_out(hidden) if self.linear else hidden
        hidden = hidden.unflatten(1, (height, width)).permute(0, 3, 1, 2).contiguous()
        return (hidden if self.linear else self.proj_out(hidden)) + x


class Level(nn.Module):
    """Blocks at one size of the latents, with attention after each residual block if `transformer` is given."""

    def __init__(self, resnets: Sequence[ResnetBlock2D], transformer: Mapping[str, Any] | None, down: int = 0, up: int = 0) -> None:
        super().__init__()
        if transformer:
            self.attentions = nn.ModuleList([Transformer2DModel(**transformer) for _ in resnets])
        self.resnets = nn.ModuleList(resnets)
        if down:
            self.downsamplers = nn.ModuleList([Downsample2D(down, 1)])
        if up:
            self.upsamplers = nn.ModuleList([Upsample2D(up)])

    def step(self, number: int, x: Tensor, time: Tensor, states: Tensor) -> Tensor:
        """Put latents through one residual block and its attention."""
        x = self.resnets[number](x, time)
        attentions = getattr(self, "attentions", None)
        return x if attentions is None else attentions[number](x, states)


class DownLevel(Level):
    """On the way to the coarsest latents: (B, C, h, w) -> what comes after each block, and after the change of size."""

    def forward(self, x: Tensor, time: Tensor, states: Tensor) -> list[Tensor]:
        found = []
        for number in range(len(self.resnets)):
            x = self.step(number, x, time, states)
            found.append(x)
        if hasattr(self, "downsamplers"):
            found.append(self.downsamplers[0](x))
        return found


class UpLevel(Level):
    """On the way back, with what came after each block on the way down; `size` is that of the next level's latents."""

    def forward(self, x: Tensor, skips: Sequence[Tensor], time: Tensor, states: Tensor, size: torch.Size | None) -> Tensor:
        for number, skip in enumerate(skips):
            x = self.step(number, torch.cat([x, skip], dim=1), time, states)
        return self.upsamplers[0](x, size) if hasattr(self, "upsamplers") else x


class MiddleLevel(nn.Module):
    """Two residual blocks, and attention between them."""

    def __init__(self, resnets: Sequence[ResnetBlock2D], transformer: Mapping[str, Any]) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Transformer2DModel(**transformer)])
        self.resnets = nn.ModuleList(resnets)

    def forward(self, x: Tensor, time: Tensor, states: Tensor) -> Tensor:
        x = self.attentions[0](self.resnets[0](x, time), states)
        out: Tensor = self.resnets[1](x, time)
        return out


class UNet2DConditionModel(Part):
    """The whole of it; its name is what model_index.json and config.json call it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = found = Config.read(config, DEFAULTS, FIXED)
        widths, time = list(found.block_out_channels), 4 * found.block_out_channels[0]
        self.conv_in = Conv2d(found.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], time)
        if found.addition_embed_type:
            self.add_embedding = TimestepEmbedding(found.projection_class_embeddings_input_dim, time)
        self.down_blocks = nn.ModuleList(self._down(widths, time))
        self.up_blocks = nn.ModuleList(self._up(widths, time))
        last = len(widths) - 1
        self.mid_block = MiddleLevel([self._resnet(widths[-1], widths[-1], time) for _ in range(2)], self._transformer(last))
        self.conv_norm_out = GroupNorm(found.norm_num_groups, widths[0], found.norm_eps)
        self.conv_out = Conv2d(widths[0], found.out_channels, 3, padding=1)

    def _resnet(self, inputs: int, outputs: int, time: int) -> ResnetBlock2D:
        return ResnetBlock2D(inputs, outputs, self.config.norm_num_groups, self.config.norm_eps, time)

    def _transformer(self, level: int) -> dict[str, Any]:
        """Return what the transformers of a level are like; `attention_head_dim` counts heads, whatever its name says."""
        config = self.config
        heads, layers = (_at(config[name], level) for name in ("attention_head_dim", "transformer_layers_per_block"))
        linear, groups = config.use_linear_projection, config.norm_num_groups
        width = config.block_out_channels[level]
        return {"width": width, "heads": heads, "context": config.cross_attention_dim, "layers": layers, "groups": groups, "linear": linear}

    def _down(self, widths: Sequence[int], time: int) -> list[DownLevel]:
        levels = []
        for number, (kind, width) in enumerate(zip(self.config.down_block_types, widths, strict=True)):
            inputs = [widths[max(0, number - 1)], *[width] * (self.config.layers_per_block - 1)]
            resnets = [self._resnet(before, width, time) for before in inputs]
            levels.append(DownLevel(resnets, _wanted(kind, self._transformer(number)), down=width if number < len(widths) - 1 else 0))
        return levels

    def _up(self, widths: Sequence[int], time: int) -> list[UpLevel]:
        levels, before = [], widths[-1]
        for kind, number in zip(self.config.up_block_types, reversed(range(len(widths))), strict=True):
            width, count = widths[number], self.config.layers_per_block + 1
            skips = [*[width] * (count - 1), widths[max(0, number - 1)]]
            resnets = [self._resnet((width if place else before) + skip, width, time) for place, skip in enumerate(skips)]
            levels.append(UpLevel(resnets, _wanted(kind, self._transformer(number)), up=width if number else 0))
            before = width
        return levels

    def forward(self, x: Tensor, timesteps: Tensor, states: Tensor, pooled: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
        """Predict (B, 4, h, w) for noisy latents of that shape at `timesteps` (B,) or () and captions' `states` (B, m, C).

        SDXL is also told `pooled` (B, P), captions as a whole, and `sizes` (B, 6): original height and width, crop, target height and width.
        """
        time = self.time_embedding(sinusoid(timesteps.expand(len(x)), self.config.block_out_channels[0]).to(x.dtype))
        if self.config.addition_embed_type:
            assert pooled is not None and sizes is not None
            told = torch.cat([pooled, sinusoid(sizes, self.config.addition_time_embed_dim).flatten(1).to(pooled.dtype)], dim=-1)
            time = time + self.add_embedding(told.to(time.dtype))
        time = F.silu(time)
        x = self.conv_in(x)
        kept = [x]
        for level in self.down_blocks:
            kept += level(kept[-1], time, states)
        x = self.mid_block(kept[-1], time, states)
        for level in self.up_blocks:
            count = len(level.resnets)
            skips, kept = kept[: -count - 1 : -1], kept[:-count]
            # Only latents that cannot be halved evenly need to be told the size to come back to.
            x = level(x, skips, time, states, kept[-1].shape[2:] if kept else None)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out


def _at(value: Any, level: int) -> int:
    """Return a level's own number of what is given for all or for each."""
    return int(value[level]) if isinstance(value, Sequence) else int(value)


def _wanted(kind: str, transformer: dict[str, Any]) -> dict[str, Any] | None:
    return transformer if kind.startswith("CrossAttn") else None
