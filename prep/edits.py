"""Edits: the pure functions that turn a picture's tags into the tags of its caption, and put the keyword into a text."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

from prep.captions import join, parse
from prep.options import option

# Who is in the picture comes first in a caption, in this order.
_COUNTS = [re.compile(rf"(\d+\+?|multiple_){who}s?") for who in ("girl", "boy", "other")] + list(map(re.compile, ("no_humans", "solo", "solo_focus")))


@dataclass(frozen=True)
class Policy:
    """How scores become a caption; these are settings of `prep caption`."""

    threshold: float | None = option(None, "-t", help="Score from which a general tag counts (default: the tagger's own).", min=0, max=1)
    character_threshold: float | None = option(None, help="Score from which a character's name counts (default: the tagger's own).", min=0, max=1)
    rating: str = option("none", help="Where the rating goes.", choices=("none", "first", "last"))
    blacklist: str = option("", help="Tags to leave out, by commas; * stands for any letters.")
    whitelist: str = option("", help="Leave out all tags but these, by commas; * stands for any letters.")
    top_k: int = option(0, help="At most so many tags, strongest kept (0: all).", min=0)
    prune: bool = option(True, help="Leave out a tag that another one implies (hat beside witch hat).")
    full_name: str = option("", help="The character's own name, left out in every form; several by commas.")


def drop_unwanted(tags: list[str], policy: Policy) -> list[str]:
    """Leave out what is blacklisted, not whitelisted, or the character's own name."""
    return [tag for tag in without_name(tags, policy.full_name, sentences=False) if wanted(tag, policy.blacklist, policy.whitelist)]


def drop_implied(tags: list[str], policy: Policy) -> list[str]:
    """Leave out each tag that follows from another one present; whole tags are compared, never parts of words."""
    if not policy.prune:
        return tags
    implied = set().union(*(implications(tag) for tag in tags))
    return [tag for tag in tags if tag not in implied]


def order(tags: list[str], policy: Policy) -> list[str]:
    """Put who is there (1girl, 1boy, solo) first; the rest keeps its order."""
    ranks = [next((rank for rank, count in enumerate(_COUNTS) if count.fullmatch(tag)), len(_COUNTS)) for tag in tags]
    return [tag for _, tag in sorted(zip(ranks, tags, strict=True), key=lambda pair: pair[0])]


def keep_strongest(tags: list[str], policy: Policy) -> list[str]:
    """Cut the list to the policy's length; the weakest tags stand at its end."""
    return tags[: policy.top_k or None]


# Applied from top to bottom to tags in Danbooru's spelling: characters by falling score, then general tags by falling score.
EDITS: dict[str, Callable[[list[str], Policy], list[str]]] = {
    "unwanted": drop_unwanted,
    "implied": drop_implied,
    "order": order,
    "strongest": keep_strongest,
}


def fold(tag: str) -> str:
    """Return the form in which spellings of one tag are equal: case, underscores and spaces do not count."""
    return " ".join(tag.replace("_", " ").casefold().split())


def wanted(tag: str, blacklist: str, whitelist: str) -> bool:
    """Say whether a tag passes both lists; an empty whitelist lets all pass."""
    name = fold(tag)
    return not (blacklist and _matcher(blacklist).fullmatch(name)) and (not whitelist or _matcher(whitelist).fullmatch(name) is not None)


@lru_cache(maxsize=64)
def _matcher(patterns: str) -> re.Pattern[str]:
    """Make one pattern of a list; only * is special, because ? and [ occur in tags such as !? and :["""
    return re.compile("|".join(".*".join(map(re.escape, fold(pattern).split("*"))) for pattern in parse(patterns)))


@cache
def _rules() -> dict[str, frozenset[str]]:
    """Read prep/data/implications.csv: tag -> the tags that it implies directly."""
    rules: dict[str, set[str]] = {}
    text = resources.files("prep").joinpath("data/implications.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        rules.setdefault(row["antecedent"], set()).add(row["consequent"])
    return {tag: frozenset(implied) for tag, implied in rules.items()}


@cache
def implications(tag: str) -> frozenset[str]:
    """Return all tags that a tag implies, directly or through others."""
    rules, found, todo = _rules(), set[str](), [tag]
    while todo:
        new = rules.get(todo.pop(), frozenset()) - found
        found |= new
        todo += new
    return frozenset(found - {tag})


def without_name(tags: Iterable[str], full_name: str, sentences: bool = True) -> list[str]:
    """Leave out a character's name: the tags name, name_(series), name (series), in any case and spelling.

    With `sentences` a name of two words or more is also taken out of longer texts; one word alone may be an ordinary word there.
    """
    tags = list(tags)
    for alias in parse(full_name):
        name = _bare(alias)
        tags = [tag for tag in tags if _bare(tag) != name]
        if sentences and " " in name:
            pattern = _spoken(name)
            # A tag without the name stays as it is, to the letter.
            tags = [" ".join(pattern.sub(" ", tag).split()) if pattern.search(tag) else tag for tag in tags]
    return [tag for tag in tags if tag]


def _bare(tag: str) -> str:
    """Fold a tag and take the bracketed series and costume off its end."""
    name = fold(tag.replace("\\", ""))
    return re.sub(r"(?: ?\([^()]*\))+$", "", name) or name


@lru_cache(maxsize=64)
def _spoken(name: str) -> re.Pattern[str]:
    """Match a folded name as whole words in a text, with its series in brackets and a possessive 's."""
    words = r"[\s_]+".join(re.escape(word) for word in name.split())
    return re.compile(rf"(?<!\w){words}(?:[\s_]*\\?\([^()]*\))*(?:['’]s)?(?!\w)", re.IGNORECASE)


def with_keyword(text: str, keyword: str, full_name: str = "", old_keyword: str = "") -> str:
    """Return a caption with the keyword as its first tag, once, and without the character's name or an older keyword.

    A text that is so already is returned as it is, to the letter.
    """
    tags = parse(text)
    ours = {fold(keyword), fold(old_keyword)}
    kept = without_name((tag for tag in tags if fold(tag) not in ours), full_name)
    new = [keyword, *kept]
    return text if new == tags else join(new)
