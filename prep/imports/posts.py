"""Posts: the JSON that Danbooru's API and gallery-dl write about one picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prep.imports import CATEGORIES, RATINGS, Asked, Found, beside, tidy
from prep.options import UserError

Post = dict[str, Any]
DANBOORU = "tag_string"  # the key that only Danbooru's own posts have


def read_danbooru(source: Path, asked: Asked) -> Found | None:
    """Read a post of Danbooru's API: tag_string_artist, tag_string_general and so on, and rating g, s, q or e."""
    return _read(source, lambda post: any(key.startswith(DANBOORU) for key in post))


def read_gallery_dl(source: Path, asked: Asked) -> Found | None:
    """Read metadata of gallery-dl: tags_artist, tags_general and so on where the site tells them apart, else tags."""
    return _read(source, lambda post: any(key == "tags" or key.startswith("tags_") for key in post))


def _read(source: Path, fits: Any) -> Found | None:
    for path in beside(source, ".json"):
        try:
            post = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError):
            raise UserError(f"{path} is not JSON; mend it, or take it away") from None
        if isinstance(post, list) and len(post) == 1:
            post = post[0]
        if isinstance(post, dict) and fits(post) and (tags := tidy(tags_of(post))):
            return Found(path, tags)
    return None


def tags_of(post: Post) -> dict[str, list[str]]:
    """Sort a post's tags by category; those whose category is not told are general."""
    found: dict[str, list[str]] = {}
    for key, value in post.items():
        for start in ("tag_string_", "tags_"):
            if key.startswith(start) and (category := CATEGORIES.get(key.removeprefix(start))):
                found.setdefault(category, []).extend(_listed(value))
    if not found:
        found["general"] = _listed(post.get("tags") or post.get(DANBOORU) or ())
    rating = str(post.get("rating", "")).lower()
    # "s" is sensitive on Danbooru, which also has g; elsewhere it is safe.
    word = "general" if rating == "s" and not any(key.startswith(DANBOORU) for key in post) else RATINGS.get(rating)
    return {**found, "rating": [word]} if word else found


def _listed(value: Any) -> list[str]:
    """Read tags from a list (of texts, or of objects with a name), or from a text with commas or else blanks between them."""
    if isinstance(value, str):
        return [tag.strip() for tag in value.split(",")] if ", " in value else value.split()
    found = []
    for tag in value if isinstance(value, list | tuple) else ():
        name = tag.get("name") if isinstance(tag, dict) else tag
        if isinstance(name, str):
            found.append(name)
    return found
