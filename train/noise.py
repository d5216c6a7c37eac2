"""The forward process: what is added to the latents at a timestep, and what the model is to predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prep.options import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from train.config import ObjectiveConfig


class NoiseSchedule:
    """DDPM's forward process over T timesteps, tables in float64 (https://arxiv.org/abs/2006.11239).

    `betas` is (T,). `prediction_type` is "epsilon" or "v_prediction"; below the schedule nobody asks which.
    """

    def __init__(self, betas: Tensor, prediction_type: str = "epsilon", zero_terminal_snr: bool = False) -> None:
        if prediction_type not in PREDICTIONS:
            raise UserError(f"the base model predicts {prediction_type!r}, which is not supported; take one that predicts {' or '.join(PREDICTIONS)}")
        alphas_cumprod = (1 - betas.double()).cumprod(0)
        if zero_terminal_snr:
            if prediction_type == "epsilon":
                raise UserError(
                    "zero terminal SNR leaves a model that predicts noise nothing to learn at the last timestep; "
                    'set zero_terminal_snr = false, or prediction_type = "v_prediction" if that is what the base model predicts'
                )
            alphas_cumprod = rescale_zero_terminal_snr(alphas_cumprod)
        self.alphas_cumprod = alphas_cumprod
        self.prediction = PREDICTIONS[prediction_type]

    @classmethod
    def from_config(cls, config: Mapping[str, Any], prediction_type: str) -> NoiseSchedule:
        """Build it from a diffusers scheduler_config.json; what is missing takes Stable Diffusion's value."""
        import torch

        steps = config.get("num_train_timesteps", 1000)
        start, end = config.get("beta_start", 0.00085), config.get("beta_end", 0.012)
        kind = config.get("beta_schedule", "scaled_linear")
        if kind not in BETAS:
            raise UserError(f"the base model's beta_schedule {kind!r} is not supported; take one with {' or '.join(BETAS)}")
        power = BETAS[kind]
        betas = torch.linspace(start ** (1 / power), end ** (1 / power), steps, dtype=torch.float64) ** power
        return cls(betas, prediction_type, bool(config.get("rescale_betas_zero_snr", False)))

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def scales(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return sqrt(abar) and sqrt(1 - abar), each (B, 1, 1, 1) in the type and on the device of `like`."""
        abar = self.alphas_cumprod[timesteps.cpu()].view(-1, *[1] * (like.ndim - 1))
        signal, sigma = abar.sqrt().to(like.dtype), (1 - abar).sqrt().to(like.dtype)  # first the type: not all devices know float64
        return signal.to(like.device), sigma.to(like.device)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return the noisy latents, (B, C, h, w)."""
        signal, sigma = self.scales(timesteps, latents)
        return signal * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the model is to predict: the noise, or the velocity (https://arxiv.org/abs/2202.00512)."""
        signal, sigma = self.scales(timesteps, latents)
        return self.prediction.target(latents, noise, signal, sigma)

    def snr(self, timesteps: Tensor) -> Tensor:
        """Return abar / (1 - abar), (B,) float64 on the CPU."""
        abar = self.alphas_cumprod[timesteps.cpu()]
        return abar / (1 - abar)


def _noise_target(latents: Tensor, noise: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
    return noise


def _velocity_target(latents: Tensor, noise: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
    return signal * noise - sigma * latents


@dataclass(frozen=True)
class Prediction:
    """What a kind of model predicts, and how a weight on it follows from the SNR.

    A weight on clean latents becomes one on the prediction divided by SNR + `snr_shift`; debiasing divides by (SNR + shift) ** power.
    """

    target: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    snr_shift: int
    debiased_power: float


PREDICTIONS = {"epsilon": Prediction(_noise_target, 0, 0.5), "v_prediction": Prediction(_velocity_target, 1, 1.0)}

# beta_schedule -> the power whose roots are spaced evenly
BETAS = {"linear": 1, "scaled_linear": 2}


def rescale_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Shift and scale sqrt(abar) so that the last is 0 and the first stays (https://arxiv.org/abs/2305.08891, algorithm 1)."""
    root = alphas_cumprod.sqrt()
    first, last = root[0].clone(), root[-1].clone()
    return ((root - last) * first / (first - last)) ** 2


def with_zero_terminal_snr(scheduler_config: Mapping[str, Any], setting: bool | None) -> dict[str, Any]:
    """Return a scheduler config in which the setting zero_terminal_snr, unless it is None, overrules what the base says of itself."""
    return dict(scheduler_config) if setting is None else {**scheduler_config, "rescale_betas_zero_snr": setting}


def sample_latents(mean: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    """Draw latents from the VAE's posterior, so that every epoch sees a picture a little differently."""
    return mean + std * _normal(mean.shape, mean, generator)


def sample_noise(latents: Tensor, config: ObjectiveConfig, generator: torch.Generator) -> Tensor:
    """Draw the noise that the model is to find, (B, C, h, w): plain, shifted by channel, or a pyramid, as the settings say."""
    noise = _normal(latents.shape, latents, generator)
    if config.noise_offset:
        strength = noise_offset_strength(latents, config, generator)
        noise = noise + strength * _normal((*latents.shape[:2], 1, 1), latents, generator)
    if config.multires_noise_iterations:
        noise = pyramid_noise(noise, config.multires_noise_iterations, config.multires_noise_discount, generator)
    return noise


def noise_offset_strength(latents: Tensor, config: ObjectiveConfig, generator: torch.Generator) -> Tensor:
    """Say how far a channel's noise is shifted, (B or 1, C or 1, 1, 1): the offset, drawn up to it, or growing with the channel's mean.

    The offset is Guttenberg's (https://www.crosslabs.org/blog/diffusion-with-offset-noise); drawing it and letting it grow are sd-scripts'.
    """
    strength = latents.new_full((1, 1, 1, 1), config.noise_offset)
    if config.noise_offset_random_strength:
        strength = strength * _uniform(len(latents), latents, generator)
    if config.adaptive_noise_scale:
        strength = strength + config.adaptive_noise_scale * latents.mean(dim=(2, 3), keepdim=True).abs()
    return strength.clamp(min=0)


def pyramid_noise(noise: Tensor, iterations: int, discount: float, generator: torch.Generator) -> Tensor:
    """Add noise of ever lower resolution, each `discount` times weaker, and scale the sum back to unit deviation.

    Each level is 2 to 4 times smaller than the last, drawn anew each step (Whitaker's multi-resolution noise,
    https://wandb.ai/johnowhitaker/multires_noise); as in sd-scripts the first has the full resolution.
    """
    import torch
    from torch.nn.functional import interpolate

    height, width = noise.shape[-2:]
    for level in range(iterations):
        ratio = (2 + 2 * torch.rand((), generator=generator, dtype=torch.float64).item()) ** level
        size = max(1, int(height / ratio)), max(1, int(width / ratio))
        coarse = _normal((*noise.shape[:2], *size), noise, generator)
        noise = noise + discount**level * interpolate(coarse, (height, width), mode="bilinear")
        if 1 in size:
            break
    return noise / noise.std()


def perturbed(noise: Tensor, config: ObjectiveConfig, generator: torch.Generator) -> Tensor:
    """Return the noise that is added where the target keeps `noise`: the model learns to bear its own errors (https://arxiv.org/abs/2301.11706)."""
    if not config.ip_noise_gamma:
        return noise
    strength = _uniform(len(noise), noise, generator) if config.ip_noise_gamma_random_strength else 1.0
    return noise + config.ip_noise_gamma * strength * _normal(noise.shape, noise, generator)


def _normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw on the CPU whatever the device, so that a seed means the same run everywhere."""
    import torch

    return torch.randn(shape, generator=generator, dtype=torch.float32).to(like)


def _uniform(count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one number in 0..1 for each sample, (B, 1, 1, 1)."""
    import torch

    return torch.rand((count, 1, 1, 1), generator=generator, dtype=torch.float32).to(like)
