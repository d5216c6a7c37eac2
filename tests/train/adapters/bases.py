"""What tests of adapters share: a small frozen base of three layers, each of another kind, and LoRA of one rank on all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from train.adapters import Target
from train.adapters.dropout import Dropouts
from train.adapters.lora import LoRALayer
from train.adapters.network import Network
from train.adapters.plan import LayerPlan


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


class LoRANetwork(Network):
    """LoRA of one rank and alpha on every target."""

    def __init__(self, targets: Sequence[Target] = (), dim: int = 1, alpha: float = 1.0, generator: torch.Generator | None = None) -> None:
        super().__init__()
        for target in targets:
            plan = LayerPlan(dim, alpha)
            self.attach(target, LoRALayer.fresh(target.module, plan, Dropouts(), generator), plan)


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
