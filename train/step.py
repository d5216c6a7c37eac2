"""One training step's loss, as the papers write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from train.loss import elementwise_loss, masked_mean, timestep_weight
from train.noise import NoiseSchedule, perturbed, sample_latents, sample_noise
from train.timesteps import sample_timesteps

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from train.config import ObjectiveConfig, TrainConfig
    from train.dataset import Batch
    from train.families.sd import Model


@dataclass(frozen=True)
class Question:
    """What the UNet is asked about B samples, and what it should answer."""

    noisy_latents: Tensor  # (B, C, h, w)
    timesteps: Tensor  # (B,), on the CPU
    target: Tensor  # (B, C, h, w): noise or velocity


def training_step(batch: Batch, model: Model, schedule: NoiseSchedule, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """Posterior latents and captions in, one scalar loss out; all randomness comes from `generator`."""
    question = drawn(batch, schedule, config.objective, generator)
    conditioning = batch.text
    if conditioning is None:
        conditioning = model.conditioning(batch.input_ids, config.model.clip_skip, batch.sizes, batch.token_weights)
    prediction = model.denoise(question.noisy_latents, question.timesteps.to(question.noisy_latents.device), conditioning)
    return loss_of(prediction, question, batch, schedule, config.objective)


def drawn(batch: Batch, schedule: NoiseSchedule, objective: ObjectiveConfig, generator: torch.Generator) -> Question:
    """Draw a batch's latents, noise and timesteps."""
    latents = sample_latents(batch.latent_mean, batch.latent_std, generator)  # (B, C, h, w), scaled
    noise = sample_noise(latents, objective, generator)
    timesteps = sample_timesteps(len(latents), len(schedule), objective, generator)
    noisy_latents = schedule.add_noise(latents, perturbed(noise, objective, generator), timesteps)
    return Question(noisy_latents, timesteps, schedule.target(latents, noise, timesteps))


def loss_of(prediction: Tensor, question: Question, batch: Batch, schedule: NoiseSchedule, objective: ObjectiveConfig) -> Tensor:
    """Return the scalar loss of a prediction (B, C, h, w), which may be of half precision."""
    timesteps, prediction = question.timesteps, prediction.to(question.noisy_latents.dtype)
    # the order is the field's: elements -> mask -> picture, the picture's weight (prior preservation), the timestep's -> batch
    snr = schedule.snr(timesteps)
    loss = elementwise_loss(objective, prediction, question.target, snr, timesteps.double() / len(schedule))
    loss = masked_mean(loss, batch.mask, objective.normalize_masked_area_loss)
    kind = schedule.prediction
    snr_weight = timestep_weight(objective, snr, kind.snr_shift, kind.debiased_power).to(loss.dtype)  # first the type: not all devices know float64
    return (loss * batch.weight * snr_weight.to(loss.device)).mean()
