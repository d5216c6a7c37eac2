"""The forward process against plain numbers and against diffusers."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.training_utils import compute_snr

from prep.options import UserError
from train.config import ObjectiveConfig
from train.noise import NoiseSchedule, perturbed, pyramid_noise, sample_latents, sample_noise, with_zero_terminal_snr

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(latents: torch.Tensor, seed: int = 0, **settings: object) -> torch.Tensor:
    return sample_noise(latents, ObjectiveConfig(**settings), generator(seed))


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


NOISES = {
    "plain": {},
    "offset": {"noise_offset": 0.1},
    "random offset": {"noise_offset": 0.1, "noise_offset_random_strength": True},
    "adaptive offset": {"noise_offset": 0.1, "adaptive_noise_scale": 0.5},
    "pyramid": {"multires_noise_iterations": 6},
}


@pytest.mark.parametrize("settings", NOISES.values(), ids=NOISES)
def test_noise_comes_from_the_generator_alone(settings: dict) -> None:
    latents = torch.randn(3, 4, 8, 8, generator=generator(1))
    torch.manual_seed(1)
    first = noise(latents, 7, **settings)
    torch.manual_seed(2)
    assert torch.equal(first, noise(latents, 7, **settings))
    assert not torch.equal(first, noise(latents, 8, **settings))
    assert first.shape == latents.shape and first.isfinite().all()


def test_noise_offset_shifts_channels_and_off_is_plain() -> None:
    latents = torch.zeros(2, 4, 64, 64)
    plain, shifted = noise(latents), noise(latents, noise_offset=3.0)
    difference = shifted - plain
    assert torch.allclose(difference, difference[..., :1, :1].expand_as(difference), atol=1e-5)
    assert difference[..., 0, 0].std() > 1
    assert torch.equal(plain, torch.randn(2, 4, 64, 64, generator=generator()))


def test_a_random_offset_is_the_samples_own_and_never_over_the_set_one() -> None:
    latents = torch.zeros(400, 4, 1, 1)
    whole = noise(latents, noise_offset=2.0) - noise(latents)  # the offset alone, for the plain noise is drawn first
    drawn = noise(latents, noise_offset=2.0, noise_offset_random_strength=True) - noise(latents)
    assert 0.45 < drawn.std() / whole.std() / 3**-0.5 < 1.55  # a uniform strength has mean square 1/3
    assert drawn.std(dim=1).unique().numel() > 300


def test_an_adaptive_offset_grows_with_a_channels_mean_and_stops_at_zero() -> None:
    latents = torch.zeros(1, 2, 8, 8)
    latents[0, 1] = -3.0
    plain, fixed = noise(latents), noise(latents, noise_offset=0.1) - noise(latents)
    grown = noise(latents, noise_offset=0.1, adaptive_noise_scale=0.5) - plain
    assert torch.allclose(grown[0, 0], fixed[0, 0], atol=1e-6)
    assert torch.allclose(grown[0, 1], fixed[0, 1] * 16, rtol=1e-4)  # (0.1 + 0.5 * 3) / 0.1
    none = noise(latents, noise_offset=0.1, adaptive_noise_scale=-1.0) - plain
    assert torch.allclose(none[0, 1], torch.zeros(8, 8), atol=1e-6)


def test_pyramid_noise_has_unit_deviation_and_more_of_the_coarse() -> None:
    plain = noise(torch.zeros(8, 4, 64, 64))
    pyramid = noise(torch.zeros(8, 4, 64, 64), multires_noise_iterations=8, multires_noise_discount=0.8)
    assert pyramid.std().item() == pytest.approx(1.0, abs=1e-4)
    coarse = [torch.nn.functional.avg_pool2d(found, 16).std().item() for found in (plain, pyramid)]
    assert coarse[1] > 3 * coarse[0]


def test_pyramid_noise_equals_its_formula() -> None:
    first = torch.randn(2, 4, 12, 8, generator=generator(), dtype=torch.float64)
    found = pyramid_noise(first, 5, 0.3, generator(4))
    draw, total = generator(4), first.clone()
    for level in range(5):
        r = 2 + 2 * torch.rand((), generator=draw, dtype=torch.float64).item()
        size = (max(1, int(12 / r**level)), max(1, int(8 / r**level)))
        total += 0.3**level * torch.nn.Upsample((12, 8), mode="bilinear")(torch.randn(2, 4, *size, generator=draw).double())
        if 1 in size:
            break
    assert torch.equal(found, total / total.std())


def test_perturbed_noise_is_stronger_and_off_is_the_same() -> None:
    plain = torch.randn(4, 4, 64, 64, generator=generator())
    assert perturbed(plain, ObjectiveConfig(), generator(1)) is plain
    found = perturbed(plain, ObjectiveConfig(ip_noise_gamma=0.5), generator(1))
    assert (found - plain).std().item() == pytest.approx(0.5, rel=0.02)
    drawn = perturbed(plain, ObjectiveConfig(ip_noise_gamma=0.5, ip_noise_gamma_random_strength=True), generator(1)) - plain
    assert (drawn.std(dim=(1, 2, 3)) < 0.51).all() and drawn.std(dim=(1, 2, 3)).unique().numel() == 4


def test_latents_are_drawn_from_the_posterior() -> None:
    mean, std = torch.full((1, 4, 64, 64), 2.0), torch.full((1, 4, 64, 64), 0.5)
    drawn = sample_latents(mean, std, generator())
    assert drawn.mean().item() == pytest.approx(2.0, abs=0.02)
    assert drawn.std().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("base", "setting", "found"), [(True, None, True), (True, False, False), (False, True, True), (None, None, None)])
def test_the_setting_overrules_what_the_base_says(base: bool | None, setting: bool | None, found: bool | None) -> None:
    config = {**SD} if base is None else {**SD, "rescale_betas_zero_snr": base}
    changed = with_zero_terminal_snr(config, setting)
    assert changed.get("rescale_betas_zero_snr") == found
    assert (NoiseSchedule.from_config(changed, "v_prediction").alphas_cumprod[-1] == 0) == bool(found)
    assert config.get("rescale_betas_zero_snr") == base, "the base's own stays as it is"


@pytest.fixture
def float64_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let diffusers, whose tables are float32, compute in float64."""
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.mark.usefixtures("float64_diffusers")
@pytest.mark.parametrize("kind", ["scaled_linear", "linear"])
def test_snr_equals_diffusers(kind: str) -> None:
    timesteps, theirs = torch.arange(1000), DDPMScheduler(**{**SD, "beta_schedule": kind})
    assert theirs.alphas_cumprod.dtype == torch.float64
    difference = schedule(beta_schedule=kind).snr(timesteps) / compute_snr(theirs, timesteps) - 1
    assert difference.abs().max() < 1e-9


@pytest.mark.usefixtures("float64_diffusers")
def test_snr_with_zero_terminal_snr_equals_diffusers() -> None:
    timesteps, theirs = torch.arange(1000), DDPMScheduler(**SD, rescale_betas_zero_snr=True)
    ours = schedule("v_prediction", rescale_betas_zero_snr=True).snr(timesteps)
    assert ((ours - compute_snr(theirs, timesteps)).abs() <= 1e-9 * (1 + ours)).all()
