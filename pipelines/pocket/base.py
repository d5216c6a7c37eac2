"""The pocket base model: text encoder and UNet in Stable Diffusion's shape, trained on the world without the marks."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from pipelines.pocket.drawings import Drawings, caption
from prep.captions import to_words
from prep.clip_bpe import chunks

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

WIDTH = 96  # of the text encoder's states
BATCH = 32
AVERAGE_EVERY = 4  # steps
SCHEDULE = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
    "set_alpha_to_one": False, "steps_offset": 1, "prediction_type": "epsilon",
}  # fmt: skip


def build_text_encoder() -> CLIPTextModel:
    """Make the untrained text encoder: the real vocabulary, 3 layers of 96."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(
        vocab_size=49408, hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=77,
        hidden_act="quick_gelu", projection_dim=WIDTH, bos_token_id=49406, eos_token_id=49407, pad_token_id=1,
    ))  # fmt: skip


def build_unet() -> UNet2DConditionModel:
    """Make the untrained UNet: 16 x 16 latents, cross attention at 8 x 8 and 4 x 4, where it costs a third."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=(64, 128, 192), layers_per_block=1, cross_attention_dim=WIDTH,
        attention_head_dim=4, norm_num_groups=16, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def token_ids(captions: list[str]) -> torch.Tensor:
    """(B, 77) ids, cut at 75 tokens."""
    return torch.tensor([chunks(text, 75)[0] for text in captions])


def pretrain_text(text: CLIPTextModel, drawings: Drawings, minutes: float) -> dict[str, torch.Tensor]:
    """Teach the text encoder to name what a caption says from the mean of its states, as CLIP learns from pairs: colours bind to nouns."""
    from pipelines.pocket import world

    torch.manual_seed(1)
    rng = random.Random(1)
    index = {to_words(tag): i for i, tag in enumerate(world.vocabulary())}
    readout = nn.Linear(WIDTH, len(index))
    parameters = [*text.parameters(), *readout.parameters()]
    optimizer = torch.optim.AdamW(parameters, 2e-3, weight_decay=1e-3, fused=True)
    start, step = time.monotonic(), 0
    while (done := (time.monotonic() - start) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (step + 1) / 50) * (0.05 + 0.95 * (1 - done))
        captions = [caption(rng.choice(drawings.tags), rng) for _ in range(32)]
        target = torch.zeros(len(captions), len(index))
        for row, words in enumerate(captions):
            target[row, [index[tag] for tag in words.split(", ") if tag in index]] = 1
        states = text(input_ids=token_ids(captions)).last_hidden_state
        loss = F.binary_cross_entropy_with_logits(readout(states.mean(1)), target)
        descend(optimizer, loss, parameters)
        step += 1
        if step % 50 == 0:
            print(f"text step {step} loss {loss.item():.4f} {done:.0%}", flush=True)
    return text.state_dict()


def descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor, parameters: list[nn.Parameter]) -> None:
    """Take one step with clipped gradients."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def train(latents: torch.Tensor, drawings: Drawings, text: CLIPTextModel, minutes: float, checkpoint: Path) -> None:
    """Train UNet and text encoder together on scaled latents (N, 4, 16, 16) for a time; `checkpoint` holds their running averages."""
    torch.manual_seed(2)
    unet = build_unet()
    both = nn.ModuleList([unet, text])
    parameters = list(both.parameters())
    optimizer = torch.optim.AdamW(parameters, 8e-4, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    average = copy.deepcopy(both).eval().requires_grad_(False)
    start = saved = time.monotonic()
    for step, (clean, ids) in enumerate(batches(latents, drawings)):
        done = (time.monotonic() - start) / (60 * minutes)
        optimizer.param_groups[0]["lr"] = 8e-4 * min(1, (step + 1) / 100) * max(0.03, 1 - done)
        loss = denoising_loss(unet, text, clean, ids)
        descend(optimizer, loss, parameters)
        if step % AVERAGE_EVERY == 0:
            update_average(average, both, min(0.99, (step + 1) / (step + 40)))
        if step % 50 == 0:
            print(f"unet step {step} loss {loss.item():.4f} {done:.0%}", flush=True)
        if time.monotonic() - saved > 240 or done >= 1:
            saved = time.monotonic()
            torch.save(average.state_dict(), checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
        if done >= 1:
            break


def batches(latents: torch.Tensor, drawings: Drawings) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield clean latents and token ids for ever, epoch after epoch."""
    rng = random.Random(2)
    while True:
        order = torch.randperm(len(latents)).tolist()
        for i in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[i : i + BATCH]
            yield latents[rows], token_ids([caption(drawings.tags[row], rng) for row in rows])


def denoising_loss(unet: UNet2DConditionModel, text: CLIPTextModel, clean: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Epsilon loss with min-SNR weights, gamma 5 (Hang et al., arXiv 2303.09556)."""
    abar = _alphas_cumprod()
    noise, timesteps = torch.randn_like(clean), torch.randint(0, 1000, (len(clean),))
    a = abar[timesteps].view(-1, 1, 1, 1)
    noisy = a.sqrt() * clean + (1 - a).sqrt() * noise
    with torch.autocast("cpu", torch.bfloat16):
        states = text(input_ids=ids).last_hidden_state
        made = unet(noisy, timesteps, states).sample.float()
    snr = abar[timesteps] / (1 - abar[timesteps])
    return ((made - noise).square().mean((1, 2, 3)) * snr.clamp(max=5) / snr).mean()


def _alphas_cumprod() -> torch.Tensor:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the running average a little towards the model."""
    ours, theirs = list(average.parameters()), [p.detach() for p in model.parameters()]
    torch._foreach_lerp_(ours, theirs, 1 - decay)
