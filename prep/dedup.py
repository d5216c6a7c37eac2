"""Dedup: find pictures that are there twice, however the copy was changed, and keep the best of each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from prep.captions import join, parse, to_words, wordings
from prep.copies import Relation, View, relation, same_picture
from prep.decisions import overruled
from prep.images import load
from prep.item import Item
from prep.options import atomic_write, option
from prep.sights import Sight, candidates, looks_of
from prep.similar import Look
from prep.step import Step
from prep.store import Store

__all__ = ["DUPLICATE", "Dedup", "same_picture"]

DUPLICATE = "duplicate"
VERSION = 1  # of the comparison; what an older one found out is found out anew
LARGEST = 1024  # longer side of the copies that are compared
MARKED, GREY = 0.5, 0.25  # what a pixel with a mark on the picture, or without colour, is worth beside a clean one
WORDS = 6  # a caption with more words between two commas is prose


@dataclass(frozen=True)
class Dedup(Step):
    """Set aside pictures that are there twice and keep the best: the larger one, else the less compressed, else that with a caption.

    Copies that were resized, recompressed, mirrored, recoloured, framed or signed are found too; a picture with a mark counts as half
    as large. Different drawings of one character are no duplicates, however alike: a pair is compared pixel by pixel. Where a
    difference may be a mark or a redrawn part, the picture is only proposed. Tags that came with a copy are added to the one kept.
    """

    near: bool = option(True, help="Find changed copies too (resized, mirrored, marked ...), not only exact ones.")
    merge: bool = option(True, help="Add the tags that came with a copy to those of the picture that is kept.")

    def __call__(self, items: Iterable[Item], store: Store) -> Iterator[Item]:
        """Gather all items, decide, and pass all on in their order; what was cut out of a picture goes where that goes."""
        everything = list(items)
        before = {id(item): replace(item) for item in everything}
        for item in everything:
            if item.dropped == DUPLICATE:
                item.drop("")
            if item.proposed == DUPLICATE:
                item.proposed = item.detail = ""
        whole = [item for item in everything if not item.parent]
        merged = _Merged(store)
        merged.undo(whole)
        looks = looks_of(whole, store)
        copies = self._decide([item for item in whole if not item.dropped], looks, store)
        merged.redo(copies if self.merge else [])
        for item in everything:
            if item != before[id(item)]:
                self.remember(item, store)
            yield item

    def _decide(self, items: list[Item], looks: dict[str, Look], store: Store) -> list[tuple[Item, Item]]:
        """Go from the best picture to the worst, drop each that shows the same as a better one, and return (kept, copy), best first."""
        related = _relations(items, looks, store) if self.near else {}
        worth = _worth(items, looks, related)
        first: dict[str, Item] = {}  # pixel hash -> the best item with it
        kept: list[Item] = []
        copies: list[tuple[Item, Item]] = []
        for item in sorted(items, key=lambda item: _rank(item, worth[item.digest])):
            twin = first.setdefault(item.digest, item)
            near = [(found, other) for other in kept if (found := related.get((other.digest, item.digest)))] if twin is item else []
            sure = next(((found, other) for found, other in near if found.sure), None)
            if overruled(item.stamps, DUPLICATE):
                kept.append(item)
            elif twin is not item:
                item.drop(DUPLICATE, twin.detail if twin.dropped else f"of {twin.key}")  # names the one that is kept
                copies.append((next((keeper for keeper, copy in copies if copy is twin), twin), item))
            elif sure:
                item.drop(DUPLICATE, _says(sure[1], sure[0]))
                copies.append((sure[1], item))
            else:
                if near and not item.proposed:
                    item.proposed, item.detail = DUPLICATE, _says(near[0][1], near[0][0])
                kept.append(item)
        return copies


def _rank(item: Item, worth: float) -> tuple[float, int, bool, int, str]:
    """Sort the best first: area, then size of the raw file (less compressed), then a caption, then the shorter name."""
    raw = item.source if item.source and item.source.exists() else item.path
    return -worth, -raw.stat().st_size, item.imported_caption is None, len(item.key), item.key


def _says(kept: Item, found: Relation) -> str:
    """Say of what a picture is a copy and what was done to it; `found` relates the one that is kept to the copy."""
    done = {
        "mirrored": found.mirrored,
        "with a border": found.bordered == 2,
        "grey": found.grey == 2,
        "recoloured": found.recoloured,
        "marked": found.marked == 2 and found.sure,
        "or another drawing": not found.sure,
    }
    words = ", ".join(word for word, so in done.items() if so)
    return f"of {kept.key}" + (f" ({words})" if words else "")


def _worth(items: Sequence[Item], looks: dict[str, Look], related: dict[tuple[str, str], Relation]) -> dict[str, float]:
    """Return for each pixel hash the area inside the border in pixels, less for a picture that a copy shows to be marked or grey."""
    worth = {item.digest: float(item.width * item.height) for item in items}
    framed = {looks[item.key].digest: looks[item.key].frames for item in items}
    for name, factor in (("marked", MARKED), ("grey", GREY)):
        for digest in {pair[0] for pair, found in related.items() if getattr(found, name) == 1 and found.sure}:
            worth[digest] *= factor
    for digest in {pair[0] for pair, found in related.items() if found.bordered == 1 and found.sure}:
        x0, y0, x1, y1 = framed[digest][min(1, len(framed[digest]) - 1)].tolist()
        x, y, right, bottom = framed[digest][0].tolist()
        worth[digest] *= (x1 - x0) * (y1 - y0) / ((right - x) * (bottom - y))
    return worth


def _relations(items: Sequence[Item], looks: dict[str, Look], store: Store) -> dict[tuple[str, str], Relation]:
    """Compare all pairs that may show the same, or remember what came of it; keyed by the two pixel hashes, in both orders."""
    paths = {item.digest: item.path for item in sorted(items, key=lambda item: item.key, reverse=True)}
    seen = {look.digest: look for look in looks.values()}
    digests = sorted(paths, key=lambda digest: paths[digest].name)
    known = _read(store.hidden / "copies.json")
    found: dict[str, Any] = {}

    @lru_cache(maxsize=12)
    def reduced(digest: str) -> Image.Image:
        image = load(paths[digest])
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS, reducing_gap=3)
        return image

    for (i, j), sights in sorted(candidates([seen[digest] for digest in digests]).items()):
        pair = f"{digests[i]} {digests[j]}"
        if pair in known:
            found[pair] = known[pair]
            continue
        best = _best(sights, [(reduced(digest), seen[digest]) for digest in (digests[i], digests[j])])
        found[pair] = best and asdict(best)
    _write(store.hidden / "copies.json", found)
    related = {}
    for pair, row in found.items():
        if row:
            a, b = pair.split()
            one = Relation(**row)
            related[a, b], related[b, a] = one, one.turned()
    return related


def _best(sights: set[Sight], pictures: list[tuple[Image.Image, Look]]) -> Relation | None:
    """Compare two pictures by all frames that look alike and return what they have in common; what is sure counts more."""
    found = None
    for *frames, mirrored in sorted(sights, key=lambda sight: (sight[2], sight)):
        views = []
        for (image, look), frame, flip in zip(pictures, frames, (False, mirrored), strict=True):
            scale = image.width / look.width
            x0, y0, x1, y1 = (look.frames[frame] * scale).tolist()
            views.append(View(image, (x0, y0, min(x1, image.width), min(y1, image.height)), flip))
        one = relation(*views)
        if one and one.sure:
            return one
        found = found or one
    return found


class _Merged:
    """The tags that copies gave to the pictures that are kept, remembered so that they can be taken back: merged.json."""

    def __init__(self, store: Store) -> None:
        self.path = store.hidden / "merged.json"

    def undo(self, items: Sequence[Item]) -> None:
        """Give pictures back the captions that they had, unless these have changed since."""
        known = _read(self.path)
        for item in items:
            if item.key in known and item.imported_caption == known[item.key]["after"]:
                item.imported_caption = known[item.key]["before"]

    def redo(self, copies: Sequence[tuple[Item, Item]]) -> None:
        """Give each picture that is kept (first of a pair) the tags of its copies."""
        rows: dict[str, dict[str, str | None]] = {}
        for kept, copy in copies:
            text = _merge(kept.imported_caption, copy.imported_caption)
            if text != kept.imported_caption:
                rows.setdefault(kept.key, {"before": kept.imported_caption})["after"] = text
                kept.imported_caption = text
        _write(self.path, rows)


def _merge(kept: str | None, copy: str | None) -> str | None:
    """Return a caption with the tags that only the copy's has put behind, in each line; lines of prose are left as they are and give none."""
    if not kept or not copy:
        return kept or copy
    given = list(dict.fromkeys(tag for line in wordings(copy) if not _prose(line) for tag in parse(line)))
    lines = [line if _prose(line) else _with_tags(line, given) for line in wordings(kept)]
    return kept if lines == wordings(kept) else "\n".join(lines)


def _prose(line: str) -> bool:
    return any(len(tag.split()) > WORDS for tag in parse(line))


def _with_tags(line: str, given: Sequence[str]) -> str:
    """Put those of the tags behind a line's own that it lacks, however they are spelled."""
    known = {to_words(tag).casefold() for tag in parse(line)}
    new = [tag for tag in given if to_words(tag).casefold() not in known]
    return join([*parse(line), *new]) if new else line


def _read(path: Path) -> dict[str, Any]:
    """Read a remembered table; nothing if there is none, it is damaged or of another version."""
    try:
        table = json.loads(path.read_text("utf-8"))
        return dict(table["rows"]) if table["version"] == VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write(path: Path, rows: object) -> None:
    text = json.dumps({"version": VERSION, "rows": rows}, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if (rows or path.exists()) and not (path.exists() and path.read_text("utf-8") == text):
        atomic_write(path, text)
