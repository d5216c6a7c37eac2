"""Compile: from a picture's scores and imported tags to the tags of its caption, and the story of each tag on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from prep.captions import parse, to_words
from prep.edits import EDITS, REASONS, Policy, worded
from prep.options import UserError
from prep.rules import rules_of
from prep.scores import Labels, Scores
from prep.taggers import LOCAL, TaggerRow

if TYPE_CHECKING:
    import numpy as np

# Kinds of tags in the order of a caption, as the field has it: who, whose, by whom, what, and what is said about the file.
CATEGORIES = ("character", "copyright", "artist", "general", "meta", "quality", "model", "year", "other")
SURE = 1.0  # score of an imported tag: a person gave it
CHARACTER_FLOOR = 0.15  # MCut cuts names no lower, as the demo of the WD taggers has it


def limits(policy: Policy, row: TaggerRow) -> dict[str, float]:
    """Return the score from which a tag of each wanted category counts: the policy's, else the tagger's own."""
    asked = _asked(policy.categories)
    if strange := asked.difference(CATEGORIES):
        raise UserError(f"categories: {sorted(strange)[0]!r} is no kind of tags; they are {', '.join(CATEGORIES)}")
    found = {}
    for category in CATEGORIES:
        if category in asked:
            own = policy.threshold if category == "general" else getattr(policy, f"{category}_threshold", None)
            found[category] = row.threshold(category) if own is None else own
    return found


@lru_cache(maxsize=16)
def _asked(categories: str) -> frozenset[str]:
    return frozenset(name.casefold() for name in parse(categories))


def mcut_limits(values: np.ndarray, labels: Labels, usual: Mapping[str, float]) -> dict[str, float]:
    """Return where one picture's scores, shape (labels,), fall most, for each category; `usual` where they do not fall at all."""
    import numpy as np

    categories = np.array(labels.categories)
    found = {}
    for category, limit in usual.items():
        cut = mcut(values[categories == category])
        found[category] = limit if cut is None else max(cut, CHARACTER_FLOOR) if category == "character" else cut
    return found


def mcut(values: np.ndarray) -> float | None:
    """Return the middle of the largest gap between neighbouring scores, the upper one of equal gaps; None if there is no gap.

    Source: Largeron, Moulin, Géry, "MCut: a thresholding strategy for multi-label classification", 2012. Raises ValueError for NaN.
    """
    import numpy as np

    if np.isnan(values).any():
        raise ValueError("a score is not a number")
    falling = np.sort(values.astype(np.float64))[::-1]
    gaps = falling[:-1] - falling[1:]
    if not gaps.size or gaps.max() <= 0:
        return None
    place = int(gaps.argmax())
    return float(falling[place] + falling[place + 1]) / 2


def merged(scores: Scores, imported: Mapping[str, Iterable[str]], rule: str) -> Scores:
    """Add imported tags (category -> tags) to a tagger's scores.

    The rule: an imported tag is sure, whatever the tagger thinks of it; where both name a tag the tagger knows its kind, unless the
    import says more than "general"; with `only`, a picture that has imported tags takes nothing from the tagger.
    """
    if rule == "ignore" or not any(imported.values()):
        return scores
    found = {category: dict(tags) for category, tags in scores.items()} if rule == "merge" else {"rating": dict(scores.get("rating", {}))}
    kinds = {tag: category for category, tags in scores.items() for tag in tags}
    for category, tags in imported.items():
        for tag in tags:
            kind = kinds.get(tag, category) if category == "general" else category
            if category != "general" and kinds.get(tag, category) != category:
                found.get(kinds[tag], {}).pop(tag, None)
            found.setdefault(kind, {})[tag] = SURE
    return found


def gathered(scores: Scores, cuts: Mapping[str, float]) -> list[str]:
    """List the tags that reach their category's score, category after category, stronger before weaker."""
    tags: list[str] = []
    for category, limit in cuts.items():
        if scored := scores.get(category):
            tags += ranked({tag: score for tag, score in scored.items() if score >= limit})
    return list(dict.fromkeys(tags))


def compile_tags(scores: Scores, policy: Policy, row: TaggerRow = LOCAL, cuts: Mapping[str, float] | None = None) -> list[str]:
    """Return the tags of a caption as words: counts, characters, works, artists, then general tags, stronger before weaker.

    `cuts` are scores from which tags count, if they are not the policy's and the row's.
    """
    tags = gathered(scores, limits(policy, row) if cuts is None else cuts)
    for edit in EDITS.values():
        tags = edit(tags, policy)
    rating = ranked(scores.get("rating", {}))[:1]
    if policy.rating != "none":
        tags = [*rating, *tags] if policy.rating == "first" else [*tags, *rating]
    return list(dict.fromkeys(spelled(tag, policy.escape) for tag in tags))


@lru_cache(maxsize=65536)
def spelled(tag: str, escape: bool = False) -> str:
    """Write a tag as words; brackets are escaped only for prompts, where they would mean emphasis."""
    words = to_words(tag)
    return words.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)") if escape else words


def strengths(scores: Scores, policy: Policy) -> dict[str, float]:
    """Return the score behind each tag of a caption, as the caption spells it; a tag that only a rule added has none."""
    rules, found = rules_of(policy.rules), dict[str, float]()
    for category, scored in scores.items():
        for tag, score in scored.items() if category != "rating" else ():
            for word in worded(rules.proper(tag), policy):
                word = spelled(word, policy.escape)
                found[word] = max(score, found.get(word, 0.0))
    if policy.rating != "none":
        found |= {spelled(tag, policy.escape): SURE for tag in ranked(scores.get("rating", {}))[:1]}  # it was asked for
    return found


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Sort tags by falling score; equal ones by name, so that the same scores always give the same caption."""
    return [tag for _, tag in sorted([(-score, tag) for tag, score in scores.items()])]


@dataclass(frozen=True)
class Fate:
    """What became of a tag on the way to the caption."""

    tag: str
    score: float
    kept: bool
    why: str = ""

    def line(self) -> str:
        """Say it in a line, such as "0.981 long_hair dropped: implied by very_long_hair"."""
        return f"{self.score:.3f} {self.tag} {'kept' if self.kept else 'dropped'}" + (f": {self.why}" if self.why else "")


def explain(scores: Scores, policy: Policy, cuts: Mapping[str, float]) -> list[Fate]:
    """Tell of every tag from the lowest threshold up what became of it, strongest first; an added tag has the score 0."""
    lowest = min(cuts.values(), default=0.0)
    known: dict[str, float] = {}
    fates: dict[str, Fate] = {}
    for category, scored in scores.items():
        for tag, score in scored.items() if category != "rating" else ():
            known[tag] = score
            if score >= lowest:
                below = f"below {cuts[category]:.3g}, from which {category} tags count" if category in cuts else f"{category} tags are not wanted"
                fates[tag] = Fate(tag, score, False, below)
    tags = gathered(scores, cuts)
    for name, edit in EDITS.items():
        after = edit(tags, policy)
        kept = set(after)
        fates |= {tag: Fate(tag, known.get(tag, 0.0), False, REASONS[name](tag, tags, policy)) for tag in tags if tag not in kept}
        tags = after
    fates |= {tag: Fate(tag, known.get(tag, 0.0), True) for tag in tags}
    return sorted(fates.values(), key=lambda fate: (-fate.score, fate.tag))
