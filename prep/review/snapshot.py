"""Snapshot: all of a picture that the page can change, as it is on the disk; edits go from one snapshot to another, and back."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prep.bulk import write_all
from prep.captions import caption_path, read_caption
from prep.decisions import KEPT
from prep.item import Item
from prep.masks import painted_path, update_mask
from prep.store import Store

CLEAN = "clean"  # the stamp of the step that a picture has to pass again


@dataclass(frozen=True)
class Snapshot:
    """A picture as a person left it."""

    text: str | None  # of the caption file; None: there is none
    written: str | None
    hand: bool
    tags: tuple[str, ...]
    dropped: str
    detail: str
    kept: str  # the stamp prep.decisions.KEPT
    cleaned: str  # the stamp of `prep clean`
    crop: tuple[int, int, int, int] | None
    emphasis: float
    painted: str  # the strokes of prep.masks.painted_path, PNG in base64; "" = none

    @classmethod
    def of(cls, item: Item, store: Store) -> Snapshot:
        """Read the item's caption and strokes; the rest is the sidecar's."""
        strokes = painted_path(item.key, store)
        return cls.made(item, read_caption(item.path), strokes.read_bytes() if strokes.exists() else b"")

    @classmethod
    def made(cls, item: Item, text: str | None, strokes: bytes) -> Snapshot:
        return cls(
            text, item.written, item.hand, tuple(item.tags), item.dropped, item.detail, item.stamps.get(KEPT, ""),
            item.stamps.get(CLEAN, ""), item.crop, item.emphasis, base64.b64encode(strokes).decode(),
        )  # fmt: skip

    @classmethod
    def read(cls, row: dict[str, Any]) -> Snapshot:
        """Make a snapshot of what `row` has made of one."""
        crop = row["crop"]
        return cls(**{**row, "tags": tuple(row["tags"]), "crop": tuple(crop) if crop else None})

    def row(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def version(self) -> str:
        """Name the snapshot in 16 letters; two tabs that see the same version see the same."""
        return hashlib.sha256(json.dumps(self.row(), sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def put(self, item: Item) -> None:
        """Have the item's sidecar say it."""
        item.written, item.hand, item.tags, item.caption = self.written, self.hand, list(self.tags), self.text or ""
        item.dropped, item.detail, item.crop, item.emphasis = self.dropped, self.detail, self.crop, self.emphasis
        for name, stamp in ((KEPT, self.kept), (CLEAN, self.cleaned)):
            item.stamps.pop(name, None)
            if stamp:
                item.stamps[name] = stamp


def write(changes: Iterable[tuple[Item, Snapshot, Snapshot]], store: Store) -> None:
    """Put pictures from one snapshot into another on the disk: captions, strokes and masks, then sidecars; each file whole or not at all."""
    changes = list(changes)
    files: list[tuple[Path, str | bytes | None]] = []
    for item, before, after in changes:
        after.put(item)
        if after.text != before.text:
            files.append((caption_path(item.path), None if after.text is None else f"{after.text}\n"))
        if after.painted != before.painted:
            files.append((painted_path(item.key, store), base64.b64decode(after.painted) if after.painted else None))
    write_all(files)
    for item, before, after in changes:
        if after.painted != before.painted:
            update_mask(item, store)
    store.note(item for item, _, _ in changes)
    write_all(store.unsaved(item for item, _, _ in changes))
