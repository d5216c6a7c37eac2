"""Stable Diffusion 1.x and 2.x: one text encoder, a UNet with cross attention, a VAE (arxiv.org/abs/2112.10752)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prep.clip_bpe import VOCAB_SIZE, chunks
from prep.options import UserError
from train.families.base import Family, Target, weights_file

# The layers inside each transformer of the UNet that LoRA files hold (kohya's layout). Names are spelled out here and not
# taken from module paths, which libraries rename: a layer that is missing must be an error, never a smaller LoRA.
TRANSFORMER_LAYERS = ("proj_in", "proj_out")
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
BLOCK_LAYERS = (*(f"attn1.{to}" for to in ATTENTION), *(f"attn2.{to}" for to in ATTENTION), "ff.net.0.proj", "ff.net.2")
TEXT_LAYERS = (*(f"self_attn.{to}_proj" for to in ("q", "k", "v", "out")), "mlp.fc1", "mlp.fc2")


class Model:
    """A frozen base model; what differs between families is hidden behind these methods."""

    def __init__(
        self, family: Family, path: Path, *, unet: nn.Module, vae: nn.Module, text_encoder: nn.Module, scheduler_config: dict[str, Any]
    ) -> None:
        self.family = family
        self.path = path
        self.unet: Any = unet
        self.vae: Any = vae
        self.text_encoders: list[Any] = [text_encoder]
        self.scheduler_config = scheduler_config
        self.prediction_type: str = scheduler_config.get("prediction_type", "epsilon")
        self.scaling_factor: float = self.vae.config.scaling_factor
        self.vae_scale = 2 ** (len(self.vae.config.block_out_channels) - 1)  # pixels per latent, each way
        sample_size = self.unet.config.sample_size
        self.resolution: int = sample_size * self.vae_scale if sample_size else family.resolution

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    def to(self, device: torch.device | str) -> Model:
        """Move all parts to a device and return the model itself."""
        for part in (self.unet, self.vae, *self.text_encoders):
            part.to(device)
        return self

    def tokenize(self, captions: list[str], max_token_length: int = 75) -> Tensor:
        """Turn captions into token ids (B, chunks, 77), 75 tokens of the caption in each chunk."""
        return torch.tensor([chunks(caption, max_token_length, self.family.pad_ids[0]) for caption in captions])

    def conditioning(self, input_ids: Tensor, clip_skip: int = 1) -> Tensor:
        """Encode token ids (B, chunks, 77) to what the UNet attends to (B, 75 * chunks + 2, C).

        Each chunk is encoded apart. `clip_skip` counts layers from the last, which is 1; the final norm follows in any case.
        """
        encoder = self.text_encoders[0]
        layers = encoder.config.num_hidden_layers
        if not 1 <= clip_skip <= layers:
            raise UserError(f"clip_skip is {clip_skip}, but the text encoder of {self.path.name} has {layers} layers; give 1 to {layers}")
        rows = input_ids.to(self.device).flatten(0, 1)
        hidden_states = encoder(input_ids=rows, output_hidden_states=True).hidden_states[-clip_skip]
        states = _text_core(encoder).final_layer_norm(hidden_states).unflatten(0, input_ids.shape[:2])  # (B, chunks, 77, C)
        return torch.cat([states[:, 0, :1], states[:, :, 1:-1].flatten(1, 2), states[:, -1, -1:]], dim=1)

    def denoise(self, noisy_latents: Tensor, timesteps: Tensor, conditioning: Tensor) -> Tensor:
        """Predict the noise or the velocity, by `prediction_type`, of noisy latents (B, 4, h, w)."""
        prediction: Tensor = self.unet(noisy_latents, timesteps, encoder_hidden_states=conditioning).sample
        return prediction

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode pixels (B, 3, H, W) in [-1, 1] to mean and standard deviation (B, 4, h, w) of their scaled latents."""
        posterior = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist
        return posterior.mean * self.scaling_factor, posterior.std * self.scaling_factor

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Decode scaled latents (B, 4, h, w) to pixels (B, 3, H, W) in [0, 1]."""
        pixels: Tensor = self.vae.decode(latents.to(self.vae.device, self.vae.dtype) / self.scaling_factor).sample
        return (pixels / 2 + 0.5).clamp(0, 1)

    def targets(self) -> list[Target]:
        """List the layers that a LoRA may change, the text encoder's first, under their names in kohya's layout."""
        return [*self._text_targets(), *self._unet_targets()]

    def _text_targets(self) -> Iterator[Target]:
        prefix = self.family.text_encoder_prefixes[0]
        for i, layer in enumerate(_text_core(self.text_encoders[0]).encoder.layers):
            for name in TEXT_LAYERS:
                yield Target(_key(prefix, "text_model.encoder.layers", i, name), layer.get_submodule(name), "text_encoder")

    def _unet_targets(self) -> Iterator[Target]:
        blocks = [
            *((f"down_blocks.{i}", block) for i, block in enumerate(self.unet.down_blocks)),
            ("mid_block", self.unet.mid_block),
            *((f"up_blocks.{i}", block) for i, block in enumerate(self.unet.up_blocks)),
        ]
        for path, block in blocks:
            for i, transformer in enumerate(getattr(block, "attentions", ())):
                names = [*TRANSFORMER_LAYERS]
                names += [f"transformer_blocks.{j}.{name}" for j in range(len(transformer.transformer_blocks)) for name in BLOCK_LAYERS]
                for name in names:
                    yield Target(_key("lora_unet", path, "attentions", i, name), transformer.get_submodule(name), "unet")


def load(path: Path, family: Family, dtype: torch.dtype) -> Model:
    """Load a diffusers folder, all weights frozen; raises UserError if a part is missing or does not fit."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    scheduler_config = json.loads((path / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    unet = _load_part(UNet2DConditionModel, path, "unet", dtype)
    text_encoder = _load_part(CLIPTextModel, path, "text_encoder", dtype)
    # The VAE stays in float32: it runs once a picture, and some overflow in half precision.
    vae = _load_part(AutoencoderKL, path, "vae", torch.float32)
    words, width = text_encoder.config.vocab_size, text_encoder.config.hidden_size
    if words != VOCAB_SIZE:
        raise UserError(f"the text encoder of {path} knows {words} tokens, not CLIP's {VOCAB_SIZE}; give a base model with CLIP's vocabulary")
    if unet.config.cross_attention_dim != width:
        raise UserError(
            f"in {path} the text encoder is {width} wide, but the UNet reads {unet.config.cross_attention_dim}; fetch the base model anew"
        )
    return Model(family, path, unet=unet, vae=vae, text_encoder=text_encoder, scheduler_config=scheduler_config)


def _load_part(kind: Any, folder: Path, name: str, dtype: torch.dtype) -> Any:
    file = weights_file(folder, name)
    if file is None:
        raise UserError(f"{folder / name} has no weights; fetch the base model anew")
    variant = "fp16" if ".fp16." in file.name else None
    try:
        with _no_bars():
            part = kind.from_pretrained(folder / name, torch_dtype=dtype, variant=variant, local_files_only=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{file} cannot be loaded ({str(error).strip().splitlines()[0]}); fetch the base model anew") from None
    return part.requires_grad_(False).eval()


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers from drawing a bar of its own, on terminals and in log files alike, for a load that takes a moment."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _text_core(encoder: Any) -> Any:
    """Return what holds a text encoder's layers and final norm: transformers 5 dropped the `text_model` level, 4 has it."""
    return getattr(encoder, "text_model", encoder)


def _key(*parts: str | int) -> str:
    return "_".join(str(part) for part in parts).replace(".", "_")
