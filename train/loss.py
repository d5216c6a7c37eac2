"""What an error costs: elementwise losses and the weight of a timestep, one small function per formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from train.config import ObjectiveConfig

# Debiasing treats cleaner latents as if this were their SNR, as in sd-scripts; Stable Diffusion's own goes up to 1175.
MAX_DEBIASED_SNR = 1000.0


def l2(prediction: Tensor, target: Tensor, c: Tensor) -> Tensor:
    return (prediction - target) ** 2


def l1(prediction: Tensor, target: Tensor, c: Tensor) -> Tensor:
    return (prediction - target).abs()


def huber(prediction: Tensor, target: Tensor, c: Tensor) -> Tensor:
    """Pseudo-Huber: quadratic near 0 and linear far out, so that outliers pull less; as steep as l2 near 0 (https://arxiv.org/abs/2403.16728)."""
    return 2 * c * (((prediction - target) ** 2 + c**2).sqrt() - c)


def smooth_l1(prediction: Tensor, target: Tensor, c: Tensor) -> Tensor:
    """The same without the factor c: twice as steep as l1 far out, whatever c."""
    return 2 * (((prediction - target) ** 2 + c**2).sqrt() - c)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"l2": l2, "l1": l1, "huber": huber, "smooth_l1": smooth_l1}


def constant(c: float, snr: Tensor, share: Tensor) -> Tensor:
    return snr.new_full(snr.shape, c)


def exponential(c: float, snr: Tensor, share: Tensor) -> Tensor:
    """Fall from 1 at the clean end to c at the noisy one, evenly in its logarithm (https://arxiv.org/abs/2403.16728)."""
    return (share.to(snr) * math.log(c)).exp()


def by_snr(c: float, snr: Tensor, share: Tensor) -> Tensor:
    """Near 1 on clean latents, c on pure noise, by the noise's share in what the model sees (the same paper)."""
    sigma = snr**-0.5
    return (1 - c) / (1 + sigma) ** 2 + c


# huber_schedule -> (huber_c, SNR, timestep / timesteps in all) -> where the loss turns from quadratic to linear
HUBER_SCHEDULES: dict[str, Callable[[float, Tensor, Tensor], Tensor]] = {"snr": by_snr, "exponential": exponential, "constant": constant}


def elementwise_loss(config: ObjectiveConfig, prediction: Tensor, target: Tensor, snr: Tensor, share: Tensor) -> Tensor:
    """Return the loss of every element, shaped as `prediction`; `snr` and `share`, the timestep over all timesteps, are (B,) on the CPU."""
    c = HUBER_SCHEDULES[config.huber_schedule](config.huber_c, snr, share)
    return LOSSES[config.loss_type](prediction, target, c.to(prediction.dtype).to(prediction.device).view(-1, *[1] * (prediction.ndim - 1)))


def masked_mean(loss: Tensor, mask: Tensor | None, normalize: bool = False) -> Tensor:
    """Average each picture's loss (B, C, h, w) to (B,); `mask` is (B, 1, h, w) in 0..1, 0 where nothing is learned.

    As in sd-scripts the mean goes over all of the picture, so that the more is masked the less it counts; `normalize` makes the
    unmasked part count as a whole picture.
    """
    if mask is None:
        return loss.mean(dim=(1, 2, 3))
    mean = (loss * mask).mean(dim=(1, 2, 3))
    return mean / mask.mean(dim=(1, 2, 3)).clamp(min=1e-3) if normalize else mean


def timestep_weight(config: ObjectiveConfig, snr: Tensor, shift: int, power: float) -> Tensor:
    """Return what a sample's timestep counts, shaped as `snr`; 1 unless the settings say otherwise.

    `shift` and `power` say what a weight on clean latents becomes on what the model predicts (see train.noise's Prediction).
    """
    if config.min_snr_gamma:
        return min_snr_weight(snr, config.min_snr_gamma, shift)
    if config.debiased_estimation_loss:
        return debiased_weight(snr, shift, power)
    return snr.new_ones(snr.shape)


def min_snr_weight(snr: Tensor, gamma: float, shift: int) -> Tensor:
    """Weigh timesteps by min(SNR, gamma) / (SNR + shift), shaped as `snr` (https://arxiv.org/abs/2303.09556).

    `shift` is 0 where noise is predicted and 1 where velocity is.
    """
    return snr.clamp(max=gamma) / (snr + shift)


def debiased_weight(snr: Tensor, shift: int, power: float) -> Tensor:
    """Weigh timesteps by 1 / (SNR + shift) ** power: 1 / sqrt(SNR) for noise (https://arxiv.org/abs/2310.08442), 1 / (SNR + 1) for velocity."""
    return (snr.clamp(max=MAX_DEBIASED_SNR) + shift) ** -power
