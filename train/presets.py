"""Presets: settings to start from, by what is learned, the base's family and the GPU's memory, each with its reason.

None of the sizes of GPU was at hand: what fits is reckoned by the prediction of `fit` (docs/performance.md), and a reason says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prep.options import UserError
from train.config import known_keys


@dataclass(frozen=True)
class Choice:
    """A setting's value and why, in a sentence."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Preset:
    """What a preset is for, and its choices in the order in which they are written."""

    name: str
    description: str
    choices: tuple[Choice, ...]

    def settings(self) -> dict[str, Any]:
        """Return the [train] table that it is."""
        return {choice.key: choice.value for choice in self.choices}


SUBJECTS = {"character": "one person or figure", "style": "the manner of many different pictures", "object": "one thing, or one kind of thing"}
FAMILIES = {"sd15": "SD 1.5 and models built on it", "sdxl": "SDXL, Pony, Illustrious, NoobAI"}
MEMORY = (6, 8, 12, 24)  # gigabytes of the GPU
UNTRIED = "reckoned, not run on such a card"

# Which layers and rates, by what is learned.
OF_SUBJECT: dict[str, tuple[Choice, ...]] = {
    "character": (
        Choice("network_dim", 16, "A face and clothes need little room, and a small rank leaves less for backgrounds to hide in."),
        Choice("network_alpha", 8.0, "Half of the rank, so that another rank later does not move the fitting rate far."),
        Choice("num_epochs", 10, "For about 200 samples an epoch (pictures x repeats); the best epoch is kept, so too many cost time only."),
        Choice("shuffle_caption", True, "Tags in another order each time keep what is worn and where from sticking to the keyword."),
        Choice("keep_tokens", 1, "The keyword stays in front, where it is learned best."),
        Choice("caption_dropout_rate", 0.0, "Without its keyword the figure should not appear, so it is never trained without one."),
        Choice("flip_aug", False, "Partings, scars and emblems are on one side."),
    ),
    "style": (
        Choice("network_dim", 32, "A manner shows in all motifs and needs more room than one figure."),
        Choice("network_alpha", 16.0, "Half of the rank, so that another rank later does not move the fitting rate far."),
        Choice("num_epochs", 10, "For about 400 samples an epoch; the best epoch is kept, so too many cost time only."),
        Choice("shuffle_caption", True, "No motif should stand for the manner."),
        Choice("keep_tokens", 1, "The keyword of the style stays in front."),
        Choice("caption_dropout_rate", 0.05, "A few pictures without a caption teach the manner whatever the prompt says."),
        Choice("flip_aug", True, "Brush and palette have no sides, and twice as many pictures are seen; false if there is writing."),
    ),
    "object": (
        Choice("network_dim", 16, "A shape and its surface need little room."),
        Choice("network_alpha", 8.0, "Half of the rank, so that another rank later does not move the fitting rate far."),
        Choice("num_epochs", 8, "Things are learned sooner than faces; the best epoch is kept in any case."),
        Choice("shuffle_caption", True, "Places and light in the captions should not stick to the keyword."),
        Choice("keep_tokens", 1, "The keyword stays in front, where it is learned best."),
        Choice("caption_dropout_rate", 0.0, "Without its keyword the thing should not appear, so it is never trained without one."),
        Choice("flip_aug", False, "Writing and handles would be mirrored; true for what is the same on both sides."),
    ),
}
OF_FAMILY: dict[str, tuple[Choice, ...]] = {
    "sd15": (
        Choice("learning_rate", 1e-4, "Usual for four samples a step; `train sweep --vary learning_rate=...` finds yours."),
        Choice("max_bucket_reso", 1024, "Twice the resolution: portraits and landscapes keep their shape."),
    ),
    "sdxl": (
        Choice("learning_rate", 1e-4, "Usual for four samples a step; `train sweep --vary learning_rate=...` finds yours."),
        Choice("max_bucket_reso", 2048, "The default of 1024 would squeeze all but squares into less area."),
    ),
}
COMMON = (
    Choice("lr_scheduler", "cosine", "Falls to 0, so that the last epochs smooth instead of wandering."),
    Choice("lr_warmup_ratio", 0.05, "A gentle start while the optimizer has no memory yet."),
    Choice("min_snr_gamma", 5.0, "Steadier and faster, since nearly clean timesteps no longer outweigh the others."),
    Choice("bucket_no_upscale", True, "Small pictures are not blown up, whose blur would be learned."),
)
TRAINED_TEXT = (
    Choice("train_text_encoder", True, "A new word for one thing is learned sooner when the text encoder may move."),
    Choice("text_encoder_lr", 5e-5, "Half of the UNet's rate, since it overfits first."),
)
WORDINGS = Choice("caption_variants", 10, "Ten wordings of each caption are encoded once, and then the text encoder leaves the GPU.")


def _batch(size: int, memory: int) -> tuple[Choice, ...]:
    rest = 4 // size
    return (
        Choice("train_batch_size", size, f"What should fit {memory} GB at this resolution: {UNTRIED}."),
        Choice("gradient_accumulation_steps", rest, f"{size} x {rest} = four samples a step in every preset, so that the same rates hold."),
    )


