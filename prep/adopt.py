"""Adopt: pictures of a class that somebody has already become regularization pictures, without those that would do harm."""

from __future__ import annotations

from pathlib import Path

from prep.captions import caption_path, read_caption, wordings
from prep.digests import sha256_file
from prep.images import PictureError, find_pictures, load
from prep.kinds import READABLE
from prep.options import UserError, atomic_write
from prep.stock import place_at
from prep.store import free_key
from prep.thumbs import Thumbs
from prep.tree import same_name
from prep.tree_rules import holds


def adopt(source: Path, folder: Path, keyword: str, thumbs: Thumbs) -> tuple[int, dict[str, str]]:
    """Link the pictures of `source`, with their captions, into `folder`; return how many are new there, and why others were left out.

    What is there already is not taken twice. Raises UserError if there is no picture, or a caption holds the keyword.
    """
    found = find_pictures(source, by_content=True)
    if not found:
        raise UserError(f"there are no pictures in {source} to adopt; check the path")
    leaking = [path.name for path in found if keyword and any(holds(line, keyword) for line in wordings(read_caption(path) or ""))]
    if leaking:
        raise UserError(f"the caption of {leaking[0]} in {source} holds the keyword {keyword!r}, which it would unteach; take it out of there")
    present = find_pictures(folder)
    known, taken = {sha256_file(path) for path in present}, {same_name(path.stem) for path in present}
    new, left_out = 0, dict[str, str]()
    for path in found:
        digest = sha256_file(path)
        if digest in known:
            continue
        known.add(digest)
        fault = _fault(path, thumbs)
        if fault:
            left_out[path.name] = fault
            continue
        _take(path, folder, free_key(path.stem, taken))
        new += 1
    return new, left_out


def _fault(path: Path, thumbs: Thumbs) -> str:
    try:
        image = load(path)
    except PictureError as error:
        return error.reason
    fault = thumbs.fault(image)
    if not fault:
        thumbs.add(image)
    return fault


def _take(path: Path, folder: Path, stem: str) -> None:
    """Put a picture into the folder, its caption first; one without a suffix that we know gets .png, since decoders go by content."""
    suffix = path.suffix.lower() if path.suffix.lower() in READABLE else ".png"
    target = folder / f"{stem}{suffix}"
    text = read_caption(path)
    if text:
        atomic_write(caption_path(target), text + "\n")
    place_at(path, target)
