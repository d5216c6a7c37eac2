"""EMA: the running mean of the trained weights over the last steps, smoother than any one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

WARM_UP = 10  # steps after which a mean that begins at the first weights has mostly forgotten them


@dataclass
class Ema:
    """The mean of each of some parameters: mean = decay * mean + (1 - decay) * value, the decay rising from small at the start."""

    decay: float
    means: list[Tensor]

    @classmethod
    def of(cls, parameters: Sequence[nn.Parameter], decay: float) -> Ema:
        """Begin at the parameters' present values."""
        return cls(decay, [parameter.detach().clone() for parameter in parameters])

    def update(self, parameters: Sequence[nn.Parameter], step: int) -> None:
        """Take in the values after step number `step`, counted from 1."""
        import torch

        decay = min(self.decay, step / (WARM_UP + step))
        torch._foreach_lerp_(self.means, [parameter.detach() for parameter in parameters], 1 - decay)

    @contextmanager
    def in_place_of(self, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
        """Let the parameters have their means, to save or to draw, and give them their own values back."""
        import torch

        with torch.no_grad():
            own = [parameter.detach().clone() for parameter in parameters]
            for parameter, mean in zip(parameters, self.means, strict=True):
                parameter.copy_(mean)
            try:
                yield
            finally:
                for parameter, value in zip(parameters, own, strict=True):
                    parameter.copy_(value)
