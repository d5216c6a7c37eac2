"""Edits: the pure functions that turn a picture's tags into the tags of its caption, and say of each tag why it went."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path

from prep.captions import parse, to_words
from prep.names import bare, fold, matcher, singular, with_keyword, without_name
from prep.options import UserError, option
from prep.rules import rules_of
from prep.traits import mixed, several

__all__ = ["EDITS", "REASONS", "Policy", "fold", "wanted", "with_keyword", "without_name"]

# Who is in the picture comes first in a caption, in this order.
_COUNTS = [re.compile(rf"(\d+\+?|multiple_){who}s?") for who in ("girl", "boy", "other")] + list(map(re.compile, ("no_humans", "solo", "solo_focus")))
UNSEEN = "@unseen"  # in a blacklist it stands for prep/data/unseen.txt
ARROW = "=>"  # between what is replaced and by what


@dataclass(frozen=True)
class Policy:
    """How scores become a caption; these are settings of `prep caption`."""

    threshold: float | None = option(None, "-t", help="Score from which a general tag counts (default: the tagger's own).", min=0, max=1)
    character_threshold: float | None = option(None, help="Score from which a character's name counts (default: the tagger's own).", min=0, max=1)
    copyright_threshold: float | None = option(None, help="Score from which the name of a work counts (default: the tagger's own).", min=0, max=1)
    artist_threshold: float | None = option(None, help="Score from which an artist's name counts (default: the tagger's own).", min=0, max=1)
    meta_threshold: float | None = option(None, help="Score from which a meta tag counts (default: the tagger's own).", min=0, max=1)
    mcut: bool = option(False, help="Cut each picture's tags where the scores fall most (MCut), instead of at thresholds.")
    categories: str = option("character, copyright, artist, general", help="Which kinds of tags a caption holds; meta is another.")
    rating: str = option("none", help="Where the rating goes.", choices=("none", "first", "last"))
    imported: str = option(
        "merge", help="Tags from `prep import`: merge, as sure ones; only, where there are any; ignore.", choices=("merge", "only", "ignore")
    )
    blacklist: str = option("", help="Tags to leave out, by commas; * stands for any letters, @unseen for a list of what no picture shows.")
    whitelist: str = option("", help="Leave out all tags but these, by commas; * stands for any letters.")
    top_k: int = option(0, help="At most so many tags, strongest kept (0: all).", min=0)
    prune: bool = option(True, help="Leave out a tag that another one implies (hat beside witch hat).")
    expand: bool = option(False, help="Add the tags that a tag implies; with --no-prune they stay.")
    rules: str = option("", help="A CSV antecedent,consequent[,kind] of more implications and aliases.")
    drop_mixed: bool = option(True, help="Where several people are, leave out hair, eyes and sleeves that differ: nothing says whose they are.")
    absorb: float = option(
        0.0, help="Leave out looks (hair, eyes, ears) that at least this share of the pictures show, for the keyword; 0: none.", min=0, max=1
    )
    full_name: str = option("", help="The character's own name, left out in every form; several by commas.")
    words: str = option("", help="Words for tags: photo (1girl becomes woman), or a CSV tag,words.")
    replace: str = option("", help="Tags to put in place of others: 'long hair => long-haired, solo =>'; nothing leaves the tag out.")
    regex: str = option("", help="The same by pattern, one a line: '(\\w+) dress => dress in \\1'; the pattern is matched to a tag's words.")
    escape: bool = option(False, help="Write \\( and \\) as prompts need them; training captions must not.")

    constants: Mapping[str, float] = field(default_factory=dict)  # trait -> share of the pictures that show it; found by `absorb`


Tags = list[str]


def rename(tags: Tags, policy: Policy) -> Tags:
    """Put the proper name in place of an alias."""
    aliases = rules_of(policy.rules).aliases
    return list(dict.fromkeys([aliases.get(tag, tag) for tag in tags]))


def drop_unwanted(tags: Tags, policy: Policy) -> Tags:
    """Leave out what is blacklisted, not whitelisted, or the character's own name."""
    if not (policy.full_name or policy.blacklist or policy.whitelist):
        return tags
    return [tag for tag in without_name(tags, policy.full_name, sentences=False) if wanted(tag, policy.blacklist, policy.whitelist)]


def drop_constant(tags: Tags, policy: Policy) -> Tags:
    """Leave out the looks that the keyword stands for."""
    return [tag for tag in tags if tag not in policy.constants]


def drop_mixed(tags: Tags, policy: Policy) -> Tags:
    """Where there are several people, leave out looks that differ between them."""
    if not policy.drop_mixed or not several(tags):
        return tags
    gone = {tag for group in mixed(tags, rules_of(policy.rules)).values() for tag in group}
    return [tag for tag in tags if tag not in gone]


def add_implied(tags: Tags, policy: Policy) -> Tags:
    """Add what the tags imply, as Danbooru does, each after the tag that implies it."""
    if not policy.expand:
        return tags
    rules = rules_of(policy.rules)
    return list(dict.fromkeys(each for tag in tags for each in (tag, *sorted(rules.implied(tag))) if each == tag or _passes(each, policy)))


def drop_implied(tags: Tags, policy: Policy) -> Tags:
    """Leave out each tag that follows from another one present; whole tags are compared, never parts of words."""
    if not policy.prune:
        return tags
    implications = rules_of(policy.rules).implications
    implied = set().union(*[implications[tag] for tag in tags if tag in implications])
    return [tag for tag in tags if tag not in implied]


def order(tags: Tags, policy: Policy) -> Tags:
    """Put who is there (1girl, 1boy, solo) first; the rest keeps its order."""
    return sorted(tags, key=_rank)


