"""The whole step against a plain float64 reference: the loss and every LoRA gradient, from the formulas and the base alone.

The reference shares no code with the trainer: it merges each update into a copy of the base's weights, runs diffusers' and
transformers' own networks, and works the loss out sample by sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.train.adapters.bases import LoRANetwork
from train.config import TrainConfig
from train.families import load_model
from train.families.sd import Model
from train.noise import NoiseSchedule, with_zero_terminal_snr
from train.step import training_step

RANK, ALPHA, SEED, SIDE = 2, 3.0, 11, 8
CAPTIONS = {
    75: ["tok, smile, red hair", "cls", ""],
    150: ["tok, " + "very long words about a hat, " * 14, "cls, day", ""],
    225: ["tok, " + "very long words about a hat, " * 25, "cls, " + "night, " * 50, "short"],
}


@dataclass
class Sample:
    """A batch as the trainer takes it."""

    latent_mean: Tensor
    latent_std: Tensor
    input_ids: Tensor
    weight: Tensor
    mask: Tensor | None = None
    sizes: Tensor | None = None
    captions: list[str] = field(default_factory=list)
    text: None = None
    token_weights: None = None


@dataclass(frozen=True)
class Case:
    """Settings of one comparison; all else is plain."""

    prediction_type: str = "epsilon"
    tokens: int = 75
    clip_skip: int = 1
    objective: dict[str, Any] = field(default_factory=dict)
    masked: bool = False
    prior_loss_weight: float = 1.0


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Model:
    return load_model(str(tiny_base), torch.float64)


def batch(model: Model, case: Case, dtype: torch.dtype) -> Sample:
    draw = torch.Generator().manual_seed(3)
    mean, std = torch.randn(3, 4, SIDE, SIDE, generator=draw), torch.rand(3, 4, SIDE, SIDE, generator=draw)
    mask = torch.rand(3, 1, SIDE, SIDE, generator=draw).round(decimals=1)
    mask[0, :, :3] = 0
    weight = torch.tensor([1.0, case.prior_loss_weight, 1.0])
    ids = model.tokenize(CAPTIONS[case.tokens], case.tokens)
    return Sample(mean.to(dtype), std.to(dtype), ids, weight, mask.to(dtype) if case.masked else None)


def network(model: Model, dtype: torch.dtype) -> LoRANetwork:
    draw = torch.Generator().manual_seed(5)
    net = LoRANetwork(model.targets(), RANK, ALPHA, draw).to(dtype)
    with torch.no_grad():
        for layer in net.layers.values():  # an up half of zeros would leave the down half without gradient
            layer.up.copy_(0.2 * torch.randn(layer.up.shape, generator=draw))
    return net


def ours(model: Model, net: LoRANetwork, case: Case, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
    setting = case.objective.get("zero_terminal_snr")
    schedule = NoiseSchedule.from_config(with_zero_terminal_snr(model.scheduler_config, setting), case.prediction_type)
    config = TrainConfig()
    config = replace(config, model=replace(config.model, clip_skip=case.clip_skip), objective=replace(config.objective, **case.objective))
    loss = training_step(batch(model, case, dtype), model, schedule, config, torch.Generator().manual_seed(SEED))
    loss.backward()
    found = {}
    for name, layer in net.layers.items():
        found |= {f"{name}.down": layer.down.grad, f"{name}.up": layer.up.grad}
    return loss.detach(), found


# ---- the reference ----


def snr_table(zero_terminal: bool) -> list[float]:
    """abar of Stable Diffusion, in Python's own numbers."""
    first, last, found, product = math.sqrt(0.00085), math.sqrt(0.012), [], 1.0
    for i in range(1000):
        product *= 1 - (first + (last - first) * i / 999) ** 2
        found.append(product)
    if zero_terminal:
        roots = [math.sqrt(abar) for abar in found]
        found = [((root - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2 for root in roots]
    return found


@dataclass(frozen=True)
class Libraries:
    """The base's parts as diffusers and transformers load them."""

    text_encoder: Any
    unet: Any


@pytest.fixture(scope="module")
def libraries(tiny_base: Path) -> Libraries:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    encoder = CLIPTextModel.from_pretrained(tiny_base / "text_encoder").double().requires_grad_(False)
    return Libraries(encoder.eval(), UNet2DConditionModel.from_pretrained(tiny_base / "unet").double().requires_grad_(False).eval())


def merged(module: Any, halves: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """The module's weights with alpha / rank * up @ down added to those that have an update."""
    weights = dict(module.named_parameters())
    for path, child in module.named_modules():
        if name := names.get(path.removeprefix("text_model.")):
            down, up = halves[f"{name}.down"], halves[f"{name}.up"]
            update = ALPHA / RANK * up.flatten(1) @ down.flatten(1)
            weights[f"{path}.weight"] = child.weight.detach() + update.view(child.weight.shape)
    return weights


def encode(encoder: Any, weights: dict[str, Tensor], ids: Tensor, clip_skip: int) -> Tensor:
    """Each chunk of 77 tokens apart, the layer counted from the last, the final norm; of the chunks' marks the outer ones stay."""
    states = []
    norm = next(child for path, child in encoder.named_modules() if path.endswith("final_layer_norm"))
    for chunk in ids.unbind(0):
        output = torch.func.functional_call(encoder, weights, (), {"input_ids": chunk[None], "output_hidden_states": True})
        states.append(norm(output.hidden_states[-clip_skip])[0])
    inner = [state[1:76] for state in states]
    return torch.cat([states[0][:1], *inner, states[-1][76:]])


def loss_of_element(error: Tensor, case: Case, snr: float, t: int) -> Tensor:
    kind, c = case.objective.get("loss_type", "l2"), case.objective.get("huber_c", 0.1)
    sigma = snr**-0.5 if snr else math.inf
    c = {"snr": (1 - c) / (1 + sigma) ** 2 + c, "exponential": math.exp(t / 1000 * math.log(c)), "constant": c}[
        case.objective.get("huber_schedule", "snr")
    ]
    root = torch.sqrt(error**2 + c**2)
    return {"l2": error**2, "l1": error.abs(), "huber": 2 * c * (root - c), "smooth_l1": 2 * (root - c)}[kind]


def weight_of_timestep(case: Case, snr: float) -> float:
    velocity, gamma = case.prediction_type == "v_prediction", case.objective.get("min_snr_gamma")
    if gamma:
        return min(snr, gamma) / (snr + 1) if velocity else min(snr, gamma) / snr
    if case.objective.get("debiased_estimation_loss"):
        return 1 / (min(snr, 1000) + 1) if velocity else 1 / math.sqrt(min(snr, 1000))
    return 1.0


def drawn(data: Sample, case: Case) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Latents, noise, added noise and timesteps, by the same draws as the trainer's."""
    draw, shape = torch.Generator().manual_seed(SEED), data.latent_mean.shape
    latents = data.latent_mean.double() + data.latent_std.double() * torch.randn(shape, generator=draw).double()
    noise = torch.randn(shape, generator=draw).double()
    if offset := case.objective.get("noise_offset"):
        noise = noise + offset * torch.randn(*shape[:2], 1, 1, generator=draw).double()
    low, high = case.objective.get("min_timestep", 0), case.objective.get("max_timestep", 1000)
    timesteps = torch.randint(low, high, (3,), generator=draw).tolist()
    gamma = case.objective.get("ip_noise_gamma", 0.0)
    added = noise + gamma * torch.randn(shape, generator=draw).double() if gamma else noise
    return latents, noise, added, timesteps


def reference(model: Model, base: Libraries, net: LoRANetwork, case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    halves: dict[str, Tensor] = {}
    for name, layer in net.layers.items():
        halves |= {f"{name}.down": layer.down.detach().double().requires_grad_(), f"{name}.up": layer.up.detach().double().requires_grad_()}
    modules = {id(target.module): target.name for target in model.targets()}
    names = [
        {path.removeprefix("text_model."): modules[id(child)] for path, child in part.named_modules() if id(child) in modules}
        for part in (model.text_encoders[0], model.unet)
    ]
    text, unet = merged(base.text_encoder, halves, names[0]), merged(base.unet, halves, names[1])
    data = batch(model, case, torch.float64)
    latents, noise, added, timesteps = drawn(data, case)
    table, losses = snr_table(bool(case.objective.get("zero_terminal_snr"))), []
    for i, t in enumerate(timesteps):
        signal, sigma = math.sqrt(table[t]), math.sqrt(1 - table[t])
        states = encode(base.text_encoder, text, data.input_ids[i], case.clip_skip)
        noisy = signal * latents[i] + sigma * added[i]
        prediction = torch.func.functional_call(base.unet, unet, (noisy[None], t), {"encoder_hidden_states": states[None]}).sample[0]
        target = noise[i] if case.prediction_type == "epsilon" else signal * noise[i] - sigma * latents[i]
        snr = table[t] / (1 - table[t])
        loss = loss_of_element(prediction - target, case, snr, t)
        if data.mask is not None:
            area = data.mask[i].mean() if case.objective.get("normalize_masked_area_loss") else 1.0
            loss = loss * data.mask[i] / area
        losses.append(loss.mean() * data.weight[i].double() * weight_of_timestep(case, snr))
    total = sum(losses, torch.zeros((), dtype=torch.float64)) / 3
    grads = torch.autograd.grad(total, list(halves.values()), allow_unused=True)
    return total.detach(), dict(zip(halves, grads, strict=True))


# ---- the comparison ----

MIN_SNR, DEBIASED, ZERO = {"min_snr_gamma": 5.0}, {"debiased_estimation_loss": True}, {"zero_terminal_snr": True}
LAST = {"min_timestep": 999}  # all samples at pure noise, where a wrong SNR would divide by nothing
CASES = {
    **{f"{kind} {name}": Case(kind, objective=objective)
       for kind in ("epsilon", "v_prediction")
       for name, objective in (("plain", {}), ("min-snr", MIN_SNR), ("debiased", DEBIASED))},
    **{f"{kind} masked": Case(kind, objective=MIN_SNR, masked=True, prior_loss_weight=0.3) for kind in ("epsilon", "v_prediction")},
    "masked by area": Case(objective={"normalize_masked_area_loss": True}, masked=True),
    "prior weight": Case(prior_loss_weight=0.5),
    "zero snr": Case("v_prediction", objective=ZERO),
    "zero snr min-snr": Case("v_prediction", objective={**ZERO, **MIN_SNR}, prior_loss_weight=0.5),
    "zero snr debiased last": Case("v_prediction", objective={**ZERO, **DEBIASED, **LAST}),
    **{f"{tokens} tokens skip {skip}": Case(tokens=tokens, clip_skip=skip) for tokens in CAPTIONS for skip in (1, 2)},
    **{f"{kind} by {by}": Case(objective={"loss_type": kind, "huber_schedule": by, "huber_c": 0.2})
       for kind in ("huber", "smooth_l1") for by in ("snr", "exponential", "constant")},
    "l1": Case(objective={"loss_type": "l1"}),
    "huber zero snr last": Case("v_prediction", objective={"loss_type": "huber", **ZERO, **LAST}),
    "offset and perturbed": Case(objective={"noise_offset": 0.1, "ip_noise_gamma": 0.1, "min_timestep": 100, "max_timestep": 400}),
    "all at once": Case(
        "v_prediction", 225, 2, {**ZERO, **MIN_SNR, "loss_type": "huber", "noise_offset": 0.1, "ip_noise_gamma": 0.05}, True, 0.4
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_loss_and_gradients_equal_the_reference(model: Model, libraries: Libraries, case: Case) -> None:
    net = network(model, torch.float64)
    try:
        loss, grads = ours(model, net, case, torch.float64)
    finally:
        net.remove()
    wanted_loss, wanted = reference(model, libraries, net, case)
    assert loss.item() == pytest.approx(wanted_loss.item(), rel=1e-6)
    assert grads.keys() == wanted.keys()
    largest = max(grad.abs().max().item() for grad in wanted.values() if grad is not None)
    assert largest > 1e-4
    for name, grad in wanted.items():
        found = grads[name]
        if grad is None:  # clip skip leaves the last text layers out
            assert found is None or not found.any()
            continue
        assert (found - grad).abs().max() <= 1e-6 * max(grad.abs().max().item(), 1e-6 * largest), name
    assert sum(grad is None or not grad.any() for grad in wanted.values()) == 12 * (case.clip_skip - 1), "all others have a gradient"
