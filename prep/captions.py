"""Captions: the one rule by which tags become caption text and text becomes tags, for prep and for the trainer."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path

from prep.options import UserError

# Danbooru's faces made of punctuation: their underscores are part of the drawing, not spaces.
KAOMOJI = frozenset(
    (
        "0_0",
        "(o)_(o)",
        "+_+",
        "+_-",
        "._.",
        "<o>_<o>",
        "<|>_<|>",
        "=_=",
        ">_<",
        "3_3",
        "6_9",
        ">_o",
        "@_@",
        "^_^",
        "o_o",
        "u_u",
        "x_x",
        "|_|",
        "||_||",
    )
)


def parse(text: str) -> list[str]:
    """Split a caption on its commas into stripped tags, in their order; blank ones are dropped."""
    return [tag for part in text.split(",") if (tag := part.strip())]


def wordings(text: str) -> list[str]:
    """Split the text of a caption file into its captions, one a line, of which the trainer's enable_wildcard picks one each time."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_by_training(text: str, enable_wildcard: bool) -> list[str]:
    """Return the captions of a file that are trained on: all of them with enable_wildcard, else the first."""
    lines = wordings(text)
    return lines if enable_wildcard else lines[:1]


def join(tags: Iterable[str]) -> str:
    """Write tags as a caption; raises ValueError for a tag with a comma, which would read back as two."""
    tags = list(tags)
    for tag in tags:
        if "," in tag:
            raise ValueError(f"tag {tag!r} holds a comma")
    return ", ".join(tags)


def to_words(tag: str) -> str:
    """Write a Danbooru tag as words: underscores become spaces, except in kaomoji."""
    return tag if tag in KAOMOJI else " ".join(tag.replace("_", " ").split()) or tag


def caption_path(picture: Path) -> Path:
    """Return where the caption of a picture lies: STEM.txt beside it."""
    return picture.with_suffix(".txt")


def read_caption(picture: Path) -> str | None:
    """Read STEM.txt, else STEM.caption, as UTF-8 with or without a byte order mark; None if there is neither.

    Line ends become LF and the ends are stripped; raises UserError if the file is not UTF-8.
    """
    stem = os.path.splitext(picture)[0]  # as Path.with_suffix, at a tenth of its time
    for path in (f"{stem}.txt", f"{stem}.caption"):
        try:
            with open(path, "rb") as file:
                text = file.read().decode("utf-8-sig")
        except FileNotFoundError:
            continue
        except UnicodeDecodeError:
            raise UserError(f"{path} is not UTF-8 text; save it as UTF-8 in your editor") from None
        return text.replace("\r\n", "\n").replace("\r", "\n").strip()
    return None


def shuffle(tags: list[str], keep_tokens: int, rng: random.Random) -> list[str]:
    """Return the tags with all but the first `keep_tokens` in an order drawn from `rng`."""
    rest = tags[keep_tokens:]
    rng.shuffle(rest)
    return tags[:keep_tokens] + rest
