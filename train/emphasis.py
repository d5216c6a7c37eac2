"""Weighted captions: (tag:1.2) and its like as pieces of text with weights, and as a weight for each token.

The syntax is the web UIs': (x) is 1.1 times, [x] a 1.1th, (x:w) w times; they nest, and a backslash makes a bracket a plain sign.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from prep.clip_bpe import CHUNK, count

CLOSING = {")": "(", "]": "["}
STEP = {"(": 1.1, "[": 1 / 1.1}
_WEIGHT = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*$")

Pieces = list[tuple[str, float]]


@dataclass
class _Group:
    """What stands between two brackets; the outermost has none."""

    bracket: str = ""
    pieces: Pieces = field(default_factory=list)
    text: str = ""

    def flush(self) -> None:
        if self.text:
            self.pieces.append((self.text, 1.0))
            self.text = ""

    def weighed(self) -> Pieces:
        """Return the pieces times the group's own weight, which (x:w) says at its end."""
        weight = STEP[self.bracket]
        found = _WEIGHT.search(self.text) if self.bracket == "(" else None
        if found:
            weight, self.text = float(found[1]), self.text[: found.start()]
        self.flush()
        return [(text, own * weight) for text, own in self.pieces]


def emphasized(caption: str) -> Pieces:
    """Read a caption as pieces of text and their weights; a bracket that is never closed reaches to the end."""
    groups, signs = [_Group()], iter(caption)
    for sign in signs:
        group = groups[-1]
        if sign == "\\":
            following = next(signs, "")
            group.text += following if following in set("()[]\\") else sign + following
        elif sign in STEP:
            group.flush()
            groups.append(_Group(sign))
        elif sign in CLOSING and group.bracket == CLOSING[sign]:
            groups.pop()
            groups[-1].pieces += group.weighed()
        else:
            group.text += sign
    while len(groups) > 1:
        inner = groups.pop()
        groups[-1].pieces += inner.weighed()
    groups[0].flush()
    return [(text.strip(), weight) for text, weight in groups[0].pieces if text.strip()]


def split_tags(caption: str) -> list[str]:
    """Split a weighted caption on the commas outside its brackets, so that a shuffle moves a group as one."""
    tags, text, depth, escaped = [], "", 0, False
    for sign in caption:
        if not escaped:
            depth = max(0, depth + (sign in STEP) - (sign in CLOSING))
        escaped = sign == "\\" and not escaped
        if sign == "," and not depth:
            tags.append(text)
            text = ""
        else:
            text += sign
    return [tag.strip() for tag in (*tags, text) if tag.strip()]


def weigh(caption: str, max_token_length: int = CHUNK) -> tuple[str, list[list[float]]]:
    """Return a weighted caption as plain text, and a weight for each place of its rows of 77 tokens; 1 where there is no weight.

    Tokens end at each piece, so pieces are put together with blanks, which are no tokens.
    """
    pieces = emphasized(caption)
    weights = [weight for text, weight in pieces for _ in range(count(text))]
    rows = []
    for start in range(0, max_token_length, CHUNK):
        part = [1.0, *weights[start : start + CHUNK]]
        rows.append(part + [1.0] * (CHUNK + 2 - len(part)))
    return " ".join(text for text, _ in pieces), rows
