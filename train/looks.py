"""What is known of the pictures of a tree, by the content of their files: a tree that was looked at once is not decoded again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prep.images import WHITE, Decoded, PictureError, decode, pixel_hash
from prep.options import UserError, atomic_write

VERSION = 2  # raise it when prep.images decodes something to other pixels, or a look holds more
BOX = 4  # PIL.Image.Resampling.BOX, without importing PIL
MOST = 200_000  # pictures that are remembered, some 100 MB; beyond it only those of the last run are


@dataclass(frozen=True)
class Look:
    """What a run must know of a picture before it is encoded."""

    digest: str  # of its pixels
    width: int
    height: int
    mask: str = ""  # digest of its transparency if that is a loss mask, else nothing
    thumb: str = ""  # hex of an 8 x 8 RGB thumbnail, by which copies are found


@dataclass
class Looks:
    """Looks by the hash of the picture's file, remembered in a JSON file if there is one."""

    path: Path | None = None
    known: dict[str, list[Any]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    @classmethod
    def open(cls, path: Path | None) -> Looks:
        """Read what was remembered; a file that is missing, broken or of another decoder is an empty one."""
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path else {}
            known = found["looks"] if found["decoder"] == _decoder() else {}
        except (OSError, ValueError, KeyError, TypeError):
            known = {}
        return cls(path, known if isinstance(known, dict) else {})

    def of(self, picture: Path, alpha_mask: bool) -> Look:
        """Look at a picture; raises UserError if it cannot be decoded."""
        with picture.open("rb") as file:
            key = f"{hashlib.file_digest(file, 'sha256').hexdigest()}/{int(alpha_mask)}"
        self.used.add(key)
        try:
            return Look(*self.known[key])
        except (KeyError, TypeError):
            look = _look(picture, alpha_mask)
        self.known[key] = list(dataclasses.astuple(look))
        return look

    def save(self) -> None:
        """Remember the looks for the next run."""
        if self.path:
            kept = self.known if len(self.known) <= MOST else {key: self.known[key] for key in self.used}
            try:
                atomic_write(self.path, json.dumps({"decoder": _decoder(), "looks": kept}))
            except OSError as error:
                advice = "make room, or set cache_latents_to_disk = false to keep it in memory"
                raise UserError(f"cannot write {self.path} ({error.strerror}); {advice}") from error


def opened(picture: Path, alpha_mask: bool) -> Decoded:
    """Decode a picture of the tree; the colours under its transparency are kept if that is a loss mask."""
    try:
        return decode(picture, None if alpha_mask else WHITE)
    except PictureError as error:
        raise UserError(f"{picture} cannot be read ({error}); mend it or take it out of the tree") from None


def _look(picture: Path, alpha_mask: bool) -> Look:
    decoded = opened(picture, alpha_mask)
    image, alpha = decoded.image, decoded.alpha if alpha_mask else None
    mask = hashlib.sha256(f"{alpha.size}".encode() + alpha.tobytes()).hexdigest() if alpha is not None else ""
    return Look(pixel_hash(image), *image.size, mask, image.convert("RGB").resize((8, 8), BOX).tobytes().hex())


def _decoder() -> list[Any]:
    import PIL

    return [VERSION, PIL.__version__]
