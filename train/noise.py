"""The forward process: what is added to the latents at a timestep, and what the model is to predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prep.options import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


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
                    "the base model's scheduler_config.json asks for zero terminal SNR, which needs prediction_type v_prediction; mend it there"
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
    """What a kind of model predicts; `snr_shift` turns a weight on clean latents into one on it: divide by SNR + shift."""

    target: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    snr_shift: int


PREDICTIONS = {"epsilon": Prediction(_noise_target, 0), "v_prediction": Prediction(_velocity_target, 1)}

# beta_schedule -> the power whose roots are spaced evenly
BETAS = {"linear": 1, "scaled_linear": 2}


def rescale_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Shift and scale sqrt(abar) so that the last is 0 and the first stays (https://arxiv.org/abs/2305.08891, algorithm 1)."""
    root = alphas_cumprod.sqrt()
    first, last = root[0].clone(), root[-1].clone()
    return ((root - last) * first / (first - last)) ** 2


def sample_latents(mean: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    """Draw latents from the VAE's posterior, so that every epoch sees a picture a little differently."""
    return mean + std * _normal(mean.shape, mean, generator)


def sample_noise(latents: Tensor, offset: float, generator: torch.Generator) -> Tensor:
    """Draw noise shaped as the latents; `offset` adds one normal number per channel (Guttenberg's noise offset)."""
    noise = _normal(latents.shape, latents, generator)
    if offset:
        noise = noise + offset * _normal((*latents.shape[:2], 1, 1), latents, generator)
    return noise


def sample_timesteps(count: int, schedule: NoiseSchedule, generator: torch.Generator) -> Tensor:
    """Draw `count` timesteps evenly from all, (B,) int64 on the CPU."""
    import torch

    return torch.randint(0, len(schedule), (count,), generator=generator)


def _normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw on the CPU whatever the device, so that a seed means the same run everywhere."""
    import torch

    return torch.randn(shape, generator=generator, dtype=torch.float32).to(like)
