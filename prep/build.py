"""Build: write the tree that trainers read from the kept pictures, their captions and the regularization pictures."""

from __future__ import annotations

import gc
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from prep.balance import MEASURES, choose_repeats, read_shares, real_shares, tiers
from prep.captions import read_caption
from prep.concepts import Concept, Kept, kept_pictures, other_projects, read_concept
from prep.digests import Digests
from prep.images import PictureError, load
from prep.masks import loss_mask, mask_path, with_mask
from prep.options import PROJECT_FILE, UserError, option
from prep.plain import is_plain
from prep.project import Command, Place
from prep.publish import PlannedPicture, TreePlan, publish
from prep.run import track
from prep.store import STORE, free_key
from prep.subsets import TABLE, Part, part_of, read_parts, subset_text
from prep.tree import folder_name

if TYPE_CHECKING:
    from PIL import Image

TOOLS = ("lora-atelier", "pillow")  # whose versions decide the bytes of the pictures


@dataclass(frozen=True)
class Build(Command):
    """Write tree/img/N_keyword class and tree/reg/N_class with a manifest; the old tree is replaced only when the new one is whole.

    Several concepts in one tree are several projects, each cleaned and captioned by itself: `also` names the others. Pictures with
    settings of their own (keep_tokens, flip_aug, num_repeats, ...) are told by [[build.subset]] tables in dataset.toml.
    """

    keyword: str = option("", "-k", help="The concept word.")
    class_: str = option("", help="What the concept is one of.")
    repeats: int = option(0, help="How often an epoch shows each picture; 0 = chosen by --target.", min=0, max=10_000)
    reg_repeats: int = option(1, help="The same for regularization pictures.", min=1, max=10_000)
    target: int = option(200, help="Samples an epoch to aim at when the repeats are chosen.", min=1)
    also: str = option("", help="Folders of other projects whose concepts go into the same tree, by commas.")
    shares: str = option("", help="Share of an epoch for this concept and each of --also, such as 60,40; empty = equal ones.")
    tiers: str = option("", help="Share of an epoch for the best, ..., the worst pictures, such as 50,30,20; empty = all are shown alike.")
    tier_by: str = option("blur", help="What the tiers go by.", choices=MEASURES)
    masks: bool = option(True, help="Put loss masks into the pictures as transparency; the colours beneath stay.")
    link: bool = option(False, help="Hard-link pictures that go in unchanged: no disk is used, but an edit in the tree then edits work/ too.")

    @classmethod
    def configured(cls, place: Place, given: Mapping[str, Any] | None = None) -> Self:
        """The tables of subsets are no option; `prep.subsets` reads them."""
        own = {key: value for key, value in place.settings.get(cls.table(), {}).items() if key != TABLE}
        return super().configured(replace(place, settings={**place.settings, cls.table(): own}), given)

    def ready(self, place: Place) -> None:
        if not self.keyword.strip():
            raise UserError("there is no keyword; give --keyword, or keyword under [project] in dataset.toml (`prep rare` proposes some)")
        self._shares()
        read_parts(place)
        other_projects(place, self.also)

    def main(self, place: Place) -> None:
        self.ready(place)
        with _no_collecting():
            self._build(place)

    def _build(self, place: Place) -> None:
        concepts = [read_concept(place, self.keyword, self.class_)]
        for other in other_projects(place, self.also):
            build = Build.configured(other)
            build.ready(other)
            concepts.append(read_concept(other, build.keyword, build.class_))
        repeats = self.repeats_of([concept.kept for concept in concepts])
        planner = Planner(self, Digests.open(place.root / STORE / "digests.json"))
        pictures = _tracked(planner.pictures(concepts, repeats), sum(len(concept.kept) + len(concept.reg) for concept in concepts))
        keywords = {folder: concept.keyword for concept, row in zip(concepts, repeats, strict=True) for folder in planner.folders(concept, row)}
        facts: dict[str, Any] = {"keyword": self.keyword, "class": self.class_, "keywords": keywords, "tools": tool_versions()}
        if not self.tiers:
            facts["repeats"] = self._alike([concept.kept for concept in concepts])[0]
        tables = planner.subsets(concepts, repeats)
        texts = {PROJECT_FILE: subset_text(tables)} if tables else {}
        kept = publish(place.tree, TreePlan(pictures, facts, texts), planner.digests)
        _say(place, concepts, repeats)
        if kept:
            print(f"the old tree held edits by hand and is kept as {kept}; captions are best edited in {place.work}")

    def repeats_for(self, kept: int) -> int:
        """Return the repeats for this many pictures: as set, or so that an epoch comes to about `target` samples."""
        return self.repeats or max(1, round(self.target / max(1, kept)))

    def own_samples(self, place: Place) -> int:
        """Count what an epoch shows of this project's own pictures, others in the same tree being weighed against them."""
        return sum(self.repeats_of([kept_pictures(one) for one in (place, *other_projects(place, self.also))])[0])

    def repeats_of(self, concepts: Sequence[Sequence[Kept]]) -> list[list[int]]:
        """Return how often an epoch shows each picture of each concept: by shares and tiers, then by the picture's own emphasis."""
        if self.tiers:
            chosen = self._by_tier(concepts)
        else:
            chosen = [[number] * len(items) for number, items in zip(self._alike(concepts), concepts, strict=True)]
        return [[_shown(n, item) for n, item in zip(row, items, strict=True)] for row, items in zip(chosen, concepts, strict=True)]

    def _alike(self, concepts: Sequence[Sequence[Kept]]) -> list[int]:
        """Return the repeats of each concept if all its pictures are shown alike."""
        if len(concepts) == 1 or (self.repeats and not self.shares):
            return [self.repeats_for(len(items)) for items in concepts]
        return choose_repeats([len(items) for items in concepts], self._shares(), self._samples(concepts))

    def _by_tier(self, concepts: Sequence[Sequence[Kept]]) -> list[list[int]]:
        steps = read_shares(self.tiers, self.tiers.count(",") + 1, "tiers")
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)  # concept, tier -> pictures of the concept
        for number, items in enumerate(concepts):
            values = [item.measures.get(self.tier_by) for item in items]
            for index, tier in enumerate(tiers(values, len(steps), MEASURES[self.tier_by])):
                groups[number, tier].append(index)
        wanted = [self._shares()[number] * steps[tier] for number, tier in groups]
        shares = [share / sum(wanted) for share in wanted]  # with fewer pictures than tiers some are empty
        repeats = choose_repeats([len(group) for group in groups.values()], shares, self._samples(concepts))
        found = [[0] * len(items) for items in concepts]
        for (number, _), chosen in zip(groups, repeats, strict=True):
            for index in groups[number, _]:
                found[number][index] = chosen
        return found

    def _shares(self) -> list[float]:
        """Return each concept's share of an epoch; raises UserError if there are not as many as concepts."""
        return read_shares(self.shares, 1 + len([word for word in self.also.split(",") if word.strip()]), "shares")

    def _samples(self, concepts: Sequence[Sequence[Kept]]) -> int:
        return self.repeats * sum(map(len, concepts)) if self.repeats else self.target


