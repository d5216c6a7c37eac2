"""The training step against the formulas, written out in plain float64."""

from dataclasses import dataclass, replace

import pytest
import torch

from train.config import ObjectiveConfig, TrainConfig
from train.noise import NoiseSchedule
from train.step import training_step


@dataclass
class FakeBatch:
    latent_mean: torch.Tensor
    latent_std: torch.Tensor
    input_ids: torch.Tensor
    weight: torch.Tensor
    mask: torch.Tensor | None = None
    sizes: torch.Tensor | None = None
    text: torch.Tensor | None = None
    token_weights: torch.Tensor | None = None


class FakeModel:
    """Predicts a tenth of what it sees, plus the caption's first token over 1000."""

    def __init__(self) -> None:
        self.seen: dict[str, torch.Tensor] = {}

    def conditioning(self, input_ids: torch.Tensor, clip_skip: int, sizes: torch.Tensor | None, weights: torch.Tensor | None) -> torch.Tensor:
        assert sizes is None and weights is None
        return input_ids[:, 0, 0].float() / 1000 * clip_skip

    def denoise(self, noisy_latents: torch.Tensor, timesteps: torch.Tensor, conditioning: torch.Tensor) -> torch.Tensor:
        self.seen = {"noisy_latents": noisy_latents, "timesteps": timesteps}
        return 0.1 * noisy_latents + conditioning.view(-1, 1, 1, 1)


def batch() -> FakeBatch:
    draw = torch.Generator().manual_seed(1)
    return FakeBatch(
        torch.randn(3, 4, 6, 5, generator=draw),
        torch.rand(3, 4, 6, 5, generator=draw),
        torch.tensor([[[10]], [[20]], [[30]]]),
        torch.tensor([1.0, 0.5, 1.0]),
    )


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("gamma", [0.0, 5.0])
@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_equals_the_formulas(prediction_type: str, gamma: float, offset: float) -> None:
    data, model, schedule = batch(), FakeModel(), NoiseSchedule.from_config({}, prediction_type)
    config = replace(TrainConfig(), objective=ObjectiveConfig(min_snr_gamma=gamma, noise_offset=offset))
    found = training_step(data, model, schedule, config, torch.Generator().manual_seed(9))

    draw = torch.Generator().manual_seed(9)
    latents = (data.latent_mean + data.latent_std * torch.randn(3, 4, 6, 5, generator=draw)).double()
    noise = torch.randn(3, 4, 6, 5, generator=draw).double()
    if offset:
        noise = noise + offset * torch.randn(3, 4, 1, 1, generator=draw).double()
    timesteps = torch.randint(0, 1000, (3,), generator=draw)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    losses = []
    for i, t in enumerate(timesteps.tolist()):
        abar = (1 - betas[: t + 1]).prod().item()
        noisy = abar**0.5 * latents[i] + (1 - abar) ** 0.5 * noise[i]
        target = noise[i] if prediction_type == "epsilon" else abar**0.5 * noise[i] - (1 - abar) ** 0.5 * latents[i]
        snr = abar / (1 - abar)
        weight = min(snr, gamma) / (snr + (prediction_type == "v_prediction")) if gamma else 1.0
        error = (0.1 * noisy + 0.01 * (i + 1) - target) ** 2
        losses.append(error.mean().item() * data.weight[i].item() * weight)
    assert torch.equal(model.seen["timesteps"], timesteps)
    assert found.item() == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_a_regularization_weight_of_zero_leaves_only_the_pictures() -> None:
    data, model, schedule = batch(), FakeModel(), NoiseSchedule.from_config({}, "epsilon")
    whole = training_step(data, model, schedule, TrainConfig(), torch.Generator().manual_seed(0)).item()
    data.weight = torch.tensor([1.0, 0.0, 0.0])
    alone = training_step(data, model, schedule, TrainConfig(), torch.Generator().manual_seed(0)).item()
    assert 0 < alone < whole


@pytest.mark.parametrize("normalize", [False, True])
def test_what_is_masked_costs_nothing(normalize: bool) -> None:
    data, model, schedule = batch(), FakeModel(), NoiseSchedule.from_config({}, "epsilon")
    config = replace(TrainConfig(), objective=ObjectiveConfig(normalize_masked_area_loss=normalize))
    half = torch.ones(3, 1, 6, 5)
    half[:, :, :3] = 0

    def loss(mean: torch.Tensor, mask: torch.Tensor | None) -> float:
        changed = replace(data, latent_mean=mean, mask=mask)
        return training_step(changed, model, schedule, config, torch.Generator().manual_seed(9)).item()

    upper = data.latent_mean + 5 * (1 - half)
    assert loss(upper, half) == pytest.approx(loss(data.latent_mean, half))
    assert loss(upper, None) != pytest.approx(loss(data.latent_mean, None))
    both = loss(data.latent_mean, half) + loss(data.latent_mean, 1 - half)
    assert both == pytest.approx(loss(data.latent_mean, None) * (2 if normalize else 1), rel=1e-5)
    assert loss(data.latent_mean, torch.ones(3, 1, 6, 5)) == pytest.approx(loss(data.latent_mean, None))
