"""A small frozen base of three layers, each of another kind, for tests of adapters."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class FakeTarget:
    name: str
    module: nn.Module
    part: str


class Base(nn.Module):
    """A 3x3 convolution with stride, a 1x1 convolution, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.point, self.linear = nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 1), nn.Linear(8, 6)
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.point(self.conv(x)).flatten(2).transpose(1, 2))

    def targets(self) -> list[FakeTarget]:
        pairs = {"lora_unet_conv": self.conv, "lora_unet_point": self.point, "lora_te_linear": self.linear}
        return [FakeTarget(name, module, "text_encoder" if "_te_" in name else "unet") for name, module in pairs.items()]


def base(seed: int = 0) -> Base:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Base()


def picture(seed: int = 1) -> torch.Tensor:
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def shaken(network: nn.Module, seed: int = 5) -> nn.Module:
    """Move every weight a little, as training would."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    return network
