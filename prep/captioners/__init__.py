"""Captioners: the table of models that describe a picture in a sentence, for bases that were trained on sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from prep.options import UserError, load_object

if TYPE_CHECKING:
    from PIL import Image

TRANSFORMERS = "prep.captioners.vision_text:VisionText"
ASK = "Describe this picture in one plain sentence, beginning with who or what it shows. Do not interpret it."

DETAILED = "<MORE_DETAILED_CAPTION>"  # a task of Florence-2


@dataclass(frozen=True)
class CaptionerRow:
    """A captioner: where its model is, how it is asked, and how much it may answer."""

    description: str
    repo: str  # on the Hugging Face hub, or a folder
    prompt: str = ""  # what the model is asked; "" for one that only describes
    chat: bool = False  # the prompt goes through the model's own chat template
    max_new_tokens: int = 75  # a caption of 75 CLIP tokens is what fits without chunks
    revision: str = "main"
    kind: str = TRANSFORMERS


CAPTIONERS: dict[str, CaptionerRow] = {
    "blip": CaptionerRow("short plain sentences, small and quick", "Salesforce/blip-image-captioning-base"),
    "blip-large": CaptionerRow("short plain sentences", "Salesforce/blip-image-captioning-large"),
    "blip2": CaptionerRow("short plain sentences, surer, 8 GB in half precision", "Salesforce/blip2-opt-2.7b"),
    "florence2": CaptionerRow("several detailed sentences, small", "florence-community/Florence-2-base", DETAILED, max_new_tokens=150),
    "florence2-large": CaptionerRow("several detailed sentences", "florence-community/Florence-2-large", DETAILED, max_new_tokens=150),
    "qwen2.5-vl": CaptionerRow("answers what it is asked, 16 GB in half precision", "Qwen/Qwen2.5-VL-7B-Instruct", ASK, chat=True),
    "qwen3-vl": CaptionerRow("answers what it is asked, 9 GB in half precision", "Qwen/Qwen3-VL-4B-Instruct", ASK, chat=True),
    "joycaption": CaptionerRow(
        "made for training captions, 17 GB in half precision", "fancyfeast/llama-joycaption-beta-one-hf-llava",
        "Write a short descriptive caption for this image in a formal tone.", chat=True, max_new_tokens=150,
    ),
}  # fmt: skip


class Captioner(Protocol):
    """What a kind's class offers; its model is loaded by the first `describe`."""

    def __init__(self, row: CaptionerRow, device: str) -> None: ...

    def describe(self, images: Sequence[Image.Image], count: int, seed: int) -> list[list[str]]:
        """Return `count` sentences for each RGB picture; the first is the likeliest, the others are drawn from `seed`."""
        ...


def captioner(name: str, device: str = "auto", prompt: str = "", max_new_tokens: int = 0) -> Captioner:
    """Make the captioner of that name, or of a model's folder; raises UserError if it is neither."""
    row = CAPTIONERS.get(name)
    if row is None:
        if not (Path(name) / "config.json").is_file():
            raise UserError(f"{name!r} is neither a captioner nor a model's folder; the captioners are {', '.join(CAPTIONERS)}")
        row = CaptionerRow("a model's folder", name)
    row = replace(row, prompt=prompt or row.prompt, max_new_tokens=max_new_tokens or row.max_new_tokens)
    return load_object(row.kind)(row, device)
