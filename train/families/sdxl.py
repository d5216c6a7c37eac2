"""Stable Diffusion XL: two text encoders, a UNet that is also told a picture's size and crop (arxiv.org/abs/2307.01952)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prep.clip_bpe import chunks
from train.families import sd
from train.families.base import Family
from train.families.sd import Conditioning, Model, joined, weighted


class SDXLModel(Model):
    """A frozen SDXL base; Illustrious, NoobAI, Pony and Animagine are such."""

    def tokenize(self, captions: list[str], max_token_length: int = 75) -> Tensor:
        """Turn captions into token ids (B, 2, chunks, 77): the encoders read the same tokens but pad with others."""
        return torch.tensor([[chunks(caption, max_token_length, pad) for pad in self.family.pad_ids] for caption in captions])

    def conditioning(self, input_ids: Tensor, clip_skip: int = 1, sizes: Tensor | None = None, weights: Tensor | None = None) -> Conditioning:
        """Encode token ids (B, 2, chunks, 77); `sizes` is (B, 6), by default that of a whole picture at the base's resolution.

        `weights` (B, chunks, 77) multiply the state of each token, not the caption as a whole.

        SDXL was trained on the layer before the last, without the final norm: a clip_skip of 1 is that layer, 2 the one before it.
        The caption as a whole is what the second encoder makes of its first chunk.
        """
        states, pooled = [], None
        for ids, encoder in zip(input_ids.unbind(1), self.text_encoders, strict=True):
            output = self._encoded(encoder, ids, clip_skip)
            states.append(joined(output.hidden_states[-clip_skip - 1].unflatten(0, ids.shape[:2])))
            pooled = output.text_embeds
        assert pooled is not None
        if sizes is None:
            sizes = torch.tensor([[self.resolution, self.resolution, 0, 0, self.resolution, self.resolution]]).expand(len(input_ids), 6)
        first = pooled.unflatten(0, (len(input_ids), -1))[:, 0]
        return Conditioning(weighted(torch.cat(states, dim=-1), weights), first, sizes).to(self.device)

    def denoise(self, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Predict the noise or the velocity, by `prediction_type`, of noisy latents (B, 4, h, w)."""
        prediction: Tensor = self.unet(noisy_latents, timesteps, conditioning.states, conditioning.pooled, conditioning.sizes)
        return prediction

    def _transformers(self) -> Iterator[tuple[str, Any]]:
        """Yield the UNet's transformers under the names of Stability's own code, which LoRA files for SDXL use.

        There the blocks of all levels are numbered through: each level has its residual blocks and, but for the last, a change of size.
        """
        down = self.unet.config.layers_per_block + 1  # the third is the change of size; input_blocks.0 is the first convolution
        for i, block in enumerate(self.unet.down_blocks):
            yield from ((f"input_blocks.{1 + down * i + j}.1", part) for j, part in enumerate(getattr(block, "attentions", ())))
        yield from ((f"middle_block.{j + 1}", part) for j, part in enumerate(self.unet.mid_block.attentions))
        for i, block in enumerate(self.unet.up_blocks):
            yield from ((f"output_blocks.{down * i + j}.1", part) for j, part in enumerate(getattr(block, "attentions", ())))


def load(path: Path, family: Family, dtype: torch.dtype) -> Model:
    """Load a diffusers folder or a single file, all weights frozen; raises UserError if a part is missing or does not fit."""
    return sd.load(path, family, dtype, SDXLModel)
