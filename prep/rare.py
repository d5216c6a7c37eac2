"""Rare: propose concept words that the text encoder reads as one token and that mean nothing to it yet."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np

from prep.captions import read_caption
from prep.clip_bpe import vocabulary
from prep.embeddings import token_embeddings
from prep.options import PROJECT_FILE, UserError, atomic_write, option
from prep.project import Command, Place
from prep.store import Store

DENY_LISTS = ("deny_english.txt", "deny_known.txt")
RARE_FROM = 36_000  # ids follow merge order, so a high one was seldom seen; the deny lists cover what lies above this one

BULK = (2.5, 97.5)  # percentiles of all words' embedding lengths; beyond lie words that the encoder never or always saw
NEAR = 0.25  # share of the words that is left out for lying nearest to everyday words

_WORD = re.compile(r"([a-z]{3,4})</w>")


@dataclass(frozen=True)
class Candidate:
    """A word fit to be a keyword, and what speaks for it: its token id, and what the base model's text encoders make of it."""

    word: str
    id: int
    norm: float | None = None  # length of its embedding, as a percentile of all words'; the middle is inconspicuous
    nearest: str = ""  # the everyday word that it lies nearest to
    cosine: float | None = None  # and how near, in the encoder that finds it nearest
    pull: float | None = None  # see prep.probe

    def why(self) -> str:
        """Say in a line why the word was kept."""
        reasons = ["1 token", "in no list of words, names, brands or tags", "not in these captions"]
        if self.cosine is not None:
            reasons += [f"embedding of ordinary length (percentile {self.norm:.0f})", f"nearest word {self.nearest!r} at {self.cosine:.2f}"]
        return ", ".join(reasons + ([f"pull {self.pull:.1f} (1 is chance)"] if self.pull is not None else []))


@dataclass(frozen=True)
class Rare(Command):
    """Propose words of 3-4 letters that are one token, mean nothing, and are not in these captions.

    Where the base model's text encoder is on this machine, words with a conspicuous embedding are left out too. --probe has the base
    model draw the words and leaves those to the end that pull the pictures anywhere.
    """

    count: int = option(20, "-n", help="How many to propose.", min=1)
    seed: int = option(0, help="Another seed, other words.", min=0)
    write: bool = option(False, help="Make the first the keyword in dataset.toml.")
    json: bool = option(False, help="Print the words and what speaks for them as JSON.")
    base: str = option("pocket", help="Base model whose text encoders are asked: pocket, a diffusers folder or a hub id in the cache.")
    class_: str = option("", help="What the concept is one of; the word must not lie near it.")
    probe: int = option(0, help="Draw so many pictures of each word, alone and with the class, and rank by how little they agree.", min=0, max=64)
    tagger: str = option("pocket", help="What looks at the pictures of --probe.")

    @classmethod
    def open(cls, root: Path | None) -> Place:
        """Words are proposed anywhere, also where there is no project yet."""
        return Place.open(root if root or Path(PROJECT_FILE).exists() else Path("."))

    def main(self, place: Place) -> None:
        if self.write:
            place.need_project("rare --write")
        pool = candidates(caption_words(place))
        proposed = propose(self.count, self.seed, inconspicuous(pool, token_embeddings(self.base), self.class_))
        if self.probe:
            proposed = probed(proposed, self)
        if self.json:
            print(json.dumps([{**asdict(row), "tokens": 1, "why": row.why()} for row in proposed], indent=1))
        else:
            for row in proposed:
                print(f"{row.word:<6} id {row.id}  {row.why()}")
        if self.write:
            write_keyword(place.root / PROJECT_FILE, proposed[0].word)


@lru_cache(maxsize=1)
def denied() -> frozenset[str]:
    """Read the words that mean something: English, names, brands, acronyms, Danbooru words, slurs."""
    words: set[str] = set()
    for name in DENY_LISTS:
        lines = resources.files("prep").joinpath("data", name).read_text(encoding="utf-8").splitlines()
        words.update(word for line in lines if not line.startswith("#") for word in line.split())
    return frozenset(words)


