"""Pictures drawn by a base model, with or without a LoRA attached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from prep.clip_bpe import LENGTHS, count
from prep.options import UserError
from prep.processor import multiplies_bf16
from train.families import find_base, load_model
from train.families.sd import Conditioning, Model
from train.shortage import ShortError, is_shortage, placed

# What a scheduler config of a latent model means where it is silent: diffusers' own defaults are those of pixel models.
SCHEDULER_DEFAULTS = {"clip_sample": False, "set_alpha_to_one": False}
# Sampler -> diffusers' scheduler. Only such as draw no new noise on the way: a batch then equals single pictures.
SAMPLERS = {"ddim": "DDIMScheduler", "euler": "EulerDiscreteScheduler", "dpmpp_2m": "DPMSolverMultistepScheduler"}
LARGE = 10**9  # bytes from which on a base is of full size: even in half precision Stable Diffusion's UNet has 1.7 GB


@dataclass(frozen=True)
class Generator:
    """Draws pictures with classifier-free guidance, as StableDiffusionPipeline does, by default with DDIM (arxiv.org/abs/2010.02502, eta 0)."""

    model: Model
    clip_skip: int = 1

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int = 25,
        guidance_scale: float = 5.0,
        negative_prompt: str = "",
        size: int | tuple[int, int] | None = None,
        batch_size: int = 8,
        sampler: str = "ddim",
    ) -> Iterator[Image.Image]:
        """Yield one RGB picture per prompt; each starts from its own seed, so that how they are batched does not matter.

        A batch that finds no memory is halved; raises ShortError if a single picture finds none. `size` is a side or (width, height) in
        pixels, by default what the model was trained at; a scale of 1 is no guidance.
        """
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts, but {len(seeds)} seeds")
        width, height = self._size(size)
        length, before, done = token_length([*prompts, negative_prompt]), list[str](), 0
        while done < len(prompts):
            batch = list(prompts[done : done + batch_size])
            try:
                with torch.no_grad():
                    if batch != before:  # the same words, as those of a class, are encoded once
                        conditioning, before = self._conditioning(batch, length, (width, height)), batch
                        if guidance_scale > 1:
                            conditioning = self._conditioning([negative_prompt] * len(batch), length, (width, height)) + conditioning
                    latents = self._initial_latents(seeds[done : done + len(batch)], width, height)
                    latents = self._denoise(latents, conditioning, self._scheduler(sampler, steps), guidance_scale)
                    pixels = self.model.decode_latents(latents)
            except RuntimeError as error:
                batch_size = smaller(batch, error, (width, height), self.model.vae)
            else:
                done += len(batch)
                yield from to_images(pixels)

    def _size(self, size: int | tuple[int, int] | None) -> tuple[int, int]:
        size = size or self.model.resolution
        width, height = (size, size) if isinstance(size, int) else size
        if width % self.model.vae_scale or height % self.model.vae_scale:
            raise UserError(f"size {width}x{height} is not a multiple of {self.model.vae_scale} pixels; give another size")
        return width, height

    def _initial_latents(self, seeds: Sequence[int], width: int, height: int) -> Tensor:
        shape = (self.model.unet.config.in_channels, height // self.model.vae_scale, width // self.model.vae_scale)
        # Drawn on the CPU: a seed then means the same picture on every device.
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(noise).to(self.model.device)

    def _conditioning(self, prompts: list[str], length: int, size: tuple[int, int]) -> Conditioning:
        width, height = size
        sizes = torch.tensor([[height, width, 0, 0, height, width]]).expand(len(prompts), 6)  # a whole picture of that size
        return self.model.conditioning(self.model.tokenize(prompts, length), self.clip_skip, sizes)

    def _scheduler(self, sampler: str, steps: int) -> Any:
        """Make the scheduler of a sampler for so many steps."""
        import diffusers

        config = {**SCHEDULER_DEFAULTS, **self.model.scheduler_config}
        if config.get("rescale_betas_zero_snr"):
            config["timestep_spacing"] = "trailing"  # else drawing would not begin at the pure noise it was trained for (arxiv.org/abs/2305.08891)
        scheduler: Any = getattr(diffusers, SAMPLERS[sampler]).from_config(config)
        scheduler.set_timesteps(steps)
        return scheduler

    def _denoise(self, latents: Tensor, conditioning: Conditioning, noise_scheduler: Any, guidance_scale: float) -> Tensor:
        """Take noise (B, 4, h, w) to latents; `conditioning` is of 2B samples, the unconditional first, or of B without guidance."""
        copies = len(conditioning) // len(latents)
        latents = latents * noise_scheduler.init_noise_sigma
        for timestep in noise_scheduler.timesteps:
            # The model may be in half precision; the latents stay in float32, where 25 small steps lose nothing.
            noisy = noise_scheduler.scale_model_input(torch.cat([latents] * copies), timestep).to(self.model.unet.dtype)
            prediction = self.model.denoise(noisy, timestep.expand(len(noisy)).to(noisy.device), conditioning).float()
            if copies == 2:
                unconditional, conditional = prediction.chunk(2)
                prediction = unconditional + guidance_scale * (conditional - unconditional)
            latents = noise_scheduler.step(prediction, timestep, latents).prev_sample
        return latents


def load_generator(base: str, clip_skip: int = 1, precision: str = "auto") -> Generator:
    """Load a base model to draw with, on the GPU if there is one; `precision` is auto, fp32, fp16 or bf16, and the VAE stays in fp32.

    Raises UserError if the processor is asked for fp16, which it has no products in.
    """
    gpu = torch.cuda.is_available()
    model = load_model(base, drawing_type(precision, gpu, base))
    for part in (model.unet, model.vae):  # nearly all is convolutions. Measured: 4 to 5 % faster on a CPU
        part.to(memory_format=torch.channels_last)
    with placed("while the base was moved to the GPU", "close what else uses its memory, or draw with a smaller base"):
        return Generator(model.to("cuda" if gpu else "cpu"), clip_skip)


def drawing_type(precision: str, gpu: bool, base: str) -> torch.dtype:
    """Return the type to draw in: for auto fp16 on a GPU; on a processor bf16 if it multiplies that as such and the base is of full size.

    Measured on two cores with avx512_bf16, SD 1.5's shape at 256 px, batches of 2: 1.57 times the pictures of a float32 pipeline, which differ
    by 0.2 % of a channel's range. The pocket base gains nothing.
    """
    if precision == "fp16" and not gpu:
        raise UserError("precision is fp16, but there is no GPU; give bf16 or fp32")
    if precision == "auto":
        precision = "fp16" if gpu else "bf16" if multiplies_bf16() and weighs(find_base(base)) >= LARGE else "fp32"
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]


def weighs(base: Path) -> int:
    """Return the bytes of a base's file, or of its UNet's files."""
    return base.stat().st_size if base.is_file() else sum(path.stat().st_size for path in (base / "unet").glob("*") if path.is_file())


def smaller(batch: Sequence[str], error: RuntimeError, size: tuple[int, int], vae: Any) -> int:
    """Return how many pictures to draw at once after an error for want of memory: half; of a single one the processor is to decode the latents.

    Raises ShortError where that is so already, and any other error.
    """
    if not is_shortage(error):
        raise error
    if len(batch) > 1:
        return len(batch) // 2
    if vae.device.type == "cpu":
        advice = "give a smaller size, or close what else uses the device's memory"
        raise ShortError(f"while a picture of {size[0]}x{size[1]} was drawn", advice) from error
    vae.to("cpu")
    return 1


def token_length(texts: Sequence[str]) -> int:
    """Return the smallest of 75, 150 and 225 that holds all texts (the last one if none does)."""
    longest = max(map(count, texts))
    return next((length for length in LENGTHS if longest <= length), LENGTHS[-1])


def to_images(pixels: Tensor) -> list[Image.Image]:
    """Turn pixels (B, 3, H, W) in [0, 1] into RGB pictures."""
    values = (pixels.float() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(value) for value in values]
