"""Pictures of LoRA files on a base: several act at once, in one forward pass, each with its strength."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prep.options import UserError

if TYPE_CHECKING:
    from PIL import Image

    from train.families.sd import Model
    from train.prompts import SamplePrompt
    from train.sample import Generator


@dataclass(frozen=True)
class Weighted:
    """A LoRA file and its strength."""

    path: Path
    weight: float = 1.0

    @property
    def label(self) -> str:
        """How it is called under a picture."""
        return self.path.stem if self.weight == 1 else f"{self.path.stem} × {self.weight:g}"


def read_weighted(text: str, weight: float = 1.0) -> Weighted:
    """Read FILE or FILE:WEIGHT; raises UserError if there is no such file."""
    head, colon, tail = text.rpartition(":")
    if colon and not Path(text).exists():
        try:
            return _found(Weighted(Path(head), float(tail)))
        except ValueError:
            pass
    return _found(Weighted(Path(text), weight))


def _found(lora: Weighted) -> Weighted:
    if not lora.path.is_file():
        raise UserError(f"there is no file {lora.path}; give a LoRA file, or FILE:WEIGHT")
    return lora


@contextmanager
def attached(model: Model, loras: Sequence[Weighted]) -> Iterator[None]:
    """Let LoRAs act on a model; raises UserError if one is for another base."""
    from train.adapters.build import all_targets
    from train.adapters.network import Network, check_family
    from train.export import read_lora

    networks = []
    try:
        for lora in loras:
            state, targets = read_lora(lora.path)[0], all_targets(model)
            check_family(state, targets, str(lora.path))
            network = Network.from_state(targets, {key: tensor.float() for key, tensor in state.items()}).to(model.device, model.unet.dtype)
            network.multiplier = lora.weight
            networks.append(network)
        yield
    finally:
        for network in networks:
            network.remove()


def draw(generator: Generator, prompts: Sequence[SamplePrompt], sampler: str = "ddim") -> list[Image.Image]:
    """Draw each prompt with its seed; those that are drawn alike share batches."""
    side = generator.model.resolution
    found: list[Image.Image] = []
    for alike, group in itertools.groupby(prompts, key=lambda prompt: replace(prompt, prompt="", seed=None)):
        rows = list(group)
        found += generator.draw(
            [row.prompt for row in rows], [row.seed or 0 for row in rows], steps=alike.steps, guidance_scale=alike.guidance_scale,
            negative_prompt=alike.negative_prompt, size=(alike.width or side, alike.height or side), sampler=sampler,
        )  # fmt: skip
    return found


def base_of(base: str, files: Sequence[Path]) -> str:
    """Return the base to draw with: the one given, or that from which the first file says it was trained; raises UserError if neither is there."""
    from train.export import read_file
    from train.families import EMBEDDED

    if base:
        return base
    said = read_file(files[0])[1].get("ss_sd_model_name", "") if files else "pocket"
    if said not in EMBEDDED and (not said or not Path(said).exists()):
        raise UserError(f"{files[0]} was trained on {said or 'a base that it does not name'}, which is not here; give --base")
    return said


def read_size(text: str) -> tuple[int, int]:
    """Read SIDE or WIDTHxHEIGHT in pixels; "" is the base's own, as 0. Raises UserError."""
    try:
        width, _, height = (text or "0").lower().partition("x")
        return int(width), int(height or width)
    except ValueError:
        raise UserError(f"--size {text!r} is no size; write it as 512 or 512x768") from None
