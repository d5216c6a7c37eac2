"""What an error costs: elementwise losses and the weight of a timestep, one small function per formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

HUBER_C = 0.1  # where the Huber loss turns from quadratic to linear at the noisiest timesteps, as in sd-scripts


def l2(prediction: Tensor, target: Tensor, c: Tensor) -> Tensor:
    return (prediction - target) ** 2


def l1(prediction: Tensor, target: Tensor, c: Tensor) -> Tensor:
    return (prediction - target).abs()


def huber(prediction: Tensor, target: Tensor, c: Tensor) -> Tensor:
    """Pseudo-Huber: quadratic near 0 and linear far out, so that outliers pull less."""
    return 2 * c * (((prediction - target) ** 2 + c**2).sqrt() - c)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"l2": l2, "l1": l1, "huber": huber}


def elementwise_loss(loss_type: str, prediction: Tensor, target: Tensor, snr: Tensor) -> Tensor:
    """Return the loss of every element, shaped as `prediction`; `snr` is (B,) in float64."""
    c = huber_threshold(snr).to(prediction.dtype).to(prediction.device).view(-1, *[1] * (prediction.ndim - 1))
    return LOSSES[loss_type](prediction, target, c)


def huber_threshold(snr: Tensor) -> Tensor:
    """Huber's c at an SNR: near 1 on clean latents, HUBER_C on pure noise (https://arxiv.org/abs/2403.16728, "snr" schedule)."""
    sigma = snr**-0.5
    return (1 - HUBER_C) / (1 + sigma) ** 2 + HUBER_C


def masked_mean(loss: Tensor, mask: Tensor | None, normalize: bool = False) -> Tensor:
    """Average each picture's loss (B, C, h, w) to (B,); `mask` is (B, 1, h, w) in 0..1, 0 where nothing is learned.

    As in sd-scripts the mean goes over all of the picture, so that the more is masked the less it counts; `normalize` makes the
    unmasked part count as a whole picture.
    """
    if mask is None:
        return loss.mean(dim=(1, 2, 3))
    mean = (loss * mask).mean(dim=(1, 2, 3))
    return mean / mask.mean(dim=(1, 2, 3)).clamp(min=1e-3) if normalize else mean


def min_snr_weight(snr: Tensor, gamma: float, shift: int = 0) -> Tensor:
    """Weigh timesteps by min(SNR, gamma) / (SNR + shift), shaped as `snr` (https://arxiv.org/abs/2303.09556).

    `shift` is 0 where noise is predicted and 1 where velocity is; a gamma of 0 switches the weights off.
    """
    return snr.clamp(max=gamma) / (snr + shift) if gamma else snr.new_ones(snr.shape)
