"""The layers of a UNet's residual blocks and changes of size, which an adapter sits on only if conv_dim asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from train.layouts import RESIDUAL, kohya_name, stability_path

if TYPE_CHECKING:
    from torch import nn

    from train.adapters import Target


@dataclass(frozen=True)
class ConvolutionTarget:
    """A layer of the UNet outside its transformers, under kohya's name."""

    name: str
    module: nn.Module
    part: str = "unet"


def convolution_targets(unet: Any, stability_names: bool) -> list[Target]:
    """List conv1, conv2, time_emb_proj and conv_shortcut of all residual blocks, and the convolutions that change the size.

    Names are diffusers', or Stability's for SDXL. conv_in, conv_out and the time embedding never belong to a LoRA of kohya's.
    """
    level = unet.config.layers_per_block + 1
    return [
        ConvolutionTarget(kohya_name("lora_unet", stability_path(path, level, attention) if stability_names else path), module)
        for path, module, attention in _layers(unet)
    ]


def _layers(unet: Any) -> Iterator[tuple[str, nn.Module, bool]]:
    """Yield (module path, layer, whether its block has attention) in the order of the UNet."""
    blocks = [
        *((f"down_blocks.{i}", block) for i, block in enumerate(unet.down_blocks)),
        ("mid_block", unet.mid_block),
        *((f"up_blocks.{i}", block) for i, block in enumerate(unet.up_blocks)),
    ]
    for path, block in blocks:
        attention = bool(getattr(block, "attentions", ()))
        for i, resnet in enumerate(block.resnets):
            for name in RESIDUAL:
                layer = getattr(resnet, name, None)
                if layer is not None:  # conv_shortcut is there only where the number of channels changes
                    yield f"{path}.resnets.{i}.{name}", layer, attention
        for group in ("downsamplers", "upsamplers"):
            yield from ((f"{path}.{group}.{i}.conv", sampler.conv, attention) for i, sampler in enumerate(getattr(block, group, None) or ()))
