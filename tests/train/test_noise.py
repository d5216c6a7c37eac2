"""The forward process against plain numbers and against diffusers."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from prep.options import UserError
from train.noise import NoiseSchedule, sample_latents, sample_noise, sample_timesteps

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def schedule(prediction_type: str = "epsilon", **more: object) -> NoiseSchedule:
    return NoiseSchedule.from_config({**SD, **more}, prediction_type)


@pytest.mark.parametrize(("timestep", "snr"), [(0, 1175.47), (100, 8.454), (200, 3.060), (500, 0.3818), (999, 0.00468)])
def test_snr_of_stable_diffusion(timestep: int, snr: float) -> None:
    assert schedule().snr(torch.tensor([timestep])).item() == pytest.approx(snr, rel=1e-3)


def test_snr_is_at_least_five_up_to_146() -> None:
    snr = schedule().snr(torch.arange(1000))
    assert snr.dtype == torch.float64
    assert (snr >= 5).nonzero().max() == 146


@pytest.mark.parametrize("kind", ["scaled_linear", "linear"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_noise_and_target_equal_diffusers(kind: str, prediction_type: str) -> None:
    ours, theirs = schedule(prediction_type, beta_schedule=kind), DDPMScheduler(**{**SD, "beta_schedule": kind})
    latents, noise = torch.randn(2, 5, 4, 8, 8, generator=generator())
    timesteps = torch.tensor([0, 1, 400, 998, 999])
    assert torch.allclose(ours.add_noise(latents, noise, timesteps), theirs.add_noise(latents, noise, timesteps), atol=1e-5)
    wanted = noise if prediction_type == "epsilon" else theirs.get_velocity(latents, noise, timesteps)
    assert torch.allclose(ours.target(latents, noise, timesteps), wanted, atol=1e-5)


def test_zero_terminal_snr_equals_diffusers_and_the_paper() -> None:
    ours = schedule("v_prediction", rescale_betas_zero_snr=True).alphas_cumprod
    assert ours[-1] == 0
    assert schedule().alphas_cumprod[500].item() == pytest.approx(0.27633, abs=1e-5)
    assert ours[500].item() == pytest.approx(0.24102, abs=1e-5)
    assert torch.allclose(ours.float(), DDIMScheduler(**SD, rescale_betas_zero_snr=True).alphas_cumprod, atol=1e-5)


def test_what_cannot_be_trained_is_said() -> None:
    with pytest.raises(UserError, match="zero terminal"):
        schedule("epsilon", rescale_betas_zero_snr=True)
    with pytest.raises(UserError, match="sample"):
        schedule("sample")
    with pytest.raises(UserError, match="beta_schedule"):
        schedule(beta_schedule="sigmoid")


def test_missing_facts_are_stable_diffusions() -> None:
    assert torch.equal(NoiseSchedule.from_config({}, "epsilon").alphas_cumprod, schedule().alphas_cumprod)


def test_samples_come_from_the_generator_alone() -> None:
    latents = torch.zeros(3, 4, 8, 8)
    torch.manual_seed(1)
    first = sample_noise(latents, 0.1, generator(7)), sample_timesteps(3, schedule(), generator(7))
    torch.manual_seed(2)
    second = sample_noise(latents, 0.1, generator(7)), sample_timesteps(3, schedule(), generator(7))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_noise_offset_shifts_channels_and_off_is_plain() -> None:
    latents = torch.zeros(2, 4, 64, 64)
    plain, shifted = sample_noise(latents, 0.0, generator()), sample_noise(latents, 3.0, generator())
    difference = shifted - plain
    assert torch.allclose(difference, difference[..., :1, :1].expand_as(difference), atol=1e-5)
    assert difference[..., 0, 0].std() > 1
    assert torch.equal(plain, torch.randn(2, 4, 64, 64, generator=generator()))


def test_latents_are_drawn_from_the_posterior() -> None:
    mean, std = torch.full((1, 4, 64, 64), 2.0), torch.full((1, 4, 64, 64), 0.5)
    drawn = sample_latents(mean, std, generator())
    assert drawn.mean().item() == pytest.approx(2.0, abs=0.02)
    assert drawn.std().item() == pytest.approx(0.5, abs=0.02)


def test_timesteps_cover_the_whole_range() -> None:
    timesteps = sample_timesteps(20000, schedule(), generator())
    assert timesteps.dtype == torch.int64
    assert (timesteps.min(), timesteps.max()) == (0, 999)
