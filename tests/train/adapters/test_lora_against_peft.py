"""The same base, start, noise and optimizer through peft's LoRA: every step's loss and the final weights agree."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from train.adapters.build import all_targets, fresh_network
from train.config import NetworkConfig, TrainConfig
from train.families import load_model
from train.noise import NoiseSchedule
from train.step import training_step

DIM, ALPHA, STEPS = 3, 1.5, 4


def learn(model: Any, parameters: list[torch.nn.Parameter]) -> list[float]:
    draw, losses = torch.Generator().manual_seed(5), []
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    schedule = NoiseSchedule.from_config(model.scheduler_config, model.prediction_type)
    for _ in range(STEPS):
        mean = torch.randn(2, 4, 16, 16, generator=draw)
        batch = SimpleNamespace(
            latent_mean=mean,
            latent_std=torch.full_like(mean, 0.1),
            input_ids=model.tokenize(["tok, smile", "a hat"], 75),
            weight=torch.ones(2),
            mask=None,
            sizes=None,
            text=None,
            token_weights=None,
        )
        loss = training_step(batch, model, schedule, TrainConfig(), draw)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("algo", ["lora", "dora"])
@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_every_step_agrees(tiny_base: Path, part: str, algo: str) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    ours = load_model(str(tiny_base))
    targets = [target for target in all_targets(ours) if target.part == part]  # convolutions as well
    config = NetworkConfig(network_algo=algo, network_dim=DIM, network_alpha=ALPHA, conv_dim=DIM, conv_alpha=ALPHA)
    network = fresh_network(config, targets, torch.Generator().manual_seed(1))
    start = network.state()

    theirs = load_model(str(tiny_base))
    root = theirs.unet if part == "unet" else theirs.text_encoders[0]
    paths = {id(module): path for path, module in root.named_modules()}
    names = {paths[id(target.module)]: target.name for target in all_targets(theirs) if target.part == part}
    inject_adapter_in_model(LoraConfig(r=DIM, lora_alpha=ALPHA, target_modules=list(names), use_dora=algo == "dora"), root)
    pairs = {name: (m.lora_A["default"].weight, m.lora_B["default"].weight) for name, m in ((n, root.get_submodule(p)) for p, n in names.items())}
    with torch.no_grad():
        for name, (down, up) in pairs.items():
            down.copy_(start[f"{name}.lora_down.weight"])
            up.zero_()

    assert learn(ours, list(network.parameters())) == pytest.approx(learn(theirs, [p for p in root.parameters() if p.requires_grad]), rel=1e-5)
    state = network.state()
    for name, (down, up) in pairs.items():
        assert torch.allclose(state[f"{name}.lora_down.weight"], down, atol=1e-4)
        assert torch.allclose(state[f"{name}.lora_up.weight"], up, atol=1e-4)
