"""Losses and timestep weights against plain float64 arithmetic."""

import math

import pytest
import torch

from train.loss import HUBER_C, LOSSES, elementwise_loss, huber_threshold, masked_mean, min_snr_weight

SNR = torch.tensor([1175.47, 8.454, 3.06, 0.3818, 0.00468], dtype=torch.float64)


def plain(name: str, p: float, t: float, snr: float) -> float:
    sigma = 1 / math.sqrt(snr)
    c = (1 - HUBER_C) / (1 + sigma) ** 2 + HUBER_C
    return {"l2": (p - t) ** 2, "l1": abs(p - t), "huber": 2 * c * (math.sqrt((p - t) ** 2 + c * c) - c)}[name]


@pytest.mark.parametrize("name", LOSSES)
def test_elements_equal_plain_arithmetic(name: str) -> None:
    prediction, target = torch.randn(2, 5, 4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = elementwise_loss(name, prediction, target, SNR)
    assert found.shape == prediction.shape
    for i in range(5):
        wanted = [plain(name, p, t, SNR[i].item()) for p, t in zip(prediction[i].flatten().tolist(), target[i].flatten().tolist(), strict=True)]
        assert found[i].flatten().tolist() == pytest.approx(wanted, rel=1e-12)


def test_huber_turns_linear_early_on_noise() -> None:
    c = huber_threshold(torch.tensor([1e12, 1.0, 1e-12], dtype=torch.float64))
    assert c.tolist() == pytest.approx([1.0, 0.9 / 4 + 0.1, 0.1], abs=1e-5)


@pytest.mark.parametrize(("shift", "below"), [(0, 0), (1, 1)])
def test_min_snr_weight(shift: int, below: int) -> None:
    weights = min_snr_weight(SNR, 5.0, shift)
    assert weights.tolist() == pytest.approx([min(snr, 5.0) / (snr + below) for snr in SNR.tolist()], rel=1e-12)


def test_gamma_zero_switches_the_weights_off() -> None:
    assert min_snr_weight(SNR, 0.0, 0).tolist() == [1.0] * 5


def test_a_picture_that_is_masked_whole_has_no_loss_and_is_no_division_by_nothing() -> None:
    loss = torch.rand(2, 4, 3, 3) + 1
    mask = torch.stack([torch.zeros(1, 3, 3), torch.full((1, 3, 3), 0.5)])
    plain, normalized = masked_mean(loss, mask), masked_mean(loss, mask, normalize=True)
    assert plain[0] == normalized[0] == 0
    assert plain[1].item() == pytest.approx(loss[1].mean().item() / 2) and normalized[1].item() == pytest.approx(loss[1].mean().item())
