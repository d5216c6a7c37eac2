"""One training step's loss, as the papers write it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.config import TrainConfig
from train.loss import elementwise_loss, masked_mean, timestep_weight
from train.noise import NoiseSchedule, perturbed, sample_latents, sample_noise
from train.timesteps import sample_timesteps

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from train.dataset import Batch
    from train.families.sd import Model


def training_step(batch: Batch, model: Model, schedule: NoiseSchedule, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """Posterior latents and captions in, one scalar loss out; all randomness comes from `generator`."""
    objective = config.objective
    latents = sample_latents(batch.latent_mean, batch.latent_std, generator)  # (B, C, h, w), scaled
    noise = sample_noise(latents, objective, generator)
    timesteps = sample_timesteps(len(latents), len(schedule), objective, generator)
    noisy_latents = schedule.add_noise(latents, perturbed(noise, objective, generator), timesteps)

    conditioning = batch.text
    if conditioning is None:
        conditioning = model.conditioning(batch.input_ids, config.model.clip_skip, batch.sizes, batch.token_weights)
    prediction = model.denoise(noisy_latents, timesteps.to(latents.device), conditioning).to(latents.dtype)  # from half precision, if so
    target = schedule.target(latents, noise, timesteps)

    # the order is the field's: elements -> mask -> picture, the picture's weight (prior preservation), the timestep's -> batch
    snr = schedule.snr(timesteps)
    loss = elementwise_loss(objective, prediction, target, snr, timesteps.double() / len(schedule))
    loss = masked_mean(loss, batch.mask, objective.normalize_masked_area_loss)
    kind = schedule.prediction
    snr_weight = timestep_weight(objective, snr, kind.snr_shift, kind.debiased_power).to(loss.dtype)  # first the type: not all devices know float64
    return (loss * batch.weight * snr_weight.to(loss.device)).mean()
