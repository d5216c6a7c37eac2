"""Names: when two spellings are one tag, and how the character's own name leaves a caption and the keyword enters it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from prep.captions import join, parse, wordings


@lru_cache(maxsize=65536)
def fold(tag: str) -> str:
    """Return the form in which spellings of one tag are equal: case, underscores and spaces do not count."""
    return " ".join(tag.replace("_", " ").casefold().split())


@lru_cache(maxsize=65536)
def singular(tag: str) -> str:
    """Fold a tag and take the plural s off its end, so that breasts is breast and cat ears is cat ear (and no glass is a glas)."""
    name = fold(tag)
    return name[:-1] if len(name) > 3 and name.endswith("s") and name[-2:-1].isalpha() and not name.endswith("ss") else name


@lru_cache(maxsize=64)
def matcher(patterns: str) -> re.Pattern[str]:
    """Make one pattern of a list with commas, for `singular` tags; only * is special, because ? and [ occur in tags such as !? and :["""
    return re.compile("|".join(".*".join(map(re.escape, singular(pattern).split("*"))) for pattern in parse(patterns)))


def without_name(tags: Iterable[str], full_name: str, sentences: bool = True) -> list[str]:
    """Leave out a character's name: the tags name, name_(series), name (series), in any case and spelling.

    With `sentences` a name of two words or more is also taken out of longer texts; one word alone may be an ordinary word there.
    """
    tags = list(tags)
    for alias in parse(full_name):
        name = bare(alias)
        tags = [tag for tag in tags if bare(tag) != name]
        if sentences and " " in name:
            pattern = _spoken(name)
            # A tag without the name stays as it is, to the letter.
            tags = [" ".join(pattern.sub(" ", tag).split()) if pattern.search(tag) else tag for tag in tags]
    return [tag for tag in tags if tag]


def nameless(text: str, full_name: str) -> str:
    """Return captions, one a line, without a character's name; to the letter if it is not in them."""
    if not full_name:
        return text
    found = [(line, parse(line)) for line in text.split("\n")]
    left = [(line, tags, without_name(tags, full_name)) for line, tags in found]
    return "\n".join(line if kept == tags else join(kept) for line, tags, kept in left)


@lru_cache(maxsize=65536)
def bare(tag: str) -> str:
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

    Each line is a caption. One that is so already is returned as it is, to the letter.
    """
    if "\n" in text:
        return "\n".join(with_keyword(line, keyword, full_name, old_keyword) for line in wordings(text))
    tags = parse(text)
    ours = {fold(keyword), fold(old_keyword)}
    kept = without_name((tag for tag in tags if fold(tag) not in ours), full_name)
    new = [keyword, *kept]
    return text if new == tags else join(new)
