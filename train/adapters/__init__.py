"""Adapters: what is trained beside the frozen base; each is a module that knows modules, never families."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn


class Target(Protocol):
    """A layer of the base that an adapter may sit on."""

    @property
    def name(self) -> str:
        """What the layer is called in LoRA files."""

    @property
    def module(self) -> nn.Module:
        """The layer itself."""

    @property
    def part(self) -> str:
        """Where it belongs: "unet" or "text_encoder"."""


@dataclass(frozen=True)
class AdapterRow:
    """A row of ADAPTERS: the layer class as "module:Class", and how a file's keys tell it."""

    layer: str
    description: str
    marks: tuple[str, ...]  # suffixes of keys that only files of this kind have
    arguments: Mapping[str, Any] = field(default_factory=dict)  # what network_args may set -> its default
    module: str = "networks.lora"  # ss_network_module
    readers: tuple[str, ...] = ("A1111", "ComfyUI", "diffusers")
    dropouts: tuple[str, ...] = ("network_dropout", "rank_dropout", "module_dropout")
    has_rank: bool = True  # rs_lora, alpha and ranks mean something
    reads_base: bool = True  # computes with the base's weight, which must be at hand then


LYCORIS = "train.adapters.lycoris:LycorisLayer"
_FACTORED = {"dora_wd": False, "use_tucker": False}


def _lycoris(description: str, *marks: str, **more: Any) -> AdapterRow:
    """Make a row of the package lycoris-lora; diffusers reads none of them (diffusers#3087)."""
    facts = {"module": "lycoris.kohya", "readers": ("A1111", "ComfyUI"), "dropouts": ("rank_dropout", "module_dropout"), **more}
    return AdapterRow(LYCORIS, description, marks, **facts)


# The first row whose mark is found is a file's kind, so dora stands before lora, and both after those that may hold dora_scale too.
ADAPTERS: dict[str, AdapterRow] = {
    "loha": _lycoris("Product of two low-rank matrices (arxiv.org/abs/2108.06098).", ".hada_w1_a", arguments=_FACTORED),
    "lokr": _lycoris(
        "Kronecker product; the smallest files (arxiv.org/abs/2309.14859).",
        ".lokr_w1",
        ".lokr_w1_a",
        arguments={**_FACTORED, "factor": -1, "decompose_both": False, "full_matrix": False},
    ),
    "glora": _lycoris("Update from the weight itself (arxiv.org/abs/2306.07967).", ".a1.weight", dropouts=("module_dropout",)),
    "ia3": _lycoris(
        "One factor a channel (arxiv.org/abs/2205.05638); wants a rate of 5e-3 or more.",
        ".on_input",
        arguments={"train_on_input": False},
        dropouts=("module_dropout",),
        readers=("A1111",),
        has_rank=False,
    ),
    "diag-oft": _lycoris(
        "Rotation of output channels in blocks (arxiv.org/abs/2306.07280).",
        ".oft_blocks",
        arguments={"constraint": 0.0, "rescaled": False},
        has_rank=False,
    ),
    # A1111 takes the lengths over the inputs, and diffusers leaves them out (seen in 0.42); the layout diffusers is for diffusers.
    "dora": AdapterRow(
        "train.adapters.dora:DoRALayer",
        "LoRA with a trained length of each output (arxiv.org/abs/2402.09353).",
        (".dora_scale",),
        readers=("ComfyUI",),
    ),
    "lora": AdapterRow(
        "train.adapters.lora:LoRALayer",
        "Low-rank update; every reader takes it (arxiv.org/abs/2106.09685).",
        (".lora_down.weight",),
        reads_base=False,
    ),
}


def kind_of(keys: Iterable[str]) -> str | None:
    """Say which row of ADAPTERS one layer's keys are of; None if of none."""
    found = list(keys)
    return next((name for name, row in ADAPTERS.items() if any(key.endswith(row.marks) for key in found)), None)
