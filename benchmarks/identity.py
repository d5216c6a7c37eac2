"""Measure `prep identity` in the pocket world: `python benchmarks/identity.py [--sets 50] [--only eyes|style|colour]`.

Sets of 24 pictures of one character, 1 to 4 strangers among them. Asked: at least 95 % of the strangers proposed, at most 2 % of the
right ones. With --only a stranger differs in that one trait. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from pipelines.pocket import world
from pipelines.pocket.world import Character
from prep.identity import OURS, Identity
from prep.store import Store

SIZE = 24
STRANGERS = (1, 4)
ONLY = ("", "eyes", "style", "colour")


@dataclass(frozen=True)
class Tally:
    """Counts over sets: strangers and right ones, and how many of each were proposed."""

    strangers: int = 0
    found: int = 0
    right: int = 0
    wrong: int = 0
    unseen: int = 0  # strangers that nobody could know: what they differ in is covered or closed

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def summary(self) -> dict[str, float]:
        visible = self.strangers - self.unseen
        return vars(self) | {
            "strangers_proposed": round(self.found / max(self.strangers, 1), 4),
            "visible_strangers_proposed": round(self.found / max(visible, 1), 4),
            "right_ones_proposed": round(self.wrong / max(self.right, 1), 4),
        }


def mood(who: Character, rng: random.Random) -> Character:
    """Show a character in other clothes, headwear, eyewear, mood and place; in every tenth picture with closed eyes."""
    other = world.sample(rng)
    return replace(
        other, person=who.person, hair=who.hair, style=who.style, skin=who.skin, marks=who.marks, eyes="" if rng.random() < 0.1 else who.eyes
    )


def somebody(rng: random.Random) -> Character:
    """Draw a character by lot, with open eyes."""
    return replace(world.sample(rng), eyes=rng.choice(list(world.EYES)))


def stranger_to(who: Character, rng: random.Random, only: str) -> Character:
    """Draw another character: any with another hair colour, hair style or eye colour, or one that differs in one of these alone."""
    boy = who.person == "1boy"
    values = {"eyes": list(world.EYES), "colour": list(world.HAIR), "style": ["short_hair", "spiked_hair", "ponytail"] if boy else world.STYLES[:5]}
    field = {"eyes": "eyes", "colour": "hair", "style": "style"}
    if only:
        return replace(who, **{field[only]: rng.choice([value for value in values[only] if value != getattr(who, field[only])])})
    while True:
        other = somebody(rng)
        if any(getattr(other, name) != getattr(who, name) for name in field.values()):
            return other


def hidden(who: Character, shown: Character) -> bool:
    """Tell whether a stranger cannot be told from `who`, as the eyes, in which alone it differs, are not to be seen."""
    same = (shown.person, shown.hair, shown.style) == (who.person, who.hair, who.style)
    return same and (not shown.eyes or shown.eyewear == "sunglasses")


def spoiled(image: Image.Image, rng: random.Random) -> Image.Image:
    """Save and load as JPEG, as pictures from the web have been, some more than once."""
    for _ in range(rng.choice((1, 1, 2))):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(40, 95))
        image = Image.open(buffer).convert("RGB")
    return image


def make_set(folder: Path, rng: random.Random, only: str = "") -> tuple[set[str], int]:
    """Write a set; return the names of the strangers and how many of them cannot be told."""
    who = somebody(rng)
    places = set(rng.sample(range(SIZE), rng.randint(*STRANGERS)))
    unseen = 0
    for index in range(SIZE):
        shown = mood(stranger_to(who, rng, only) if index in places else who, rng)
        unseen += index in places and hidden(who, shown)
        picture = world.draw(shown, rng.randrange(256, 513, 16), rng.randrange(10**9))
        spoiled(picture, rng).save(folder / f"{index:02d}.png")
    return {f"{index:02d}" for index in places}, unseen


def measure(seed: int, only: str = "") -> Tally:
    """Make one set, run the step on it, and count."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        strangers, unseen = make_set(Path(folder), rng, only)
        store = Store(Path(folder))
        proposed = {item.key for item in Identity(device="cpu")(store.items(), store) if item.proposed in OURS}
    return Tally(len(strangers), len(proposed & strangers), SIZE - len(strangers), len(proposed - strangers), unseen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=50)
    parser.add_argument("--only", choices=ONLY, default="")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    start, total = time.perf_counter(), Tally()
    for number in range(given.sets):
        total += measure(given.seed + number, given.only)
    took = time.perf_counter() - start
    print(
        json.dumps({"sets": given.sets, "only": given.only, **total.summary(), "seconds_per_picture": round(took / given.sets / SIZE, 4)}, indent=1)
    )


if __name__ == "__main__":
    main()