@dataclass
class Planner:
    """Says of every picture where it goes in the tree, how its file comes about, and what the manifest tells of it."""

    build: Build
    digests: Digests
    taken: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # folder -> names in it

    def folders(self, concept: Concept, row: Sequence[int]) -> dict[str, tuple[int, Part | None]]:
        """Return the folders of a concept's pictures, each with its repeats and what part of the concept it is."""
        return {self._img(concept, *kind): kind for kind in dict.fromkeys((n, kept.part) for n, kept in zip(row, concept.kept, strict=True))}

    def subsets(self, concepts: Sequence[Concept], repeats: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
        """Return a [[subset]] table for each folder with settings of its own."""
        kinds: dict[str, tuple[int, Part | None]] = {}
        for concept, row in zip(concepts, repeats, strict=True):
            kinds |= self.folders(concept, row)
            parts = {part_of(concept.parts, path.name, True) for path in concept.reg}
            kinds |= {self._class_folder(concept, part): (self._reg_repeats(part), part) for part in parts}
        return [part.table(folder, n) for folder, (n, part) in sorted(kinds.items()) if part]

    def _img(self, concept: Concept, repeats: int, part: Part | None) -> str:
        return f"img/{folder_name(repeats, concept.name + (part.suffix if part else ''))}"

    def _class_folder(self, concept: Concept, part: Part | None) -> str:
        return f"reg/{folder_name(self._reg_repeats(part), concept.class_ + (part.suffix if part else ''))}"

    def _reg_repeats(self, part: Part | None) -> int:
        return (part and part.num_repeats) or self.build.reg_repeats

    def pictures(self, concepts: Sequence[Concept], repeats: Sequence[Sequence[int]]) -> Iterator[PlannedPicture]:
        """Plan the pictures of the concepts, those of equal repeats in one folder, then those of their classes."""
        for concept, row in zip(concepts, repeats, strict=True):
            folders = {kind: folder for folder, kind in self.folders(concept, row).items()}
            for kept, n in zip(concept.kept, row, strict=True):
                yield self._kept(kept, folders[n, kept.part])
        for concept in concepts:
            for path in concept.reg:
                yield self._reg(path, concept.class_, self._class_folder(concept, part_of(concept.parts, path.name, True)))

    def _kept(self, kept: Kept, folder: str) -> PlannedPicture:
        masked = self.build.masks and kept.masked
        digest, plain = self.digests.note(kept.picture, is_plain)
        file = kept.picture if plain and not masked and not kept.crop else None
        record: dict[str, Any] = {
            "source": kept.source,
            "source_sha256": kept.source_sha256 or self.digests.of(kept.path),
            "work_sha256": digest,
            "mask_sha256": self.digests.of(mask_path(kept.item())) if masked else None,
            "operations": kept.operations,
            "crop": kept.crop,
            "bytes": self._how(file),
        }
        pixels = partial(_pixels, kept.picture, partial(_drawn, kept, masked))
        return PlannedPicture(folder, self._stem(kept.key, folder), pixels, kept.caption, record, file, self.build.link)

    def _reg(self, path: Path, class_: str, folder: str) -> PlannedPicture:
        digest, plain = self.digests.note(str(path), is_plain)
        file = str(path) if plain else None
        record = {"source": path.name, "source_sha256": digest, "operations": [], "bytes": self._how(file)}
        stem = self._stem(path.stem, folder)
        return PlannedPicture(
            folder, stem, partial(_pixels, str(path), partial(load, path)), read_caption(path) or class_, record, file, self.build.link
        )

    def _how(self, file: str | None) -> str:
        return "encoded" if file is None else "linked" if self.build.link else "copied"

    def _stem(self, key: str, folder: str) -> str:
        """Name a picture in the tree: composed Unicode, and distinct also where case is ignored."""
        return free_key(unicodedata.normalize("NFC", key), self.taken[folder])


def _shown(repeats: int, kept: Kept) -> int:
    """Return how often an epoch shows a picture: as its part of the concept says, else as chosen, times its own emphasis."""
    return max(1, round(((kept.part and kept.part.num_repeats) or repeats) * kept.emphasis))


def _tracked(pictures: Iterator[PlannedPicture], total: int) -> Iterator[PlannedPicture]:
    """Show a bar where somebody sees it; elsewhere its library, a tenth of a second, need not be loaded."""
    return track(pictures, "build", total) if sys.stderr.isatty() else pictures


@contextmanager
def _no_collecting() -> Iterator[None]:
    """Keep the garbage collector out: it would go through the records again and again, and none is in a cycle.

    Measured: a rebuild of 20,000 pictures takes 2.5 instead of 2.9 s of processor time.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _drawn(kept: Kept, masked: bool) -> Image.Image:
    item = kept.item()
    return with_mask(item.image, partial(loss_mask, item)) if masked else item.image()


def _pixels(path: str, image: Callable[[], Image.Image]) -> Image.Image:
    """Decode a picture that an earlier step could read; raises UserError if it has been damaged since."""
    try:
        return image()
    except PictureError as error:
        raise UserError(f"{path} cannot be read any more ({error}); replace or delete it, then run `prep build` again") from None


def _say(place: Place, concepts: Sequence[Concept], repeats: Sequence[Sequence[int]]) -> None:
    """Print the sum of an epoch, and with several folders what share each has of it."""
    counts: dict[str, int] = defaultdict(int)
    for concept, row in zip(concepts, repeats, strict=True):
        kinds = Counter((n, kept.part.suffix if kept.part else "") for n, kept in zip(row, concept.kept, strict=True))
        for (n, suffix), count in sorted(kinds.items(), reverse=True):
            counts[folder_name(n, concept.name + suffix)] += count
    numbers = [int(name.partition("_")[0]) for name in counts]
    arithmetic = " + ".join(f"{count} pictures x {n} repeats" for count, n in zip(counts.values(), numbers, strict=True))
    samples = sum(map(sum, repeats))
    print(f"{place.tree}: {arithmetic} = {samples} samples an epoch, {sum(len(c.reg) for c in concepts)} regularization pictures")
    if len(counts) > 1:
        shares = real_shares(list(counts.values()), numbers)
        print("shares of an epoch: " + ", ".join(f"{name} {share:.0%}" for name, share in zip(counts, shares, strict=True)))


def tool_versions() -> dict[str, str]:
    """Return the versions of what makes the pictures; a change of them has the tree written anew."""
    return {name: _version(name) for name in TOOLS}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a source folder that is not installed
        return "not installed"
