"""Stable Diffusion 1.x and 2.x: one text encoder, a UNet with cross attention, a VAE (arxiv.org/abs/2112.10752)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prep.clip_bpe import chunks
from prep.options import UserError
from train.families import parts, single_file
from train.families.base import Family, Target

# The layers inside each transformer of the UNet that LoRA files hold (kohya's layout). Names are spelled out here and not
# taken from module paths, which libraries rename: a layer that is missing must be an error, never a smaller LoRA.
TRANSFORMER_LAYERS = ("proj_in", "proj_out")
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
BLOCK_LAYERS = (*(f"attn1.{to}" for to in ATTENTION), *(f"attn2.{to}" for to in ATTENTION), "ff.net.0.proj", "ff.net.2")
TEXT_LAYERS = (*(f"self_attn.{to}_proj" for to in ("q", "k", "v", "out")), "mlp.fc1", "mlp.fc2")


@dataclass(frozen=True)
class Conditioning:
    """What the UNet is told beside the noisy latents of B samples."""

    states: Tensor  # (B, L, C), the captions token by token
    pooled: Tensor | None = None  # (B, P), each caption as a whole
    sizes: Tensor | None = None  # (B, 6): original height and width, crop top and left, target height and width, in pixels

    def __len__(self) -> int:
        return len(self.states)

    def to(self, device: torch.device | str) -> Conditioning:
        """Return the same on a device."""
        return Conditioning(*(None if part is None else part.to(device) for part in (self.states, self.pooled, self.sizes)))  # type: ignore[arg-type]

    def __add__(self, other: Conditioning) -> Conditioning:
        """Put two batches behind each other."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Conditioning(*(None if first is None or second is None else torch.cat([first, second]) for first, second in pairs))


