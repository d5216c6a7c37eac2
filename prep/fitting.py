"""Fitting: leave out a caption's weakest tags until the text encoder reads all of it; the scores stay, so it can be taken back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prep.captions import join, parse, wordings


def fitted(tags: list[str], strength: Mapping[str, float], limit: int, keep: int, written: Callable[[list[str]], str]) -> list[str]:
    """Return the tags with which no line of `written(tags)` has more than `limit` CLIP tokens, if that can be.

    The weakest go first, of equal ones the last. Tags among the first `keep` parts of a caption stay, as do all if none of them is in it.
    """
    from prep.clip_bpe import count
    from prep.tokens import fit

    lines = wordings(written(tags))
    longest = max(map(count, lines), default=0)
    if longest <= limit:
        return tags
    # Tags are tokenized apart from what is around them, so what is around takes as many tokens beside fewer tags.
    around = longest - count(join(tags))
    if longest == max(map(count, wordings(written([]))), default=0):
        return tags
    first = {part for line in lines for part in parse(line)[:keep]}
    weakest = sorted(range(len(tags)), key=lambda place: (strength.get(tags[place], 0.0), -place))
    kept, _ = fit(tags, max(limit - around, 0), sum(tag in first for tag in tags), [tags[place] for place in weakest])
    return kept
