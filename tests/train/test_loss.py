"""Losses and timestep weights against plain float64 arithmetic."""

import math

import pytest
import torch

from train.config import ObjectiveConfig
from train.loss import HUBER_SCHEDULES, LOSSES, debiased_weight, elementwise_loss, masked_mean, min_snr_weight, timestep_weight
from train.noise import PREDICTIONS

SNR = torch.tensor([1175.47, 8.454, 3.06, 0.3818, 0.00468, 0.0], dtype=torch.float64)
SHARE = torch.tensor([0.0, 0.1, 0.2, 0.5, 0.998, 0.999], dtype=torch.float64)


def plain_c(schedule: str, c: float, snr: float, share: float) -> float:
    sigma = 1 / math.sqrt(snr) if snr else math.inf
    return {"constant": c, "exponential": c**share, "snr": (1 - c) / (1 + sigma) ** 2 + c}[schedule]


def plain(name: str, error: float, c: float) -> float:
    root = math.sqrt(error * error + c * c)
    return {"l2": error**2, "l1": abs(error), "huber": 2 * c * (root - c), "smooth_l1": 2 * (root - c)}[name]


@pytest.mark.parametrize("schedule", HUBER_SCHEDULES)
@pytest.mark.parametrize("name", LOSSES)
def test_elements_equal_plain_arithmetic(name: str, schedule: str) -> None:
    prediction, target = torch.randn(2, 6, 4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = elementwise_loss(ObjectiveConfig(loss_type=name, huber_schedule=schedule, huber_c=0.2), prediction, target, SNR, SHARE)
    assert found.shape == prediction.shape
    for i in range(6):
        c = plain_c(schedule, 0.2, SNR[i].item(), SHARE[i].item())
        wanted = [plain(name, error, c) for error in (prediction[i] - target[i]).flatten().tolist()]
        assert found[i].flatten().tolist() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("schedule", HUBER_SCHEDULES)
def test_huber_turns_linear_early_on_noise_and_never_beyond_its_bounds(schedule: str) -> None:
    snr, share = torch.tensor([1e12, 1.0, 1e-12], dtype=torch.float64), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    c = HUBER_SCHEDULES[schedule](0.1, snr, share)
    assert c[-1].item() == pytest.approx(0.1, abs=1e-5)
    assert c.sort(descending=True).values.tolist() == c.tolist()
    assert c[0].item() == pytest.approx(0.1 if schedule == "constant" else 1.0, abs=1e-5)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_weights_equal_their_formulas(kind: str) -> None:
    row, velocity, snr = PREDICTIONS[kind], kind == "v_prediction", SNR if kind == "v_prediction" else SNR[:-1]
    found = timestep_weight(ObjectiveConfig(min_snr_gamma=5.0), snr, row.snr_shift, row.debiased_power)
    assert found.tolist() == pytest.approx([min(s, 5.0) / (s + velocity) for s in snr.tolist()], rel=1e-12)
    found = timestep_weight(ObjectiveConfig(debiased_estimation_loss=True), snr, row.snr_shift, row.debiased_power)
    wanted = [1 / (min(s, 1000.0) + 1) if velocity else 1 / math.sqrt(min(s, 1000.0)) for s in snr.tolist()]
    assert found.tolist() == pytest.approx(wanted, rel=1e-12)
    assert timestep_weight(ObjectiveConfig(), snr, row.snr_shift, row.debiased_power).tolist() == [1.0] * len(snr)


def test_velocity_weights_are_noise_weights_seen_from_the_other_side() -> None:
    # An error e in the velocity is an error e / sqrt(1 - abar) in the noise: weight_v = weight_eps * SNR / (SNR + 1) at every SNR.
    snr = SNR[:-1]
    assert torch.allclose(min_snr_weight(snr, 5.0, 1), min_snr_weight(snr, 5.0, 0) * snr / (snr + 1), rtol=1e-12)
    assert debiased_weight(snr, 1, 1.0)[-1].item() == pytest.approx(1.0, abs=5e-3), "pure noise counts whole where velocity is predicted"


def test_a_picture_that_is_masked_whole_has_no_loss_and_is_no_division_by_nothing() -> None:
    loss = torch.rand(2, 4, 3, 3) + 1
    mask = torch.stack([torch.zeros(1, 3, 3), torch.full((1, 3, 3), 0.5)])
    plain, normalized = masked_mean(loss, mask), masked_mean(loss, mask, normalize=True)
    assert plain[0] == normalized[0] == 0
    assert plain[1].item() == pytest.approx(loss[1].mean().item() / 2) and normalized[1].item() == pytest.approx(loss[1].mean().item())