def candidates(used: Collection[str] = ()) -> list[Candidate]:
    """Return all words fit to be a keyword, highest id (rarest) first."""
    found = [(match[1], number) for token, number in vocabulary().items() if number >= RARE_FROM and (match := _WORD.fullmatch(token))]
    fit = [Candidate(word, number) for word, number in found if word not in denied() and word not in used]
    return sorted(fit, key=lambda row: -row.id)


def inconspicuous(pool: Sequence[Candidate], encoders: Sequence[np.ndarray], class_: str = "") -> list[Candidate]:
    """Leave out words that stand out in a text encoder: embeddings of unusual length, and those nearest to everyday words or the class.

    `encoders` are token embeddings (49408, width); with none of them the pool is returned as it is.
    """
    for embeddings in encoders:
        ids, nouns = [row.id for row in pool], everyday(class_)
        lengths = np.linalg.norm(embeddings, axis=1)
        words = lengths[[number for token, number in vocabulary().items() if token.endswith("</w>")]]
        norms = np.searchsorted(np.sort(words), lengths[ids]) * (100 / len(words))
        unit = embeddings / np.maximum(lengths, 1e-12)[:, None]
        cosines = unit[ids] @ unit[list(nouns.values())].T
        nearest, most = cosines.argmax(axis=1), cosines.max(axis=1)
        near, names = np.quantile(most, 1 - NEAR), list(nouns)
        rows = [
            replace(row, norm=float(norm), nearest=names[at], cosine=float(cosine)) if row.cosine is None or cosine > row.cosine else row
            for row, norm, at, cosine in zip(pool, norms, nearest, most, strict=True)
        ]
        pool = [row for row, norm, cosine in zip(rows, norms, most, strict=True) if BULK[0] <= norm <= BULK[1] and cosine <= near]
    return list(pool)


@lru_cache(maxsize=8)
def everyday(class_: str = "") -> dict[str, int]:
    """Return everyday words and the words of the class with their ids, those that are one token."""
    lines = resources.files("prep").joinpath("data", "common_nouns.txt").read_text(encoding="utf-8").splitlines()
    words = [word for line in lines if not line.startswith("#") for word in line.split()] + re.findall(r"[a-z]+", class_.casefold())
    tokens = vocabulary()
    return {word: tokens[f"{word}</w>"] for word in words if f"{word}</w>" in tokens}


def propose(number: int, seed: int, pool: Sequence[Candidate]) -> list[Candidate]:
    """Draw words by seed from the pool; the draw is shown rarest first. The same seed and pool give the same words."""
    drawn = random.Random(seed).sample(pool, min(number, len(pool)))
    return sorted(drawn, key=lambda row: -row.id)


def probed(proposed: Sequence[Candidate], rare: Rare) -> list[Candidate]:
    """Draw every word with the base model and put those first that pull the pictures least."""
    from prep.probe import probe

    pulls = probe([row.word for row in proposed], rare.class_, rare.probe, rare.base, rare.tagger)
    return sorted((replace(row, pull=pulls[row.word]) for row in proposed), key=lambda row: (row.pull, -row.id))


def caption_words(place: Place) -> set[str]:
    """Collect the words of all captions in the folder, so that a keyword means one thing only."""
    if place.is_project and not place.work.is_dir():
        return set()
    texts = (read_caption(item.path) or item.caption for item in Store(place.work).items())
    return {word for text in texts for word in re.findall(r"[a-z]+", text.casefold())}


def write_keyword(path: Path, word: str) -> None:
    """Set [project] keyword in dataset.toml, leaving all else in it, comments included, as it is."""
    import tomlkit

    with path.open(encoding="utf-8", newline="") as file:  # line ends stay as they are
        document = tomlkit.parse(file.read())
    project = document.setdefault("project", tomlkit.table())
    before = project.get("keyword", "")
    if not isinstance(before, str):
        raise UserError(f"{path}: keyword under [project] is not a text in quotes; mend it first")
    project["keyword"] = word
    atomic_write(path, tomlkit.dumps(document))
    print(f"{path}: keyword = {word!r}" + (f" (was {before!r})" if before else ""))
