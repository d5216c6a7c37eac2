"""Adapters: what is trained beside the frozen base; each is a module that knows modules, never families."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn


class Target(Protocol):
    """A layer of the base that an adapter may sit on."""

    @property
    def name(self) -> str:
        """What the layer is called in LoRA files."""

    @property
    def module(self) -> nn.Module:
        """The layer itself."""

    @property
    def part(self) -> str:
        """Where it belongs: "unet" or "text_encoder"."""


ADAPTERS = {"lora": "train.adapters.lora:LoRANetwork"}
