"""Template: how a picture's tags and sentences become its captions, for bases that were trained on sentences."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from prep.captions import join
from prep.options import UserError

FIELD = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class Parts:
    """What a caption is put together of."""

    keyword: str
    tags: list[str]
    sentence: str = ""


# What stands in braces -> what is put there.
FIELDS: dict[str, Callable[[Parts], str]] = {
    "{keyword}": lambda parts: parts.keyword,
    "{tags}": lambda parts: join(parts.tags),
    "{sentence}": lambda parts: parts.sentence,
    "{caption}": lambda parts: parts.sentence or join(parts.tags),
}
SPOKEN = ("{sentence}", "{caption}")  # those that differ from sentence to sentence


def check(template: str) -> None:
    """Raise UserError for a template with an unknown field, or without any that differs between pictures."""
    found = FIELD.findall(template)
    strange = [name for name in found if name not in FIELDS]
    if strange:
        raise UserError(f"template: {strange[0]} is no field; they are {', '.join(FIELDS)}")
    if template and not set(found) - {"{keyword}"}:
        raise UserError(f"template {template!r} would give all pictures one caption; put {{tags}}, {{sentence}} or {{caption}} into it")


def speaks(template: str) -> bool:
    """Say whether sentences of `prep describe` are in a template."""
    return any(name in template for name in SPOKEN)


def fill(template: str, parts: Parts, sentences: list[str], most: int = 0) -> str:
    """Fill a template in, once for each sentence of `prep describe`, the likeliest first; each is a line, and at most `most` (0: all) are."""
    spoken = list(map(_plain, sentences)) if speaks(template) else []
    captions = [_filled(template, replace(parts, sentence=sentence)) for sentence in spoken[: most or None] or [""]]
    return "\n".join(dict.fromkeys(captions))


def _plain(sentence: str) -> str:
    """Put a sentence on one line and take off its stop, which would stand before a comma."""
    return " ".join(sentence.split()).rstrip(".")


def _filled(template: str, parts: Parts) -> str:
    """Fill in one caption; commas and blanks around what is empty go."""
    text = FIELD.sub(lambda found: FIELDS[found[0]](parts), template)
    pieces = [" ".join(piece.split()) for piece in text.split(",")]
    return ", ".join(filter(None, pieces))