class Model:
    """A frozen base model; what differs between families is hidden behind these methods."""

    def __init__(
        self, family: Family, path: Path, *, unet: nn.Module, vae: nn.Module, text_encoders: Sequence[nn.Module], scheduler_config: dict[str, Any]
    ) -> None:
        self.family = family
        self.path = path
        self.unet: Any = unet
        self.text_encoders: list[Any] = list(text_encoders)
        self.scheduler_config = scheduler_config
        self.digest = ""  # of its weights as they were opened; a run says it
        self.swap: Any = None  # train.swap.Swap, while blocks of the UNet wait in the CPU's memory
        self.use_vae(vae)
        sample_size = self.unet.config.sample_size
        self.resolution: int = sample_size * self.vae_scale if sample_size else family.resolution

    def use_vae(self, vae: nn.Module) -> None:
        """Let this VAE encode and decode."""
        self.vae: Any = vae
        self.scaling_factor: float = self.vae.config.scaling_factor
        self.vae_scale = 2 ** (len(self.vae.config.block_out_channels) - 1)  # pixels per latent, each way

    def predict(self, prediction_type: str) -> None:
        """Say what the base predicts, whatever its own configuration says."""
        self.scheduler_config = {**self.scheduler_config, "prediction_type": prediction_type}

    @property
    def prediction_type(self) -> str:
        """What the base predicts: epsilon or v_prediction."""
        return str(self.scheduler_config.get("prediction_type", "epsilon"))

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    def to(self, device: torch.device | str) -> Model:
        """Move all parts to a device and return the model itself."""
        for part in (self.unet, self.vae, *self.text_encoders):
            part.to(device)
        return self

    def to_encode_text(self, device: torch.device | str) -> Model:
        """Move the text encoders to a device and the VAE off it, since a small one has no room for both; returns the model itself."""
        self.vae.to("cpu")
        for encoder in self.text_encoders:
            encoder.to(device)
        return self

    def tokenize(self, captions: list[str], max_token_length: int = 75) -> Tensor:
        """Turn captions into token ids (B, chunks, 77), 75 tokens of the caption in each chunk."""
        return torch.tensor([chunks(caption, max_token_length, self.family.pad_ids[0]) for caption in captions])

    def conditioning(self, input_ids: Tensor, clip_skip: int = 1, sizes: Tensor | None = None, weights: Tensor | None = None) -> Conditioning:
        """Encode token ids (B, chunks, 77) to what the UNet attends to (B, 75 * chunks + 2, C).

        Each chunk is encoded apart. `clip_skip` counts layers from the last, which is 1; the final norm follows in any case. `sizes` is
        for families whose UNet is told how a picture was made (see SDXLModel). `weights` (B, chunks, 77) multiply each token's state.
        """
        output = self._encoded(self.text_encoders[0], input_ids, clip_skip)
        states = self.text_encoders[0].text_model.final_layer_norm(output.hidden_states[-clip_skip])
        return Conditioning(weighted(joined(states.unflatten(0, input_ids.shape[:2])), weights).to(self.device))

    def _encoded(self, encoder: Any, input_ids: Tensor, clip_skip: int) -> Any:
        """Run a text encoder on all chunks (B, chunks, 77); raises UserError if it has no such layer."""
        layers = encoder.config.num_hidden_layers
        if not 1 <= clip_skip <= layers:
            raise UserError(f"clip_skip is {clip_skip}, but the text encoder of {self.path.name} has {layers} layers; give 1 to {layers}")
        # The encoder's own device: a frozen one whose captions are encoded already stays on the CPU.
        device = next(encoder.parameters()).device
        return encoder(input_ids.to(device).flatten(0, 1))

    def denoise(self, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Predict the noise or the velocity, by `prediction_type`, of noisy latents (B, 4, h, w)."""
        prediction: Tensor = self.unet(noisy_latents, timesteps, conditioning.states)
        return prediction

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode pixels (B, 3, H, W) in [-1, 1] to mean and standard deviation (B, 4, h, w) of their scaled latents."""
        mean, deviation = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype))
        return mean * self.scaling_factor, deviation * self.scaling_factor

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Decode scaled latents (B, 4, h, w) to pixels (B, 3, H, W) in [0, 1]."""
        pixels: Tensor = self.vae.decode(latents.to(self.vae.device, self.vae.dtype) / self.scaling_factor)
        return (pixels / 2 + 0.5).clamp(0, 1)

    def targets(self) -> list[Target]:
        """List the layers that a LoRA may change, the text encoder's first, under their names in kohya's layout."""
        return [*self._text_targets(), *self._unet_targets()]

    def _text_targets(self) -> Iterator[Target]:
        for prefix, encoder in zip(self.family.text_encoder_prefixes, self.text_encoders, strict=True):
            for i, layer in enumerate(encoder.text_model.encoder.layers):
                for name in TEXT_LAYERS:
                    yield Target(key(prefix, "text_model.encoder.layers", i, name), layer.get_submodule(name), "text_encoder")

    def _unet_targets(self) -> Iterator[Target]:
        for path, transformer in self._transformers():
            names = [*TRANSFORMER_LAYERS]
            names += [f"transformer_blocks.{j}.{name}" for j in range(len(transformer.transformer_blocks)) for name in BLOCK_LAYERS]
            for name in names:
                yield Target(key("lora_unet", path, name), transformer.get_submodule(name), "unet")

    def _transformers(self) -> Iterator[tuple[str, Any]]:
        """Yield the UNet's transformers in their order, each with the name that its place has in LoRA files."""
        blocks = [
            *((f"down_blocks.{i}", block) for i, block in enumerate(self.unet.down_blocks)),
            ("mid_block", self.unet.mid_block),
            *((f"up_blocks.{i}", block) for i, block in enumerate(self.unet.up_blocks)),
        ]
        for path, block in blocks:
            yield from ((f"{path}.attentions.{i}", transformer) for i, transformer in enumerate(getattr(block, "attentions", ())))


def load(path: Path, family: Family, dtype: torch.dtype | None, kind: type[Model] = Model) -> Model:
    """Load a diffusers folder or a single file, all weights frozen; raises UserError if a part is missing or does not fit."""
    return kind(family, path, **(single_file if path.is_file() else parts).load_parts(path, family, dtype))


def joined(states: Tensor) -> Tensor:
    """Join the chunks of captions (B, chunks, 77, C) to (B, 75 * chunks + 2, C): of the marks of begin and end one each is kept."""
    return torch.cat([states[:, 0, :1], states[:, :, 1:-1].flatten(1, 2), states[:, -1, -1:]], dim=1)


def weighted(states: Tensor, weights: Tensor | None) -> Tensor:
    """Multiply joined states (B, 75 * chunks + 2, C) by the weights of their tokens (B, chunks, 77); as in sd-scripts their mean changes."""
    return states if weights is None else states * joined(weights[..., None]).to(states)


def key(*parts: str | int) -> str:
    return "_".join(str(part) for part in parts).replace(".", "_")
