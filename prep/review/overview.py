"""Overview: the folder in numbers: tags, which go together, lengths of captions, sizes, what is set aside, what the tree check says."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

from prep.options import UserError, load_object
from prep.review.library import Library, Row
from prep.stats import summarize
from prep.tree import read_tree
from prep.tree_rules import findings

TAGS, PAIRED = 100, 24  # tags that are listed, and those whose pairs are counted
STEP = 15  # tokens of a bar
SHOWN = 200  # findings that are shown
BUCKETS = "prep.check:bucket_rule"


def overview(library: Library) -> dict[str, Any]:
    """Count all that the overview shows, over the pictures that are kept."""
    rows = list(library.rows.values())
    kept = [row for row in rows if not row.dropped]
    summary = summarize({row.key: row.text or None for row in kept}, library.place.project.keyword)
    return {
        "pictures": len(rows),
        "kept": len(kept),
        "aside": Counter(row.dropped for row in rows if row.dropped).most_common(),
        "proposed": Counter(row.proposed for row in kept if row.proposed).most_common(),
        "captions": summary.captions,
        "keyword": summary.keyword,
        "with_keyword": summary.with_keyword,
        "tags_per_caption": round(summary.tags_per_caption, 1),
        "tags": [{"tag": tag.tag, "count": tag.count, "share": round(tag.share, 4)} for tag in summary.tags[:TAGS]],
        "together": together(kept, [tag.tag for tag in summary.tags[:PAIRED]]),
        "tokens": histogram([row.tokens for row in kept if row.text]),
        "sizes": Counter(f"{row.width} × {row.height}" for row in kept if row.width).most_common(40),
        "buckets": buckets(library, kept),
        "folders": folders(library),
        "findings": found(library),
    }


def together(rows: list[Row], tags: list[str]) -> dict[str, Any]:
    """Count in how many captions each two of these tags are."""
    from prep.names import fold

    names = {fold(tag): number for number, tag in enumerate(tags)}
    table = [[0] * len(tags) for _ in tags]
    for row in rows:
        there = sorted(names[tag] for tag in row.tags if tag in names)
        for number in there:
            table[number][number] += 1
        for a, b in combinations(there, 2):
            table[a][b] += 1
            table[b][a] += 1
    return {"tags": tags, "table": table}


def histogram(lengths: list[int]) -> list[list[int]]:
    """Count captions by their tokens, in bars of STEP: [first, last, count]."""
    counts = Counter(max(length - 1, 0) // STEP for length in lengths)  # 75 is the last of its bar
    return [[bar * STEP + 1, (bar + 1) * STEP, counts[bar]] for bar in range(max(counts, default=-1) + 1)]


def buckets(library: Library, rows: list[Row]) -> list[list[Any]]:
    """Count pictures by the bucket that the trainer puts them into: [width, height, pictures]."""
    bucket = load_object(BUCKETS)(library.place)
    sizes = Counter(_shown(row) for row in rows if row.width)
    counts: Counter[tuple[int, int]] = Counter()
    for size, number in sizes.items():
        counts[tuple(bucket(*size))] += number
    return [[*size, number] for size, number in sorted(counts.items())]


def folders(library: Library) -> list[list[Any]]:
    """List the tree's folders: [side and name, pictures, repeats, share of the samples that its side has in an epoch]; none without a tree."""
    if not library.place.is_project or not library.place.tree.is_dir():
        return []
    try:
        found = read_tree(library.place.tree)
    except UserError:
        return []  # the findings say why
    sides = Counter[bool]()
    for folder in found:
        sides[folder.is_reg] += folder.samples
    return [
        [f"{folder.path.parent.name}/{folder.path.name}", len(folder.pictures), folder.repeats, round(folder.samples / sides[folder.is_reg], 4)]
        for folder in found
    ]


def _shown(row: Row) -> tuple[int, int]:
    """Return the size of what is trained of a picture."""
    return (row.crop[2] - row.crop[0], row.crop[3] - row.crop[1]) if row.crop else (row.width, row.height)


def found(library: Library) -> list[dict[str, str]]:
    """List what `prep check` finds in the tree, each with the picture that it is about, if that is one of these."""
    tree = library.place.tree
    if not library.place.is_project or not tree.is_dir():
        return []
    rows = []
    for finding in findings(tree, library.place.project.keyword):
        key = _key(finding.path, library)
        rows.append({"level": finding.level, "path": _below(finding.path, tree), "message": finding.message, "key": key})
    return rows[:SHOWN]


def _key(path: Path, library: Library) -> str:
    return path.stem if path.stem in library.rows else ""


def _below(path: Path, tree: Path) -> str:
    return path.relative_to(tree).as_posix() if path.is_relative_to(tree) else path.name
