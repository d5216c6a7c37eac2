"""One training step's loss, as the papers write it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.config import TrainConfig
from train.loss import elementwise_loss, masked_mean, min_snr_weight
from train.noise import NoiseSchedule, sample_latents, sample_noise, sample_timesteps

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from train.dataset import Batch
    from train.families.sd import Model


def training_step(batch: Batch, model: Model, schedule: NoiseSchedule, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """Posterior latents and captions in, one scalar loss out; all randomness comes from `generator`."""
    latents = sample_latents(batch.latent_mean, batch.latent_std, generator)  # (B, C, h, w), scaled
    noise = sample_noise(latents, config.objective.noise_offset, generator)
    timesteps = sample_timesteps(len(latents), schedule, generator)
    noisy_latents = schedule.add_noise(latents, noise, timesteps)

    conditioning = model.conditioning(batch.input_ids, config.model.clip_skip, batch.sizes)
    prediction = model.denoise(noisy_latents, timesteps.to(latents.device), conditioning)
    target = schedule.target(latents, noise, timesteps)

    # the order is the field's: elements -> mask -> picture, the picture's weight (prior preservation), the timestep's -> batch
    snr = schedule.snr(timesteps)
    loss = elementwise_loss(config.objective.loss_type, prediction.float(), target.float(), snr)
    loss = masked_mean(loss, batch.mask, config.objective.normalize_masked_area_loss)
    snr_weight = min_snr_weight(snr, config.objective.min_snr_gamma, schedule.prediction.snr_shift)
    return (loss * batch.weight * snr_weight.float().to(loss.device)).mean()
