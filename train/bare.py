"""The bare bound of a step: what forward, backward and optimizer of the same modules take with nothing around them.

A LoRA is down and up on the input of each layer that the run trains, with no dropout, hook, logging, clipping or check for numbers that
are not finite; the loss is the plain mean square; the inputs are there before the clock starts; the optimizer is torch's fused AdamW.
Captions are encoded in the step where the run does so. Other kinds of adapter are measured against a LoRA on the same layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.stored import base_shape

if TYPE_CHECKING:
    from train.dataset import Batch
    from train.state import Job, TrainState


class BareStep:
    """A step of the same work as the run's; it changes weights of its own, but in a full fine-tune the run's."""

    def __init__(self, job: Job, state: TrainState) -> None:
        self.job, self.network = job, state.network
        self.forwards: dict[nn.Module, Callable[..., Tensor]] = {}
        self.parameters: list[nn.Parameter] = []
        if job.config.network.full:
            # Moments of its own would take twice the weights' memory once more, so it borrows the run's.
            self.parameters, self.optimizer = state.parameters, state.optimizer
            return
        for name, layer in state.network.layers.items():
            module: Any = state.network.target(name).module
            self.forwards[module] = self._with_lora(module, getattr(layer, "down", None), getattr(layer, "scale", 1.0))
        self.optimizer = torch.optim.AdamW(self.parameters, lr=0.0, fused=True)

    def _with_lora(self, module: Any, down: Tensor | None, scale: Any) -> Callable[..., Tensor]:
        """Return a layer's own computation plus a LoRA, of the rank that `down` has."""
        out_features, *inner = base_shape(module)
        wide = len(inner) == 3
        rank = self.job.config.network.network_dim if down is None else len(down)
        device = self.job.runtime.device
        first = nn.Parameter(torch.randn(rank, *inner, device=device) / rank)
        second = nn.Parameter(torch.zeros(out_features, rank, *((1, 1) if wide else ()), device=device))
        self.parameters += [first, second]
        base = module.forward
        if wide:
            how = {"stride": module.stride, "padding": module.padding, "dilation": module.dilation}
            return lambda x, *rest: base(x) + F.conv2d(F.conv2d(x, first, **how), second) * scale
        return lambda x, *rest: base(x) + F.linear(F.linear(x, first), second) * scale

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Let the modules compute with the bare LoRA in place of the run's network."""
        if not self.forwards:  # a full fine-tune
            yield
            return
        with self.network.aside():
            for module, forward in self.forwards.items():
                module.forward = forward
            try:
                yield
            finally:
                for module in self.forwards:
                    del module.forward

    def inputs(self, batch: Batch) -> tuple[Batch, Tensor, Tensor]:
        """Return a batch on the device with noise and timesteps drawn."""
        moved = self.job.runtime.moved(batch)
        return moved, torch.randn_like(moved.latent_mean), torch.full((len(batch.sizes),), 500, device=moved.latent_mean.device)

    def __call__(self, batch: Batch, noise: Tensor, timesteps: Tensor) -> None:
        """Take one step of one batch; `attached` is around it."""
        model = self.job.model
        with self.job.runtime.autocast():
            text = batch.text
            if text is None:
                text = model.conditioning(batch.input_ids, self.job.config.model.clip_skip, batch.sizes)
            prediction = model.denoise(batch.latent_mean + noise, timesteps, text)
        F.mse_loss(prediction.float(), noise).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