def keep_strongest(tags: Tags, policy: Policy) -> Tags:
    """Cut the list to the policy's length; the weakest tags stand at its end."""
    return tags[: policy.top_k or None]


def put_words(tags: Tags, policy: Policy) -> Tags:
    """Put words in place of tags, by the list of words, then `replace`, then `regex`; each looks at a tag once."""
    if not (policy.words or policy.replace or policy.regex):
        return tags
    return list(dict.fromkeys(word for tag in tags for word in worded(tag, policy)))


# Applied from top to bottom to tags in Danbooru's spelling: characters by falling score, then works, artists, general tags likewise.
EDITS: dict[str, Callable[[Tags, Policy], Tags]] = {
    "alias": rename,
    "unwanted": drop_unwanted,
    "constant": drop_constant,
    "mixed": drop_mixed,
    "expanded": add_implied,
    "implied": drop_implied,
    "order": order,
    "strongest": keep_strongest,
    "words": put_words,
}


def _why_unwanted(tag: str, tags: Tags, policy: Policy) -> str:
    if any(bare(tag) == bare(name) for name in parse(policy.full_name)):
        return "the character's own name"
    return "blacklisted" if not wanted(tag, policy.blacklist, "") else "not in the whitelist"


def _why_mixed(tag: str, tags: Tags, policy: Policy) -> str:
    others = next(group for group in mixed(tags, rules_of(policy.rules)).values() if tag in group)
    return f"several people, and {', '.join(other for other in others if other != tag)} too"


# Edit -> why it left a tag out, from the tag and all that were there before the edit.
REASONS: dict[str, Callable[[str, Tags, Policy], str]] = {
    "alias": lambda tag, tags, policy: f"another name of {rules_of(policy.rules).proper(tag)}",
    "unwanted": _why_unwanted,
    "constant": lambda tag, tags, policy: f"the keyword stands for it, {policy.constants[tag]:.0%} of the pictures show it",
    "mixed": _why_mixed,
    "implied": lambda tag, tags, policy: "implied by " + next(other for other in tags if tag in rules_of(policy.rules).implied(other)),
    "strongest": lambda tag, tags, policy: f"beyond the {policy.top_k} strongest",
    "words": lambda tag, tags, policy: f"replaced by {', '.join(worded(tag, policy)) or 'nothing'}",
}


def wanted(tag: str, blacklist: str, whitelist: str) -> bool:
    """Say whether a tag passes both lists; an empty whitelist lets all pass, and a plural is its singular."""
    name = singular(tag)
    return not (blacklist and _listed(blacklist).fullmatch(name)) and (not whitelist or _listed(whitelist).fullmatch(name) is not None)


def _passes(tag: str, policy: Policy) -> bool:
    return tag not in policy.constants and bool(drop_unwanted([tag], policy))


@lru_cache(maxsize=64)
def _listed(patterns: str) -> re.Pattern[str]:
    """Make one pattern of a list, with the list that ships where the user's names it."""
    entries = parse(patterns)
    if UNSEEN in entries:
        text = resources.files("prep").joinpath("data/unseen.txt").read_text(encoding="utf-8")
        entries += parse(",".join(line for line in text.splitlines() if not line.startswith("#")))
    return matcher(",".join(entry for entry in entries if entry != UNSEEN))


@lru_cache(maxsize=65536)
def _rank(tag: str) -> int:
    return next((rank for rank, count in enumerate(_COUNTS) if count.fullmatch(tag)), len(_COUNTS))


def worded(tag: str, policy: Policy) -> Tags:
    """Return what stands in a caption for a tag: itself, other words, or nothing."""
    table = {**_word_list(policy.words), **_replacements(policy.replace)}
    words = table.get(fold(tag))
    text = tag if words is None else words
    for pattern, replacement in _patterns(policy.regex):
        spoken = to_words(text)
        changed = pattern.sub(replacement, spoken)
        text = text if changed == spoken else changed
    return parse(text)


@lru_cache(maxsize=16)
def _word_list(name: str) -> dict[str, str]:
    """Read a list tag,words: the one that ships for photographs, or a user's."""
    if not name:
        return {}
    path = resources.files("prep").joinpath("data/words_photo.csv") if name == "photo" else Path(name)
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{name!r} is no list of words; give photo, or a UTF-8 file with the columns tag,words") from None
    if any(row.get("tag") is None or row.get("words") is None for row in rows):
        raise UserError(f"{name} must have the columns tag and words in every line; mend it")
    return {fold(row["tag"]): row["words"] for row in rows}


@lru_cache(maxsize=16)
def _replacements(text: str) -> dict[str, str]:
    """Read 'old => new, old => new'; raises UserError."""
    pairs = [part.partition(ARROW) for part in parse(text)]
    for old, arrow, _ in pairs:
        if not arrow or not old.strip():
            raise UserError(f"replace: {old.strip()!r} does not say by what; write 'old {ARROW} new'")
    return {fold(old): new.strip() for old, _, new in pairs}


@lru_cache(maxsize=16)
def _patterns(text: str) -> list[tuple[re.Pattern[str], str]]:
    """Read 'pattern => words', one a line; raises UserError."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        pattern, arrow, words = line.partition(ARROW)
        try:
            compiled = re.compile(pattern.strip())
            compiled.sub(words.strip(), "")
        except (re.error, IndexError) as error:
            raise UserError(f"regex: {line!r} is no pattern with words ({error}); write 'pattern {ARROW} words', one a line") from None
        if not arrow:
            raise UserError(f"regex: {line!r} does not say by what; write 'pattern {ARROW} words', one a line")
        found.append((compiled, words.strip()))
    return found
