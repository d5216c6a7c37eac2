"""The pocket tagger: a small network behind the WD v3 contract (NHWC, BGR, 0-255, 448 px in; probabilities out)."""

from __future__ import annotations

import csv
import itertools
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pipelines.pocket import world
from pipelines.pocket.drawings import SIDE, Drawings

RATINGS = ("general", "sensitive", "questionable", "explicit")


class PocketTagger(nn.Module):
    """448 px BGR picture -> probabilities of the four ratings and the world's tags."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 40, 56, 80, 80)
        pairs = enumerate(itertools.pairwise(widths))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=1 if i == 0 else 2, padding=1) for i, (a, b) in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.head = nn.Linear(80 * 16, len(RATINGS) + len(world.vocabulary()))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """x: (N, 3, 64, 64) BGR in [-1, 1] -> (N, labels)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.silu(norm(conv(x)))
        return self.head(x.flatten(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (N, 448, 448, 3) BGR 0..255 -> (N, labels) in 0..1."""
        x = F.avg_pool2d(x.permute(0, 3, 1, 2), 448 // SIDE)
        return torch.sigmoid(self.logits(x / 127.5 - 1))


def train(drawings: Drawings, reconstructed: np.ndarray, minutes: float) -> PocketTagger:
    """Train on drawings and on the first of them decoded by the autoencoder, all worn, so that generated pictures are read as well as crisp ones."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    tagger = PocketTagger().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(tagger.parameters(), 3e-3, weight_decay=1e-2)
    ratings = np.tile(np.array([1, 0, 0, 0], np.float32), (len(drawings.tags), 1))
    targets = torch.from_numpy(np.concatenate([ratings, drawings.targets()], 1))
    start, step = time.monotonic(), 0
    while (done := (time.monotonic() - start) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 50) * (0.01 + 0.99 * (1 - done))
        crisp, decoded = rng.integers(len(targets), size=32), rng.integers(len(reconstructed), size=32)
        pixels = np.concatenate([drawings.pixels[crisp], reconstructed[decoded]])
        batch = worn(torch.from_numpy(pixels[..., ::-1].copy()).permute(0, 3, 1, 2).float().div(127.5).sub(1))
        with torch.autocast("cpu", torch.bfloat16):
            logits = tagger.logits(batch.contiguous(memory_format=torch.channels_last))
        loss = F.binary_cross_entropy_with_logits(logits.float(), targets[np.concatenate([crisp, decoded])])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"tagger step {step} loss {loss.item():.4f} {done:.0%}", flush=True)
    return tagger.eval()


def worn(batch: torch.Tensor) -> torch.Tensor:
    """Shift, scale, blur, tint and add noise, each picture differently; (N, 3, 64, 64) in [-1, 1]."""
    n = len(batch)
    scale = 1 + 0.12 * (torch.rand(n) * 2 - 1)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2] = 0.12 * (torch.rand(n, 2) * 2 - 1)
    batch = F.grid_sample(batch, F.affine_grid(theta, list(batch.shape), align_corners=False), padding_mode="border", align_corners=False)
    blurred = F.avg_pool2d(F.pad(batch, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = torch.rand(n, 1, 1, 1) * (torch.rand(n, 1, 1, 1) < 0.5)
    batch = batch * (1 - share) + blurred * share
    tint, light = 0.06 * torch.randn(n, 3, 1, 1), 1 + 0.08 * torch.randn(n, 1, 1, 1)
    noise = torch.rand(n, 1, 1, 1) * 0.12 * torch.randn_like(batch)
    return (batch * light + tint + noise).clamp(-1, 1)


def export(tagger: PocketTagger, folder: Path) -> None:
    """Write model.onnx and selected_tags.csv, as the published WD taggers have them."""
    folder.mkdir(parents=True, exist_ok=True)
    batch = torch.export.Dim("batch", min=1, max=4096)
    example = (torch.rand(2, 448, 448, 3) * 255,)
    program = torch.onnx.export(tagger, example, input_names=["input"], output_names=["output"], dynamic_shapes=({0: batch},), dynamo=True)
    program.save(str(folder / "model.onnx"), external_data=False)
    with (folder / "selected_tags.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows([9999999 - i, name, 9, 1000] for i, name in enumerate(RATINGS))
        writer.writerows([1000 + i, name, 0, 1000] for i, name in enumerate(world.vocabulary()))
