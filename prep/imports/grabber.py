"""Grabber: the log that Imgbrd-Grabber writes beside a picture, whose separators and namespaces the user chose."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

from prep.captions import parse
from prep.imports import CATEGORIES, RATINGS, Asked, Found, beside, tidy
from prep.options import UserError
from prep.rules import rules_of
from prep.traits import is_trait

# Only these words before a colon are namespaces: re:zero, :d and :p are tags.
NAMESPACE = re.compile(rf"({'|'.join(CATEGORIES)}):(?=\S)", re.IGNORECASE)
PROSE = 6  # words in a line from which it is a sentence and no tag

# What stands between tags, as --separator names it.
SEPARATORS: dict[str, Callable[[str], list[str]]] = {
    "newline": str.splitlines,
    "comma": parse,
    "space": str.split,
}


def read(source: Path, asked: Asked) -> Found | None:
    """Read STEM.txt or STEM.EXT.txt, unless it is a sentence or, with nothing asked, a plain list with commas, which is a caption."""
    for path in beside(source, ".txt"):
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"{path} is not UTF-8 text; save it as UTF-8 in your editor") from None
        if text.strip() and (asked.separator or is_log(text)):
            return Found(path, tags_of(text, asked.separator, path))
    return None


def is_log(text: str) -> bool:
    """Say whether a text looks like a list by a program, and not like what a person wrote: a sentence, or tags with commas."""
    lines = [line for line in text.splitlines() if line.strip()]
    if any(len(line.split()) >= PROSE and "_" not in line and not NAMESPACE.search(line) for line in lines) or text.rstrip().endswith("."):
        return False
    return len(lines) > 1 or bool(NAMESPACE.search(text)) or "," not in text


def tags_of(text: str, separator: str, path: Path) -> dict[str, list[str]]:
    """Split a log into tags by category; raises UserError, which asks for the separator, if blanks may stand in and between tags."""
    found: dict[str, list[str]] = {}
    for tag in split(text.strip(), separator, path):
        match = NAMESPACE.match(tag)
        category = CATEGORIES[match[1].lower()] if match else "general"
        name = tag[match.end() :] if match else tag
        if category == "rating":
            name = RATINGS.get(name.strip().lower(), "")
        found.setdefault(category, []).append(name)
    return tidy(found)


def split(text: str, separator: str, path: Path) -> list[str]:
    """Split by what was asked for; else by lines, else by commas, else by blanks."""
    if separator in SEPARATORS:
        return SEPARATORS[separator](text)
    if separator:
        return [tag for part in text.split(separator) if (tag := part.strip())]
    if "\n" in text:
        return [line.strip() for line in text.splitlines() if line.strip()]
    if "," in text and ", " in text + " ":
        return parse(text)
    words = text.split()
    if _ambiguous(words):
        raise UserError(
            f"{path} has blanks, and nothing says whether they stand between tags or in them ({text[:60]!r}); "
            "say it with --separator space, comma, newline, or the sign that stands between tags"
        )
    return words


def _ambiguous(words: list[str]) -> bool:
    """Tell whether blanks may stand in tags: no tag has an underscore, and neighbours, or a namespace's words, make a tag that exists."""
    if len(words) < 2 or any("_" in word.strip("_") for word in words) or all(map(NAMESPACE.match, words)):
        return False
    if any(map(NAMESPACE.match, words)):
        return True
    pairs = (f"{first}_{second}".lower() for first, second in pairwise(words))
    return any(pair in _known() or is_trait(pair) for pair in pairs)


@cache
def _known() -> frozenset[str]:
    """List all tags of the rules that ship."""
    rules = rules_of()
    return frozenset().union(rules.aliases, rules.aliases.values(), rules.implications, *rules.implications.values())
