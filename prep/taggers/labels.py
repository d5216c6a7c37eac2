"""Labels: read the list of tags that lies beside a tagger, whichever of the known forms it has."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from prep.options import UserError
from prep.scores import Labels

# Danbooru's numbers of categories, and those that Camie adds.
CATEGORIES = {"0": "general", "1": "artist", "3": "copyright", "4": "character", "5": "meta", "9": "rating", "10": "year"}
NAMES = frozenset([*CATEGORIES.values(), "model", "quality"])
RATINGS = ("rating:", "rating_")  # how lists without categories mark a rating

Rows = list[tuple[str, str]]  # tag, category


def read_labels(path: Path) -> Labels:
    """Read the tags in the order of the model's output; raises UserError if the file is no such list."""
    try:
        rows = READERS[path.suffix.lower()](path.read_text(encoding="utf-8-sig"))
    except (KeyError, ValueError, TypeError, AttributeError, csv.Error):  # ValueError covers broken UTF-8 and JSON
        raise UserError(f"{path} is no list of tags; {FORMS.get(path.suffix.lower(), 'it must be CSV, JSON or plain text')}") from None
    names = [name for name, _ in rows]
    for name in names:
        if not name or "," in name:
            raise UserError(f"{path} names a tag {name!r}, which cannot stand in a caption; take the file from the tagger's release")
    if len(set(rows)) != len(rows) or not rows:
        raise UserError(f"{path} is empty or names a tag twice; take the file from the tagger's release")
    return Labels(tuple(names), tuple(category for _, category in rows))


def _table(text: str) -> Rows:
    """Read CSV with the columns name and category, as WD, PixAI and DeepDanbooru (imgutils) have it."""
    return [(row["name"].strip(), _category(row["category"])) for row in csv.DictReader(text.splitlines())]


def _lines(text: str) -> Rows:
    """Read a tag a line, as JoyTag and DeepDanbooru have it."""
    names = [line.strip() for line in text.splitlines() if line.strip()]
    return [(name, "rating" if name.startswith(RATINGS) else "general") for name in names]


def _json(text: str) -> Rows:
    """Read the mapping of CL ({place: {tag, category}}) or the metadata of Camie (idx_to_tag and tag_to_category)."""
    data = json.loads(text)
    data = data.get("dataset_info", data)
    data = data.get("tag_mapping", data)
    if "idx_to_tag" in data:
        categories = data["tag_to_category"]
        return _by_place((place, tag, categories.get(tag, "")) for place, tag in data["idx_to_tag"].items())
    return _by_place((place, row["tag"], row["category"]) for place, row in data.items())


def _by_place(rows: Iterable[tuple[Any, str, Any]]) -> Rows:
    """Sort by the place in the output; a place that nobody names gets a name that no caption uses."""
    named = {int(place): (tag.strip().replace(" ", "_"), _category(category)) for place, tag, category in rows}
    return [named.get(place, (f"unnamed_{place}", "other")) for place in range(max(named) + 1)]


def _category(category: Any) -> str:
    """Return the category that a number or a word stands for."""
    word = str(category).strip().lower()
    return CATEGORIES.get(word, word if word in NAMES else "other")


# Suffix -> reader, and what to say of a file that it cannot read.
READERS: dict[str, Callable[[str], Rows]] = {".csv": _table, ".json": _json, ".txt": _lines}
FORMS = {
    ".csv": "it must be CSV with the columns tag_id,name,category,count",
    ".json": "it must be JSON that names tag and category of each place of the output",
    ".txt": "it must name a tag a line",
}
