"""Rare: propose concept words that the text encoder reads as one token and that mean nothing to it yet."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

from prep.captions import read_caption
from prep.clip_bpe import vocabulary
from prep.item import Store
from prep.options import PROJECT_FILE, UserError, atomic_write, option
from prep.project import Command, Place

DENY_LISTS = ("deny_english.txt", "deny_known.txt")
RARE_FROM = 36_000  # ids follow merge order, so a high one was seldom seen; the deny lists cover what lies above this one

_WORD = re.compile(r"([a-z]{3,4})</w>")


@dataclass(frozen=True)
class Rare(Command):
    """Propose words of 3-4 letters that are one token, mean nothing, and are not in these captions."""

    count: int = option(20, "-n", help="How many to propose.", min=1)
    seed: int = option(0, help="Another seed, other words.", min=0)
    write: bool = option(False, help="Make the first the keyword in dataset.toml.")
    json: bool = option(False, help="Print the words and their token ids as JSON.")

    @classmethod
    def open(cls, root: Path | None) -> Place:
        """Words are proposed anywhere, also where there is no project yet."""
        return Place.open(root if root or Path(PROJECT_FILE).exists() else Path("."))

    def main(self, place: Place) -> None:
        if self.write:
            place.need_project("rare --write")
        proposed = propose(self.count, self.seed, caption_words(place))
        if self.json:
            print(json.dumps([{"word": word, "id": number, "tokens": 1} for word, number in proposed], indent=1))
        else:
            for word, number in proposed:
                print(f"{word:<6} id {number}  1 token")
        if self.write:
            write_keyword(place.root / PROJECT_FILE, proposed[0][0])


@lru_cache(maxsize=1)
def denied() -> frozenset[str]:
    """Read the words that mean something: English, names, brands, acronyms, Danbooru words, slurs."""
    words: set[str] = set()
    for name in DENY_LISTS:
        lines = resources.files("prep").joinpath("data", name).read_text(encoding="utf-8").splitlines()
        words.update(word for line in lines if not line.startswith("#") for word in line.split())
    return frozenset(words)


def candidates(used: Collection[str] = ()) -> list[tuple[str, int]]:
    """Return all words fit to be a keyword with their token ids, highest id (rarest) first."""
    found = [(match[1], number) for token, number in vocabulary().items() if number >= RARE_FROM and (match := _WORD.fullmatch(token))]
    return sorted(((word, number) for word, number in found if word not in denied() and word not in used), key=lambda pair: -pair[1])


def propose(number: int, seed: int, used: Collection[str] = ()) -> list[tuple[str, int]]:
    """Draw words by seed from the candidates; the draw is shown rarest first. The same seed and captions give the same words."""
    pool = candidates(used)
    drawn = random.Random(seed).sample(pool, min(number, len(pool)))
    return sorted(drawn, key=lambda pair: -pair[1])


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
