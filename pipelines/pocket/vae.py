"""The pocket VAE: 64 pixels to a 16 x 16 x 4 latent and back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


def build() -> AutoencoderKL:
    """Make the untrained autoencoder, 1 M parameters."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 64, 64), layers_per_block=1, norm_num_groups=16,
        sample_size=64, mid_block_add_attention=False,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    )  # fmt: skip


def train(pixels: np.ndarray, minutes: float) -> AutoencoderKL:
    """Train on drawings (N, 64, 64, 3) uint8 for a time: L1, L2 and gradient differences, a trace of KL; sets the scaling factor."""
    torch.manual_seed(0)
    vae = build()
    vae.quant_conv.bias.data[4:] = -6.0  # else the latents start as pure noise and little is learned
    optimizer = torch.optim.AdamW(vae.parameters(), 2e-3, weight_decay=1e-4)
    start = time.monotonic()
    step, loss_mean = 0, 0.0
    while (done := (time.monotonic() - start) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (step + 1) / 50) * (0.02 + 0.98 * (1 - done))
        rng = np.random.default_rng(step)
        batch = augmented(to_tensor(pixels[rng.integers(len(pixels), size=16)]))
        if done < 0.75:  # a quarter of the picture costs a quarter of the time, and the network does not see far anyway
            x, y = rng.integers(0, 33, size=2)
            batch = batch[:, :, y : y + 32, x : x + 32].contiguous()
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(batch).latent_dist
            made = vae.decode(posterior.sample()).sample.float()
        loss = reconstruction_loss(made, batch) + 2e-6 * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step, loss_mean = step + 1, 0.98 * loss_mean + 0.02 * loss.item()
        if step % 100 == 0:
            print(f"vae step {step} loss {loss_mean:.4f} {done:.0%}", flush=True)
    vae.eval()
    vae.register_to_config(scaling_factor=round(1 / float(encode(vae, pixels[:512]).std()), 5))
    return vae


def sharpen(vae: AutoencoderKL, pixels: np.ndarray, minutes: float) -> AutoencoderKL:
    """Train the decoder alone on whole drawings for a time; the latents, and so a UNet trained on them, stay what they were."""
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    parameters = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    optimizer = torch.optim.AdamW(parameters, 1e-3, weight_decay=1e-4)
    start, step, loss_mean = time.monotonic(), 0, 0.0
    while (done := (time.monotonic() - start) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 20) * (0.02 + 0.98 * (1 - done))
        batch = to_tensor(pixels[rng.integers(len(pixels), size=8)])
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents = vae.encode(batch).latent_dist.mean
            # A UNet's latents are never exact: a little noise teaches the decoder to forgive that.
            made = vae.decode(latents + 0.1 * torch.randn_like(latents)).sample.float()
        loss = reconstruction_loss(made, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step, loss_mean = step + 1, 0.98 * loss_mean + 0.02 * loss.item()
        if step % 100 == 0:
            print(f"decoder step {step} loss {loss_mean:.4f} {done:.0%}", flush=True)
    return vae.eval()


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def augmented(batch: torch.Tensor) -> torch.Tensor:
    """Swap the colour channels of a third of the batch, so that colours of no drawing are learned too."""
    third = len(batch) // 3
    return torch.cat([batch[:third][:, torch.randperm(3)], batch[third:]])


def reconstruction_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """L1 + L2 + L1 of the differences between neighbours, which keeps lines sharp."""
    loss = F.l1_loss(made, wanted) + F.mse_loss(made, wanted)
    for axis in (2, 3):
        loss = loss + F.l1_loss(made.diff(dim=axis), wanted.diff(dim=axis))
    return loss


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: np.ndarray) -> torch.Tensor:
    """Return unscaled mean latents (N, 4, 16, 16)."""
    with torch.autocast("cpu", torch.bfloat16):
        return torch.cat([vae.encode(to_tensor(pixels[i : i + 32])).latent_dist.mean.float() for i in range(0, len(pixels), 32)])


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: np.ndarray) -> np.ndarray:
    """Send drawings through the autoencoder and back to uint8."""
    with torch.autocast("cpu", torch.bfloat16):
        made = [vae.decode(encode(vae, pixels[i : i + 32])).sample.float() for i in range(0, len(pixels), 32)]
    return torch.cat(made).add(1).mul(127.5).round().clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8).numpy()
