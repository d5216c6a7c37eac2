"""Kohya: the metadata file of kohya's fine-tuning scripts, one JSON object for a whole folder."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from prep.captions import parse
from prep.imports import Asked, Found, tidy
from prep.options import UserError


def read(source: Path, asked: Asked) -> Found | None:
    """Read the picture's entry, {"tags": "a, b", "caption": "a sentence"}, under its path, file name or stem."""
    files = [asked.metadata] if asked.metadata else _candidates(source.parent)
    for path in files:
        entries = _entries(path)
        entry = next((entries[name] for name in (str(source.absolute()), source.name, source.stem) if name in entries), None)
        if entry:
            tags, caption = parse(str(entry.get("tags") or "")), str(entry.get("caption") or "").strip()
            if tags:
                return Found(path, tidy({"general": tags}))
            if caption:
                return Found(path, caption=caption)
    return None


@lru_cache(maxsize=16)
def _candidates(folder: Path) -> tuple[Path, ...]:
    """Find the metadata files of a folder: a JSON object whose values are objects with tags or caption."""
    return tuple(path for path in sorted(folder.glob("*.json")) if _entries(path, strict=False))


@lru_cache(maxsize=64)
def _entries(path: Path, strict: bool = True) -> dict[str, dict[str, Any]]:
    """Read a metadata file, each entry under its whole name, its file name and its stem; an empty one if it is something else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        if strict:
            raise UserError(f"{path} is no metadata file of kohya's scripts; check the path") from None
        return {}
    entries = data if isinstance(data, dict) else {}
    fits = bool(entries) and all(isinstance(entry, dict) and entry.keys() & {"tags", "caption", "train_resolution"} for entry in entries.values())
    found: dict[str, dict[str, Any]] = {}
    for name, entry in entries.items() if fits else ():
        leaf = name.replace("\\", "/").rsplit("/", 1)[-1]
        for spelling in (leaf, name):
            found[spelling] = entry
        if "." in leaf:
            found.setdefault(leaf.rsplit(".", 1)[0], entry)
    return found