def _checkpointing(reason: str) -> tuple[Choice, ...]:
    """Compute activations twice to save memory, in versions that have the setting."""
    return (Choice("gradient_checkpointing", True, reason),) if "gradient_checkpointing" in known_keys() else ()


def _fit(reason: str) -> Choice:
    """Let the run take the first way to hold it that the card has room for."""
    return Choice("fit", True, reason)


# Megabytes of AdamW's moments at the preset's rank: 8 bytes a trained number (SD 1.5 with its text encoder 0.59 million a rank, without
# 0.42; SDXL's UNet 2.66), counted from the shapes of all layers.
MOMENTS = {
    ("character", "sd15"): 75, ("style", "sd15"): 109, ("object", "sd15"): 75,
    ("character", "sdxl"): 340, ("style", "sdxl"): 681, ("object", "sdxl"): 340,
}  # fmt: skip
SD15 = "The size that SD 1.5 was made for."
# Size, batches and memory, by family and gigabytes.
OF_MEMORY: Mapping[tuple[str, int], tuple[Choice, ...]] = {
    ("sd15", 6): (
        Choice("resolution", 512, SD15),
        *_batch(1, 6),
        _fit("Saves memory only if other programs leave less than the 4 GB it is to need."),
    ),
    ("sd15", 8): (
        Choice("resolution", 512, SD15),
        *_batch(1, 8),
        _fit("Saves memory only if other programs leave less than the 4 GB it is to need."),
    ),
    ("sd15", 12): (Choice("resolution", 512, SD15), *_batch(2, 12)),
    ("sd15", 24): (Choice("resolution", 512, SD15), *_batch(4, 24)),
    ("sdxl", 6): (
        Choice("resolution", 1024, "The size that SDXL was made for; 768 is faster where memory is short."),
        *_batch(1, 6),
        _fit("Lets blocks of the UNet, which alone takes 5.1 GB, wait in the computer's memory: 3.4 to 4.6 GB are predicted so."),
    ),
    ("sdxl", 8): (
        Choice("resolution", 1024, "The size that SDXL was made for; 768 is faster where memory is short."),
        *_batch(1, 8),
        _fit("Computes activations twice, 7.2 GB are predicted so; a card with less left lets blocks of the UNet wait in the computer's memory."),
    ),
    ("sdxl", 12): (
        Choice("resolution", 1024, "The size that SDXL was made for; 768 if memory runs out."),
        *_batch(1, 12),
        *_checkpointing("Activations at 1024 would take more than the weights leave."),
    ),
    ("sdxl", 24): (
        Choice("resolution", 1024, "The size that SDXL was made for."),
        *_batch(2, 24),
        *_checkpointing("Makes room for two samples at once; false with train_batch_size = 1 is faster a step."),
    ),
}


def _text(subject: str, family: str, memory: int) -> tuple[Choice, ...]:
    """Train the text encoder where a word is to be learned and memory allows it."""
    if subject == "style":
        why = "A manner lies in the UNet, and a frozen text encoder keeps the meaning of all other words."
    elif family == "sdxl":
        why = "SDXL's two encoders know enough words, take 1.6 GB, and are the first to be overtrained."
    elif memory < 8:
        why = "Its gradients would need memory that the UNet needs more."
    else:
        return TRAINED_TEXT
    return (Choice("train_text_encoder", False, why), WORDINGS)


def _optimizer(subject: str, family: str, memory: int) -> Choice:
    """Take the 8-bit AdamW where its memory counts: two numbers a trained weight, 4 bytes each, against 1 byte."""
    megabytes = MOMENTS[subject, family]
    if family == "sdxl" and memory <= 8:
        reason = f"AdamW's two moments take {megabytes} MB at this rank, in 8 bits a quarter; the extra 8bit installs it, and adamw does without."
        return Choice("optimizer", "adamw8bit", reason)
    return Choice(
        "optimizer", "adamw", f"Its two moments take {megabytes} MB at this rank, which 8 bits would make a quarter: too little to matter here."
    )


def _preset(subject: str, family: str, memory: int) -> Preset:
    description = f"{SUBJECTS[subject]}; {FAMILIES[family]}; {memory} GB"
    text, optimizer = _text(subject, family, memory), _optimizer(subject, family, memory)
    choices = (*OF_SUBJECT[subject], *OF_MEMORY[family, memory], *OF_FAMILY[family], *text, optimizer, *COMMON)
    return Preset(f"{subject}-{family}-{memory}gb", description, choices)


PRESETS: dict[str, Preset] = {
    preset.name: preset for subject in SUBJECTS for family in FAMILIES for memory in MEMORY for preset in (_preset(subject, family, memory),)
}


def find_preset(name: str) -> Preset:
    """Return a preset by name, however it is written ("Style SDXL 12 GB"); raises UserError if there is none."""
    plain = name.lower().replace(" ", "-").replace("_", "-").replace("1.5", "15").replace("-gb", "gb")
    plain = plain if plain.endswith("gb") else f"{plain}gb"
    if plain not in PRESETS:
        words = f"{' or '.join(SUBJECTS)}, {' or '.join(FAMILIES)}, and {', '.join(f'{memory}gb' for memory in MEMORY)}"
        raise UserError(f"there is no preset {name!r}; a name has {words}, such as character-sdxl-12gb")
    return PRESETS[plain]
