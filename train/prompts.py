"""Prompts of sample pictures: from the settings, or from a file in the syntax of sd-scripts."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prep.options import UserError
from train.config import TrainConfig

SEEDS = 4  # pictures of a prompt that names no seed
# Flag of a line -> the field it sets and how it is read (docs of kohya-ss/sd-scripts, gen_img and train_network).
FLAGS: dict[str, tuple[str, Any]] = {
    "n": ("negative_prompt", str),
    "w": ("width", int),
    "h": ("height", int),
    "d": ("seed", int),
    "s": ("steps", int),
    "l": ("guidance_scale", float),
}
OTHERS = ("ss", "g", "cn", "ctr", "rcfg", "fs", "am")  # flags of other samplers and models; they change nothing here


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt and how it is drawn; a size of 0 is the training's, no seed means several."""

    prompt: str
    steps: int
    guidance_scale: float
    negative_prompt: str = ""
    width: int = 0
    height: int = 0
    seed: int | None = None

    def seeds(self, first: int) -> list[int]:
        return [first + i for i in range(SEEDS)] if self.seed is None else [self.seed]

    def words(self, seed: int) -> str:
        """Write how a picture was drawn, as web UIs write it into their PNG files."""
        negative = f"\nNegative prompt: {self.negative_prompt}" if self.negative_prompt else ""
        return f"{self.prompt}{negative}\nSteps: {self.steps}, Sampler: DDIM, CFG scale: {self.guidance_scale:g}, Seed: {seed}"


def sample_prompts(config: TrainConfig) -> list[SamplePrompt]:
    """Return the prompts of a run's sample pictures; none if the settings ask for none. Raises UserError for a file that cannot be read."""
    output = config.output
    plain = SamplePrompt("", output.sample_steps, output.guidance_scale)
    if not output.sample_steps:
        return []
    asked = output.sample_prompts or ", ".join(filter(None, (config.data.keyword, config.data.class_)))
    return read_prompts(asked, plain, "sample_prompts")


def read_prompts(asked: str, plain: SamplePrompt, name: str) -> list[SamplePrompt]:
    """Read prompts separated by |, or the lines of a .txt file; raises UserError, with the setting's `name`, if it cannot be read."""
    if not asked.endswith(".txt"):
        return [replace(plain, prompt=prompt.strip()) for prompt in asked.split("|") if prompt.strip()]
    try:
        lines = Path(asked).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{name} {asked} cannot be read ({error}); give a UTF-8 text file, or prompts separated by |") from None
    return [parse_line(line, plain) for line in lines if line.strip() and not line.lstrip().startswith("#")]


def parse_line(line: str, plain: SamplePrompt) -> SamplePrompt:
    """Read `prompt --n negative --w 512 --h 768 --d seed --s steps --l scale`; raises UserError for a flag that is none."""
    text, *parts = re.split(r"\s--(?=[a-z])", " " + line.strip())
    fields: dict[str, Any] = {"prompt": text.strip()}
    for part in parts:
        flag, _, value = part.partition(" ")
        if flag in OTHERS:
            continue
        try:
            name, kind = FLAGS[flag]
            fields[name] = kind(value.strip())
        except (KeyError, ValueError):
            raise UserError(f"the sample prompt {line.strip()!r} has --{part.strip()}, which cannot be read; known are {', '.join(FLAGS)}") from None
    return replace(plain, **fields)
