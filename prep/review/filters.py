"""Filters: the little language by which pictures are searched, such as `1girl AND NOT smile`, `tokens>75` or `score(long_hair)<0.5`.

    filter  = and-part { OR and-part }
    and-part = part { [AND] part }
    part    = NOT part | ( filter ) | number-name comparison number | score(TAG) comparison number | state | field:words | tag

A tag may be of several words, as in captions, so AND may only be left out where no word would run into the next.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import translate
from typing import Protocol

from prep.names import fold
from prep.options import UserError
from prep.review.library import Row

Test = Callable[[Row], bool]


class Scoring(Protocol):
    """Where scores are looked up: a picture's row and a tag -> 0..1; 0 where nothing is known."""

    def __call__(self, row: Row, tag: str) -> float: ...


COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "=": operator.eq,
}  # fmt: skip
NUMBERS: dict[str, Callable[[Row], float]] = {
    "tokens": lambda row: row.tokens,
    "tags": lambda row: len(row.tags),
    "width": lambda row: row.width,
    "height": lambda row: row.height,
    "repeats": lambda row: row.emphasis,
    "distance": lambda row: -1.0 if row.distance is None else row.distance,
}
STATES: dict[str, Test] = {
    "set aside": lambda row: bool(row.dropped),
    "kept": lambda row: not row.dropped,
    "proposed": lambda row: bool(row.proposed),
    "by hand": lambda row: row.hand,
    "no caption": lambda row: not row.text,
    "cropped": lambda row: row.crop is not None,
    "masked": lambda row: row.masked,
    "duplicate": lambda row: "duplicate" in (row.dropped, row.proposed),
}
FIELDS: dict[str, Callable[[Row], str]] = {
    "name": lambda row: row.name,
    "reason": lambda row: row.dropped or row.proposed,
    "text": lambda row: row.text,
}
# A word runs to a space or a bracket; brackets that belong to a tag, name_(series), stay in it.
_TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|(<=|>=|!=|[<>=()])|((?:[^\s()<>="!]|!(?!=)|(?<=[_\\])\([^()]*\))+))')


@dataclass(frozen=True)
class Token:
    """A piece of a filter: "word", "quoted" or "sign"; where it begins, counted from 1."""

    kind: str
    text: str
    place: int


def tokens(text: str) -> list[Token]:
    """Cut a filter into its pieces; raises UserError at what is none."""
    found, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise UserError(f"the filter cannot be read from place {place + 1} on ({text[place : place + 10]!r}); put tags with odd signs in quotes")
        quoted, sign, word = match.groups()
        start = match.start(match.lastindex or 0) + 1
        kind, value = ("quoted", re.sub(r"\\(.)", r"\1", quoted[1:-1])) if quoted else ("sign", sign) if sign else ("word", word)
        found.append(Token(kind, value, start))
        place = match.end()
    return found


class Parser:
    """Make a test of a filter; `vocabulary` are the folded tags that `*` may stand for."""

    def __init__(self, text: str, vocabulary: Iterable[str], score: Scoring) -> None:
        self.tokens, self.at = tokens(text), 0
        self.vocabulary, self.score = vocabulary, score

    def parse(self) -> Test:
        """Read all of the filter; an empty one lets all pass."""
        if not self.tokens:
            return lambda row: True
        test = self.any_of()
        if self.at < len(self.tokens):
            raise self.fault("nothing more")
        return test

    def any_of(self) -> Test:
        tests = [self.all_of()]
        while self.take("word", "OR"):
            tests.append(self.all_of())
        return tests[0] if len(tests) == 1 else lambda row: any(test(row) for test in tests)

    def all_of(self) -> Test:
        tests = [self.part()]
        while self.take("word", "AND") or not (self.at == len(self.tokens) or self.peek("word", "OR") or self.peek("sign", ")")):
            tests.append(self.part())
        return tests[0] if len(tests) == 1 else lambda row: all(test(row) for test in tests)

    def part(self) -> Test:
        if self.take("word", "NOT"):
            test = self.part()
            return lambda row: not test(row)
        if self.take("sign", "("):
            test = self.any_of()
            self.need("sign", ")")
            return test
        if quoted := self.take("quoted"):
            return self.tag(quoted.text)
        return self.words()

    def words(self) -> Test:
        """Read words: a state, a number, a field, a score, or a tag of several words."""
        for state, test in STATES.items():
            if self.phrase(state):
                return self.copies() if state == "duplicate" and self.take("word", "of") else test
        if self.at < len(self.tokens) and self.tokens[self.at].text in ("AND", "OR"):
            raise self.fault("a tag")
        word = self.need("word")
        if word.text == "score" and self.take("sign", "("):
            return self.scored()
        if word.text in NUMBERS and self.compares():
            return self.compared(NUMBERS[word.text])
        name, colon, rest = word.text.partition(":")
        if colon and name in FIELDS:
            return self.field(FIELDS[name], rest or (self.take("quoted") or self.need("word")).text)
        words = [word.text]
        while self.at < len(self.tokens) and self.plain():
            words.append(self.need("word").text)
        return self.tag(" ".join(words))

    def copies(self) -> Test:
        """Read which picture's copies are meant: all, or those of one."""
        after = self.take("quoted") or (self.take("word") if self.at < len(self.tokens) and self.plain() else None)
        if after is None:
            return STATES["duplicate"]
        return lambda row: STATES["duplicate"](row) and (row.detail == f"of {after.text}" or row.detail.startswith(f"of {after.text} ("))

    def scored(self) -> Test:
        names = []
        while not self.peek("sign", ")"):
            names.append((self.take("quoted") or self.need("word")).text)
        self.need("sign", ")")
        tag, score = " ".join(names), self.score
        return self.compared(lambda row: score(row, tag))

    def compared(self, value: Callable[[Row], float]) -> Test:
        sign = COMPARISONS[self.compares(take=True)]
        number = self.need("word")
        try:
            limit = float(number.text)
        except ValueError:
            self.at -= 1
            raise self.fault("a number") from None
        return lambda row: sign(value(row), limit)

    def field(self, value: Callable[[Row], str], words: str) -> Test:
        pattern = re.compile(translate(f"*{words}*" if "*" not in words else words), re.IGNORECASE | re.DOTALL)
        return lambda row: pattern.match(value(row)) is not None

    def tag(self, tag: str) -> Test:
        name = fold(tag)
        if "*" not in name:
            return lambda row: name in row.tags
        pattern = re.compile(".*".join(map(re.escape, name.split("*"))))
        names = frozenset(known for known in self.vocabulary if pattern.fullmatch(known))
        return lambda row: not names.isdisjoint(row.tags)

    def plain(self) -> bool:
        """Tell whether the next piece is a word that goes on with a tag."""
        token = self.tokens[self.at]
        return token.kind == "word" and token.text not in ("AND", "OR", "NOT")

    def phrase(self, words: str) -> bool:
        """Take the words if all of them come next and no tag goes on behind them."""
        wanted = words.split()
        ahead = [token.text for token in self.tokens[self.at : self.at + len(wanted)] if token.kind == "word"]
        after = self.tokens[self.at + len(wanted)] if self.at + len(wanted) < len(self.tokens) else None
        goes_on = after and after.kind == "word" and after.text not in ("AND", "OR", "NOT") and not (words == "duplicate" and after.text == "of")
        if ahead != wanted or goes_on:
            return False
        self.at += len(wanted)
        return True

    def compares(self, take: bool = False) -> str:
        """Return the comparison that comes next, "" if none does."""
        token = self.tokens[self.at] if self.at < len(self.tokens) else None
        found = token.text if token and token.kind == "sign" and token.text in COMPARISONS else ""
        if take and not found:
            raise self.fault("one of " + " ".join(COMPARISONS))
        self.at += bool(take)
        return found

    def peek(self, kind: str, text: str = "") -> bool:
        token = self.tokens[self.at] if self.at < len(self.tokens) else None
        return token is not None and token.kind == kind and text in ("", token.text)

    def take(self, kind: str, text: str = "") -> Token | None:
        if not self.peek(kind, text):
            return None
        self.at += 1
        return self.tokens[self.at - 1]

    def need(self, kind: str, text: str = "") -> Token:
        token = self.take(kind, text)
        if token is None:
            raise self.fault(text or {"word": "a tag"}.get(kind, kind))
        return token

    def fault(self, wanted: str) -> UserError:
        if self.at < len(self.tokens):
            token = self.tokens[self.at]
            return UserError(f"the filter has {token.text!r} at place {token.place}, where {wanted} is needed; mend it there")
        return UserError(f"the filter ends where {wanted} is needed; write on, or take its last word away")


def compiled(text: str, vocabulary: Iterable[str], score: Scoring) -> Test:
    """Make a test of a filter; raises UserError that says where it cannot be read."""
    return Parser(text, vocabulary, score).parse()
