"""The blocks of a UNet as the field numbers them, for settings that differ by block: 25 in SD 1.x and 2.x, 23 in SDXL."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from prep.options import UserError


@dataclass(frozen=True)
class Numbering:
    """How many blocks a UNet has, and which of them the three lists of weights (down, mid, up) are for."""

    count: int
    down: range
    mid: range
    up: range


# Block 0 is what stands before the first (SD: conv_in; SDXL: time and label), where no adapter sits; SDXL's 22 is the output.
SD = Numbering(25, range(12), range(12, 13), range(13, 25))
SDXL = Numbering(23, range(1, 10), range(10, 13), range(13, 22))

_SD_PLACE = re.compile(r"lora_unet_(down|up)_blocks_(\d+)_(attentions|resnets|downsamplers|upsamplers)_(\d+)_")
_SDXL_PLACE = re.compile(r"lora_unet_(input_blocks|middle_block|output_blocks)_(\d+)_")
_SDXL_FIRST = {"input_blocks": 1, "middle_block": 10, "output_blocks": 13}


def numbering_of(names: Sequence[str]) -> Numbering:
    """Say which numbering layers with these names (kohya's) have."""
    return SDXL if any(_SDXL_PLACE.match(name) for name in names) else SD


def block_index(name: str) -> int | None:
    """Return the block of a UNet layer under kohya's name; None for one of a text encoder."""
    if match := _SDXL_PLACE.match(name):
        return _SDXL_FIRST[match[1]] + int(match[2])
    if match := _SD_PLACE.match(name):
        side, level, group, index = match.groups()
        inner = 2 if group.endswith("samplers") else int(index)
        return (1 if side == "down" else 13) + 3 * int(level) + inner
    return 12 if name.startswith("lora_unet_mid_block_") else None


# Named courses of weights along the blocks of a list, from 0 to 1 or back; x runs from 0 to 1.
COURSES = {
    "sine": lambda x: math.sin(math.pi / 2 * x),
    "cosine": lambda x: math.cos(math.pi / 2 * x),
    "linear": lambda x: x,
    "reverse_linear": lambda x: 1 - x,
    "zeros": lambda x: 0.0,
}


def block_weights(text: str, count: int, setting: str) -> list[float]:
    """Read a list of `count` weights, or a course with a number added to it such as "cosine+.25"; raises UserError."""
    name, _, base = text.partition("+")
    if name.strip() in COURSES:
        course, added = COURSES[name.strip()], numbers(base or "0", setting)[0]
        return [course(i / max(1, count - 1)) + added for i in range(count)]
    found = numbers(text, setting)
    if len(found) != count:
        raise UserError(f"{setting} has {len(found)} numbers, but this base has {count} such blocks; give {count}, or one of {', '.join(COURSES)}")
    return found


def numbers(text: str, setting: str) -> list[float]:
    """Read numbers between commas or spaces; raises UserError."""
    try:
        found = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise UserError(f'{setting} = "{text}" is no list of numbers; write it as "4,8,8,16"') from None
    if not found or any(not math.isfinite(value) or value < 0 for value in found):
        raise UserError(f'{setting} = "{text}" holds no numbers, or one below 0; write it as "4,8,8,16"')
    return found
