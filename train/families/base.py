"""What a model family is: a row of facts, and the module whose `load` makes a Model of a base folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

# Spellings of a weights file, best first: full precision before half, safetensors before pickles.
WEIGHT_SUFFIXES = (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")
# The parts of a base model that a run may load, and the stem that diffusers gives their weights.
PARTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model", "text_encoder_2": "model"}


@dataclass(frozen=True)
class Family:
    """The facts of a model family, with the words that its LoRA files carry for the tools that read them."""

    name: str
    title: str
    resolution: int  # side of the pictures it was trained at, where the base itself does not say
    base_version: str  # ss_base_model_version; readers take "_v" behind it for v-prediction
    architecture: str  # modelspec.architecture
    v_architecture: str  # the same for a v-prediction base
    implementation: str  # modelspec.implementation
    text_encoder_prefixes: tuple[str, ...]  # key prefix of each text encoder in a LoRA file
    pad_ids: tuple[int, ...]  # what each text encoder's captions are padded with
    pipeline: str  # _class_name in model_index.json
    unet_facts: tuple[tuple[str, Any], ...]  # entries of unet/config.json that tell it from its siblings
    module: str  # has load(path, family, dtype) -> Model
    asks_prediction: bool = False  # a single file of it does not show whether it predicts noise or velocity

    def version(self, v_prediction: bool) -> str:
        """Return ss_base_model_version; readers of SDXL files know no "_v"."""
        return self.base_version + ("_v" if v_prediction and self.architecture != self.v_architecture else "")

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of a base folder that hold weights."""
        return ("unet", "vae", *list(PARTS)[2 : 2 + len(self.text_encoder_prefixes)])


@dataclass(frozen=True)
class Target:
    """A frozen layer that an adapter may change, under the name it has in LoRA files."""

    name: str
    module: nn.Module
    part: Literal["unet", "text_encoder"]


def weights_file(folder: Path, part: str) -> Path | None:
    """Find the weights of one part of a diffusers folder, whole or in shards; None if there are none."""
    return weights_in(folder / part, PARTS[part])


def weights_in(folder: Path, stem: str) -> Path | None:
    """Find the weights that lie in a part's own folder."""
    for suffix in WEIGHT_SUFFIXES:
        variant, _, kind = suffix.rpartition(".")
        whole, index = folder / f"{stem}{suffix}", folder / f"{stem}.{kind}.index{variant}.json"
        found = next((path for path in (whole, index) if path.exists()), None)
        if found:
            return found
    return None
