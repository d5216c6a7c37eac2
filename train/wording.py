"""The wording of a caption at each use: prefix, wildcards, shuffle, and what is dropped; pure but for the given source of chance."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prep.captions import parse
from train.emphasis import split_tags

if TYPE_CHECKING:
    from train.config import DataConfig

_CHOICE = re.compile(r"\{([^{}]*)\}")
# Braces that are meant as such are written twice; they become signs of no alphabet while choices are made.
_BRACES = (("{{", "\ue000", "{"), ("}}", "\ue001", "}"))


@dataclass(frozen=True)
class Moment:
    """When in a run a caption is used; `epoch` and `step` count from 0, `steps` is how many there are in all."""

    epoch: int = 0
    step: int = 0
    steps: int = 0


def vary_caption(caption: str, data: DataConfig, rng: random.Random, moment: Moment | None = None) -> str:
    """Drop the whole caption at the set rate or in every n-th epoch, else word it anew or, with caption_variants, in one of its wordings."""
    moment, every = moment or Moment(), data.caption_dropout_every_n_epochs
    if rng.random() < data.caption_dropout_rate or (every and (moment.epoch + 1) % every == 0):
        return ""
    if data.caption_variants and varies(data):
        return _variant(caption, data, rng.randrange(data.caption_variants))
    return worded(caption, data, rng, moment)


def conflicts_of_data(data: DataConfig) -> Iterator[tuple[bool, str]]:
    """Yield (whether it is wrong, the sentence) for settings of captions that cannot stand together."""
    yield (
        bool(data.caption_variants and data.token_warmup_step),
        "caption_variants makes wordings before training, so captions cannot grow under token_warmup_step; set one of them",
    )
    for name in ("keep_tokens_separator", "secondary_separator"):
        yield "," in getattr(data, name), f"{name} holds a comma, which parts tags; take another sign, such as ||| or ;;;"
    yield (
        bool(data.secondary_separator) and data.secondary_separator == data.keep_tokens_separator,
        "keep_tokens_separator and secondary_separator are the same; make them differ",
    )


def varies(data: DataConfig) -> bool:
    """Tell whether a caption that is not dropped may be worded differently from use to use."""
    return data.shuffle_caption or data.caption_tag_dropout_rate > 0 or data.enable_wildcard or data.token_warmup_step > 0


def drops(data: DataConfig) -> bool:
    """Tell whether whole captions are dropped at times."""
    return data.caption_dropout_rate > 0 or data.caption_dropout_every_n_epochs > 0


def all_wordings(caption: str, data: DataConfig) -> set[str] | None:
    """List all that `vary_caption` may make of a caption; None if that is without end."""
    if varies(data) and not data.caption_variants:
        return None
    found = {_variant(caption, data, number) for number in range(data.caption_variants if varies(data) else 1)}
    return found | {""} if drops(data) else found


def _variant(caption: str, data: DataConfig, number: int) -> str:
    """Word a caption in its n-th way, which depends on nothing else: another run, with another seed, finds it encoded."""
    return worded(caption, data, random.Random(f"{number}/{caption}"), Moment())


def worded(caption: str, data: DataConfig, rng: random.Random, moment: Moment) -> str:
    """Apply what the settings say, in sd-scripts' order: prefix and suffix, wildcards, warm-up, shuffle, dropped tags."""
    lines = caption.splitlines() or [""]
    line = rng.choice(lines) if data.enable_wildcard and len(lines) > 1 else lines[0]
    text = " ".join(part for part in (data.caption_prefix, line.strip(), data.caption_suffix) if part)
    if data.enable_wildcard:
        text = chosen(text, rng)
    separator = data.keep_tokens_separator
    if data.shuffle_caption or data.caption_tag_dropout_rate or data.token_warmup_step or (separator and separator in text):
        head, loose, tail = split_fixed(text, data)
        loose = loose[: warmed_up(len(loose), data, moment)]
        if data.shuffle_caption:
            rng.shuffle(loose)
        if data.caption_tag_dropout_rate:
            loose = [tag for tag in loose if rng.random() >= data.caption_tag_dropout_rate]
        text = ", ".join((*head, *loose, *tail))
    return text.replace(data.secondary_separator, ",") if data.secondary_separator else text


def split_fixed(text: str, data: DataConfig) -> tuple[list[str], list[str], list[str]]:
    """Split a caption into the tags that stay in front, those that are free, and those that stay at the end.

    One keep_tokens_separator ends the front and a second one begins the end; without one the first keep_tokens tags are the front.
    """
    split = split_tags if data.weighted_captions else parse
    separator = data.keep_tokens_separator
    if separator and separator in text:
        head, *rest = (split(part) for part in text.split(separator, 2))
        return head, rest[0], rest[1] if len(rest) > 1 else []
    tags = split(text)
    return tags[: data.keep_tokens], tags[data.keep_tokens :], []


def warmed_up(count: int, data: DataConfig, moment: Moment) -> int:
    """Say how many of so many free tags are used at a moment: from token_warmup_min they grow evenly to all at token_warmup_step.

    A token_warmup_step under 1 is a share of the run's steps.
    """
    end = data.token_warmup_step if data.token_warmup_step >= 1 else math.floor(data.token_warmup_step * moment.steps)
    if not end or moment.step >= end:
        return count
    return min(count, math.floor(moment.step * (count - data.token_warmup_min) / end) + data.token_warmup_min)


def chosen(text: str, rng: random.Random) -> str:
    """Put one of its choices in the place of each {a|b}, the inner ones first; {{ and }} are plain braces."""
    for doubled, stand_in, _ in _BRACES:
        text = text.replace(doubled, stand_in)
    while match := _CHOICE.search(text):
        text = text[: match.start()] + rng.choice(match[1].split("|")) + text[match.end() :]
    for _, stand_in, brace in _BRACES:
        text = text.replace(stand_in, brace)
    return text
