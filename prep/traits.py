"""Traits: which tags say how a character looks, so that what never changes can be left to the keyword."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache, lru_cache
from importlib import resources

from prep.names import matcher, singular
from prep.rules import Rules

OTHER = "other"  # the family of traits that may well go together
# Tags by which several people are known; solo ones never match.
SEVERAL = re.compile(r"([2-9]|\d\d|[2-6]\+|multiple_)(girl|boy|other)s")
ONE = frozenset(("1girl", "1boy", "1other"))


@cache
def _families() -> tuple[dict[str, re.Pattern[str]], re.Pattern[str]]:
    """Read prep/data/traits.txt: family -> pattern of its tags, and the pattern of what is no trait after all."""
    found: dict[str, list[str]] = {}
    for line in resources.files("prep").joinpath("data/traits.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            name, _, tags = line[1:].partition("] ")
            found.setdefault(name, []).append(tags)
        elif line.startswith("! "):
            found.setdefault("!", []).append(line[2:])
    patterns = {name: matcher(", ".join(lines)) for name, lines in found.items()}
    return patterns, patterns.pop("!")


@lru_cache(maxsize=65536)
def family(tag: str) -> str:
    """Name the family of a trait, such as "hair colour"; "" for a tag that is no trait. Sleeves are told apart, but are clothes."""
    families, never = _families()
    name = singular(tag)
    found = next((family for family, pattern in families.items() if pattern.fullmatch(name)), "")
    return "" if found == OTHER and never.fullmatch(name) else found


def is_trait(tag: str) -> bool:
    """Say whether a tag names a part of how somebody looks whatever they wear and do."""
    return family(tag) not in ("", "sleeves") and not _families()[1].fullmatch(singular(tag))


def several(tags: Iterable[str]) -> bool:
    """Say whether the tags count more than one person."""
    tags = list(tags)
    return any(map(_several, tags)) or len(ONE.intersection(tags)) > 1


@lru_cache(maxsize=65536)
def _several(tag: str) -> bool:
    return SEVERAL.fullmatch(tag) is not None


def mixed(tags: Iterable[str], rules: Rules) -> dict[str, list[str]]:
    """Return the families of which several tags are there, neither of which follows from the other: family -> its tags."""
    found: dict[str, list[str]] = {}
    for tag in tags:
        if family(tag) not in ("", OTHER):
            found.setdefault(family(tag), []).append(tag)
    apart = {name: [tag for tag in group if not any(tag in rules.implied(other) for other in group)] for name, group in found.items()}
    return {name: found[name] for name, group in apart.items() if len(group) > 1}


def constant(pictures: Iterable[Iterable[str]], share: float, rules: Rules) -> dict[str, float]:
    """Return the traits that at least `share` (0..1) of the pictures show, and the share that do; a tag's implications count with it."""
    counts: Counter[str] = Counter()
    total = 0
    for tags in pictures:
        total += 1
        counts.update({trait for tag in tags for trait in (tag, *rules.implied(tag)) if is_trait(trait)})
    return {tag: count / total for tag, count in sorted(counts.items()) if count >= share * total}
