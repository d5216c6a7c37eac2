"""What UNet and VAE are built of: residual blocks, attention, and changes of size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prep.options import UserError


class Config(dict[str, Any]):
    """A part's config.json, whose entries are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    @classmethod
    def read(cls, found: Mapping[str, Any], defaults: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]]) -> Config:
        """Add what a config leaves out; raises UserError if it asks for something that is not built here.

        `fixed` are entries of which only some values are built; an entry that neither table knows is kept, and changes nothing here.
        """
        for key, value in found.items():
            if key in fixed and value not in fixed[key]:
                raise UserError(f"a config says {key} = {value!r}, which no Stable Diffusion model has; give a base model of SD 1.x, SD 2.x or SDXL")
        return cls({**defaults, **{key: value for key, value in found.items() if not key.startswith("_")}})


class _Unset:
    """A layer whose weights are not set, since they will be those of a file; on the meta device setting them imports half of torch."""

    def reset_parameters(self) -> None:
        pass


class Linear(_Unset, nn.Linear):
    pass


class Conv2d(_Unset, nn.Conv2d):
    pass


class GroupNorm(_Unset, nn.GroupNorm):
    pass


class LayerNorm(_Unset, nn.LayerNorm):
    pass


class Embedding(_Unset, nn.Embedding):
    pass


class Part(nn.Module):
    """A network with a configuration, all of whose weights are of one type and in one place."""

    config: Config

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


class Recomputed(nn.Module):
    """A block that can keep its inputs alone and compute the rest again in the backward pass (arxiv.org/abs/1604.06174)."""

    recompute = False
    compiled: Callable[..., Any] | None = None  # computes in place of the block's own code and its layers' hooks, see train/regions.py

    def __call__(self, *args: Any) -> Any:
        compute = super().__call__ if self.compiled is None else self.compiled
        if self.recompute and torch.is_grad_enabled():
            from torch.utils.checkpoint import checkpoint

            return checkpoint(compute, *args, use_reentrant=False)  # the other kind gives no gradient where no input has one
        return compute(*args)


class ResnetBlock2D(Recomputed):
    """Two convolutions beside the input, told the time between them: (B, inputs, h, w) -> (B, outputs, h, w)."""

    def __init__(self, inputs: int, outputs: int, groups: int, eps: float, time: int = 0) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, inputs, eps)
        self.conv1 = Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = Linear(time, outputs) if time else None
        self.norm2 = GroupNorm(groups, outputs, eps)
        self.conv2 = Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """`time` (B, T) is activated already: all blocks are told the same."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        if self.time_emb_proj is not None:
            hidden = hidden + self.time_emb_proj(time)[:, :, None, None]
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + hidden


class Attention(nn.Module):
    """Attention with heads over tokens (B, n, width), to themselves or to `states` (B, m, context)."""

    def __init__(self, width: int, heads: int, context: int = 0, groups: int = 0, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.group_norm = GroupNorm(groups, width, 1e-6) if groups else None
        self.to_q = Linear(width, width, bias=bias)
        self.to_k = Linear(context or width, width, bias=bias)
        self.to_v = Linear(context or width, width, bias=bias)
        self.to_out = nn.ModuleList([Linear(width, width)])

    def forward(self, x: Tensor, states: Tensor | None = None) -> Tensor:
        seen = x if states is None else states
        query, key, value = (of.unflatten(-1, (self.heads, -1)).transpose(1, 2) for of in (self.to_q(x), self.to_k(seen), self.to_v(seen)))
        found = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.to_out[0](found.transpose(1, 2).flatten(2))
        return out


class PictureAttention(Attention):
    """A VAE's attention: one head over all places of (B, C, h, w), beside the input."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__(width, 1, groups=groups, bias=True)

    def forward(self, x: Tensor, states: Tensor | None = None) -> Tensor:
        assert self.group_norm is not None
        tokens = self.group_norm(x.flatten(2)).transpose(1, 2)
        return x + super().forward(tokens).transpose(1, 2).unflatten(2, x.shape[2:])


class Downsample2D(nn.Module):
    """Halve (B, C, h, w); a VAE adds its edge right and below only."""

    def __init__(self, width: int, padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.conv = Conv2d(width, width, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x if self.padding else F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample2D(nn.Module):
    """Double (B, C, h, w), or bring it to the size of what comes next."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, size: torch.Size | None = None) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, size=size, scale_factor=None if size else 2.0, mode="nearest"))
        return out
