"""The bare bound of a training step: forward, backward and optimizer of the same modules on one batch that lies ready, and nothing else.

A LoRA is here what torch computes in the fewest words, y = W x + b + (up (down x)) * scale, in the layer's own forward: no hooks, no
dropout, no clipping, no look at the loss, no new data. What a step takes above that is the trainer's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.runtime import Runtime

if TYPE_CHECKING:
    from train.dataset import Batch
    from train.families.sd import Model

Forward = Callable[[Tensor], Tensor]


class BareLoRA:
    """LoRA of one rank on some layers, in place of their own forward while `acting`."""

    def __init__(self, modules: Sequence[nn.Module], rank: int, alpha: float) -> None:
        self.parameters: list[nn.Parameter] = []
        self._forwards: list[tuple[Any, Forward]] = [(module, self._forward(module, rank, alpha / rank)) for module in modules]

    def _forward(self, module: Any, rank: int, scale: float) -> Forward:
        out_features, *inner = module.weight.shape
        draw = torch.Generator().manual_seed(len(self.parameters))
        down = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(rank, *inner), a=math.sqrt(5), generator=draw).to(module.weight.device))
        up = nn.Parameter(torch.zeros(out_features, rank, *[1] * (len(inner) - 1), device=module.weight.device))
        self.parameters += [down, up]
        plain: Forward = module.forward
        if isinstance(module, nn.Linear):
            return lambda x: plain(x) + F.linear(F.linear(x, down), up) * scale
        geometry = {key: getattr(module, key) for key in ("stride", "padding", "dilation")}
        return lambda x: plain(x) + F.conv2d(F.conv2d(x, down, **geometry), up) * scale

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Let the layers compute with their LoRA inside."""
        for module, forward in self._forwards:
            module.forward = forward
        try:
            yield
        finally:
            for module, _ in self._forwards:
                del module.forward


def bare_step(
    model: Model, batches: Sequence[Batch], parameters: Sequence[nn.Parameter], runtime: Runtime, clip_skip: int = 1
) -> Callable[[], None]:
    """Return a function that takes one bare step on some batches, with AdamW in one kernel."""
    moved = [runtime.moved(batch) for batch in batches]
    noises = [torch.randn(batch.latent_mean.shape, generator=torch.Generator().manual_seed(0)).to(runtime.device) for batch in moved]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0, fused=True)  # it moves nothing, so a full fine-tune may be measured too

    def step() -> None:
        for batch, noise in zip(moved, noises, strict=True):
            with runtime.autocast():
                timesteps = torch.full((len(noise),), 500, device=runtime.device)
                conditioning = batch.text or model.conditioning(batch.input_ids, clip_skip, batch.sizes)
                prediction = model.denoise(batch.latent_mean + noise, timesteps, conditioning)
                loss = F.mse_loss(prediction.float(), noise)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
