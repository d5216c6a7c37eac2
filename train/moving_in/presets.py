"""Presets to begin with, each value with the reason for it: by what is learned, the family of the base and the card's memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

KINDS = ("character", "style", "object")
FAMILIES = ("sd15", "sdxl")
MEMORY = (6, 8, 12, 24)  # GB of the card


@dataclass(frozen=True)
class Choice:
    """A setting, its value, and why."""

    key: str
    value: Any
    why: str


def names() -> Iterator[str]:
    """Yield the names of all presets, such as character-sdxl-12gb."""
    for kind in KINDS:
        for family in FAMILIES:
            for memory in MEMORY:
                yield f"{kind}-{family}-{memory}gb"


def preset(name: str) -> list[Choice]:
    """Return a preset's choices; the name must be one of `names`."""
    kind, family, memory = name.split("-")
    gigabytes = int(memory.removesuffix("gb"))
    return [*_of_memory(family, gigabytes), *_of_kind(kind, family), *_rate(kind, family, gigabytes), *_common(family)]


def _of_memory(family: str, gigabytes: int) -> list[Choice]:
    """Choose what decides the memory: SDXL's UNet alone is 5 GB in half precision, SD 1.5's 1.7 GB."""
    small = gigabytes <= (12 if family == "sdxl" else 6)
    optimizer = "adamw8bit" if small else "adamw"
    eight = "its state takes a quarter of AdamW's, which a small card needs for pictures (extra 8bit)" if small else "this card has room for it"
    found = [Choice("optimizer", optimizer, eight)]
    if family == "sdxl":
        resolution = 768 if gigabytes < 8 else 1024
        batch = {6: 1, 8: 1, 12: 1, 24: 4}[gigabytes]
        encoder = gigabytes >= 24
        found += [
            Choice("resolution", resolution, "what SDXL was made for" if resolution == 1024 else "1024 does not fit into so little memory"),
            Choice("train_batch_size", batch, "what fits beside the UNet" if batch == 1 else "larger batches learn more evenly, and they fit"),
            Choice(
                "train_text_encoder",
                encoder,
                "both encoders are trained where they fit" if encoder else "frozen, they need not be on the card at all",
            ),
        ]
        if not encoder:
            found.append(
                Choice("caption_variants", 8, "so many wordings of each caption are encoded before training, then the encoders leave the card")
            )
    else:
        batch = {6: 1, 8: 2, 12: 4, 24: 8}[gigabytes]
        resolution = 512 if gigabytes <= 8 else 640 if gigabytes == 12 else 768
        why = (
            "what SD 1.5 was made for"
            if resolution == 512
            else "more detail than 512, and there is room; the base draws larger sizes well from LoRAs"
        )
        found += [
            Choice("resolution", resolution, why),
            Choice("train_batch_size", batch, "as many pictures as fit at this size"),
            Choice("train_text_encoder", True, "it is small, and keywords bind faster when it learns"),
        ]
    if small:
        found.append(Choice("gradient_checkpointing", True, "computes parts twice instead of keeping them, a third slower in far less memory"))
    found.append(Choice("gradient_accumulation_steps", max(1, 4 // batch), "steps of four pictures at least are less noisy"))
    return found


def _of_kind(kind: str, family: str) -> list[Choice]:
    """Choose by what is learned."""
    large = family == "sdxl"
    if kind == "character":
        return [
            Choice("network_dim", 16 if large else 32, "a face and its clothes; more remembers pictures instead"),
            Choice("network_alpha", 8.0 if large else 16.0, "half the rank, so that the usual rates hold"),
            Choice("num_epochs", 15, "20 to 40 pictures then make 1,000 to 3,000 steps with their repeats; the best epoch is kept"),
            Choice("keep_tokens", 1, "the keyword stays in front of the shuffled tags"),
            Choice("flip_aug", False, "partings, scars and eye patches have a side"),
            Choice("caption_dropout_rate", 0.0, "the keyword is to be needed"),
        ]
    if kind == "style":
        return [
            Choice("network_dim", 32 if large else 64, "a style changes every layer a little"),
            Choice("network_alpha", 16.0 if large else 32.0, "half the rank, so that the usual rates hold"),
            Choice("conv_dim", 8, "strokes and textures lie in the convolutions"),
            Choice("num_epochs", 10, "styles come from many pictures, 50 and more, seen fewer times"),
            Choice("keep_tokens", 1, "the keyword stays in front of the shuffled tags"),
            Choice("flip_aug", True, "a style has no side, and mirrored pictures are more pictures"),
            Choice("caption_dropout_rate", 0.1, "the style is then drawn without its words too"),
        ]
    return [
        Choice("network_dim", 8 if large else 16, "one thing has few features, and a low rank does not learn its surroundings"),
        Choice("network_alpha", 4.0 if large else 8.0, "half the rank, so that the usual rates hold"),
        Choice("num_epochs", 12, "things are learned faster than faces; the best epoch is kept"),
        Choice("keep_tokens", 1, "the keyword stays in front of the shuffled tags"),
        Choice("flip_aug", True, "set it to false for things with writing or a handle on one side"),
        Choice("caption_dropout_rate", 0.0, "the keyword is to be needed"),
    ]


def _rate(kind: str, family: str, gigabytes: int) -> list[Choice]:
    unet = {"character": 1e-4, "style": 1e-4, "object": 2e-4}[kind]
    found = [Choice("learning_rate", unet, "the usual rate with alpha at half of dim")]
    if family == "sd15" or gigabytes >= 24:
        found.append(Choice("text_encoder_lr", unet / 2, "at the UNet's rate a text encoder forgets other words"))
    return found


def _common(family: str) -> list[Choice]:
    return [
        Choice("lr_scheduler", "cosine", "ends gently, whatever the rate"),
        Choice("lr_warmup_ratio", 0.05, "the optimizer's averages are unreliable in the first steps"),
        Choice("min_snr_gamma", 5.0, "nearly clean timesteps count less, so that fewer steps do"),
        Choice("enable_bucket", True, "no picture is cut to a square"),
        Choice("max_bucket_reso", 1536 if family == "sdxl" else 1024, "long formats keep their shape"),
        Choice("save_precision", "fp16", "what all web UIs load; nothing is lost to rounding"),
    ]
