"""The VAE of Stable Diffusion (arxiv.org/abs/2112.10752): pictures to latents, an eighth as wide and high, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.modules.blocks import Config, Conv2d, Downsample2D, GroupNorm, Part, PictureAttention, ResnetBlock2D, Upsample2D

DEFAULTS: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": (64,), "layers_per_block": 1, "norm_num_groups": 32,
    "sample_size": 32, "scaling_factor": 0.18215, "use_quant_conv": True, "use_post_quant_conv": True, "mid_block_add_attention": True,
}  # fmt: skip
FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"), "shift_factor": (None,), "latents_mean": (None,), "latents_std": (None,),
}  # fmt: skip
EPS = 1e-6


class CoderLevel(nn.Module):
    """Residual blocks at one size, then a change of size."""

    def __init__(self, inputs: int, width: int, count: int, groups: int, down: bool = False, up: bool = False) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock2D(width if place else inputs, width, groups, EPS) for place in range(count)])
        if down:
            self.downsamplers = nn.ModuleList([Downsample2D(width, 0)])
        if up:
            self.upsamplers = nn.ModuleList([Upsample2D(width)])

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        for change in (*getattr(self, "downsamplers", ()), *getattr(self, "upsamplers", ())):
            x = change(x)
        return x


class CoderMiddle(nn.Module):
    """Two residual blocks, and attention between them unless the VAE goes without."""

    def __init__(self, width: int, groups: int, attends: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([PictureAttention(width, groups)] if attends else [])
        self.resnets = nn.ModuleList([ResnetBlock2D(width, width, groups, EPS) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        out: Tensor = self.resnets[1](x)
        return out


class Coder(nn.Module):
    """Half of a VAE: its levels, its middle, and convolutions at both ends."""

    def __init__(self, inputs: int, outputs: int, levels: Sequence[CoderLevel], widths: tuple[int, int], groups: int, attends: bool) -> None:
        super().__init__()
        first, last = widths
        self.conv_in = Conv2d(inputs, first, 3, padding=1)
        setattr(self, self.blocks, nn.ModuleList(levels))
        self.mid_block = CoderMiddle(max(widths), groups, attends)
        self.conv_norm_out = GroupNorm(groups, last, EPS)
        self.conv_out = Conv2d(last, outputs, 3, padding=1)

    blocks = ""  # the name that its levels have


class Encoder(Coder):
    """Pictures (B, 3, H, W) to means and variances (B, 2C, h, w)."""

    blocks = "down_blocks"

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))
        return out


class Decoder(Coder):
    """Latents (B, C, h, w) to pictures (B, 3, H, W)."""

    blocks = "up_blocks"

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for level in self.up_blocks:
            x = level(x)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out


class AutoencoderKL(Part):
    """The whole of it; its name is what model_index.json and config.json call it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = found = Config.read(config, DEFAULTS, FIXED)
        widths, count, groups, latent = list(found.block_out_channels), found.layers_per_block, found.norm_num_groups, found.latent_channels
        last, attends = len(widths) - 1, found.mid_block_add_attention
        down = [CoderLevel(widths[max(0, i - 1)], width, count, groups, down=i < last) for i, width in enumerate(widths)]
        up = [CoderLevel(widths[min(last, i + 1)], widths[i], count + 1, groups, up=i > 0) for i in reversed(range(last + 1))]
        self.encoder = Encoder(found.in_channels, 2 * latent, down, (widths[0], widths[-1]), groups, attends)
        self.decoder = Decoder(latent, found.out_channels, up, (widths[-1], widths[0]), groups, attends)
        self.quant_conv = Conv2d(2 * latent, 2 * latent, 1) if found.use_quant_conv else None
        self.post_quant_conv = Conv2d(latent, latent, 1) if found.use_post_quant_conv else None

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode pictures (B, 3, H, W) in [-1, 1]; returns mean and standard deviation (B, C, h, w) of their latents, not yet scaled."""
        found = self.encoder(pixels)
        mean, log_variance = (found if self.quant_conv is None else self.quant_conv(found)).chunk(2, dim=1)
        return mean, torch.exp(0.5 * log_variance.clamp(-30, 20))

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (B, C, h, w), not scaled any more, to pictures (B, 3, H, W) in about [-1, 1]."""
        out: Tensor = self.decoder(latents if self.post_quant_conv is None else self.post_quant_conv(latents))
        return out
