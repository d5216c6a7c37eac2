"""Lettering: which lines of text were laid over a picture (addresses, signatures, watermarks) and which belong to its scene."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prep.detectors.text import Line
from prep.item import Box

# Words that an artist, a shop or a site writes over pictures and that shop signs and shirts seldom say, as they are read without spaces.
WORDS = ("sample", "preview", "proof", "draft", "watermark", "copyright", "donot", "notcopy", "allrights", "reserved", "repost", "shutterstock")
SITES = ("patreon", "pixiv", "twitter", "fanbox", "deviantart", "instagram", "artstation", "gumroad", "tumblr", "weibo", "bsky", "skeb", "fantia")
# An address, a handle, a copyright sign; OCR reads some dots and brackets wrongly.
ADDRESS = re.compile(
    r"www[.,]|https?[:;]|[\w-]+[.,](com|net|org|art|info|jp|co|ru|me|tv|io|to)\b|^@\s?\w{3,}|\s@\w{3,}|^[(\[]?c[)\]]\s?\w|©", re.IGNORECASE
)

STRIP = 0.15  # share of the picture's side; a line whose centre is nearer to an edge is at the edge
LETTERS = 3  # fewer are no word; digits do not count, as rows of rings and rivets are read as digits
# Least probability of the characters. Measured on 60 clean pictures and 180 marked ones by benchmarks/marks.py.
READ = {"address": 0.6, "signature": 0.6, "watermark": 0.65, "repeated": 0.7}
TIMES = 3  # a text that is there as often is a pattern laid over the picture
IN_FACE = 0.7  # share of a line's box inside a face from which it is the face that was read
GAP = 0.6  # of a line's height: what is found nearer to a mark in its own line belongs to it


@dataclass(frozen=True)
class Scene:
    """What a rule may look at: all lines of a picture and its size in pixels."""

    lines: Sequence[Line]
    size: tuple[int, int]


def _is_address(line: Line, scene: Scene) -> bool:
    text = line.text.lower()
    bare = re.sub(r"[^a-z]", "", text)
    return line.read >= READ["address"] and (bool(ADDRESS.search(text)) or any(word in bare for word in (*WORDS, *SITES)))


def _is_signature(line: Line, scene: Scene) -> bool:
    return line.read >= READ["signature"] and line.letters >= LETTERS and _at_edge(line, scene.size)


def _is_watermark(line: Line, scene: Scene) -> bool:
    return line.faint and line.read >= READ["watermark"] and line.letters >= LETTERS


def _is_repeated(line: Line, scene: Scene) -> bool:
    same = [other for other in scene.lines if other.text == line.text and other.read >= READ["repeated"]]
    return line.read >= READ["repeated"] and line.letters >= LETTERS and len(same) >= TIMES


# Label of the mark -> the rule by which it is told; the first that holds names it.
RULES: dict[str, Callable[[Line, Scene], bool]] = {
    "address": _is_address,
    "signature": _is_signature,
    "watermark": _is_watermark,
    "repeated": _is_repeated,
}


def marks_of(lines: Sequence[Line], size: tuple[int, int], faces: Sequence[Box] = ()) -> list[tuple[str, Line]]:
    """Return the lines that were laid over the picture, each with the name of its kind, those of the same overlay with them."""
    scene = Scene(lines, size)
    certain = [(name, line) for line in lines if (name := _kind(line, scene)) and not _is_face(name, line, faces, size)]
    rest = [line for line in lines if all(line is not other for _, other in certain)]
    return certain + [(name, line) for line in rest if (name := _neighbour(line, certain, size))]


def scene_text(lines: Sequence[Line], size: tuple[int, int]) -> list[Line]:
    """Return the lines that are read well and belong to the scene: signs, prints on clothes."""
    taken = [line for _, line in marks_of(lines, size)]
    return [line for line in lines if line.read >= READ["signature"] and line.letters >= LETTERS and all(line is not other for other in taken)]


def _kind(line: Line, scene: Scene) -> str:
    return next((name for name, rule in RULES.items() if rule(line, scene)), "")


def _is_face(name: str, line: Line, faces: Sequence[Box], size: tuple[int, int]) -> bool:
    """Say whether a line is rather a face that was read as letters; an address is none."""
    box = line.box("", size)
    area = (box.x1 - box.x0) * (box.y1 - box.y0)
    return name != "address" and any(_common(box, face) >= IN_FACE * area for face in faces)


def _at_edge(line: Line, size: tuple[int, int]) -> bool:
    across, down = (sum(values) / len(values) / side for values, side in zip(zip(*line.corners, strict=True), size, strict=True))
    return min(down, 1 - down) < STRIP or min(across, 1 - across) < STRIP / 2


def _neighbour(line: Line, certain: Sequence[tuple[str, Line]], size: tuple[int, int]) -> str:
    """Return the kind of the mark that a line, however badly read, goes on: next to it, and as high within a half."""
    box = line.box("", size)
    for name, other in certain:
        near, height = other.box("", size), other.height
        gap = round(GAP * height)
        beside = _common(box, Box("", 0, near.x0 - gap, near.y0, near.x1 + gap, near.y1)) > 0 and near.y0 <= (box.y0 + box.y1) / 2 <= near.y1
        if beside and 2 / 3 < line.height / height < 3 / 2:
            return name
    return ""


def _common(a: Box, b: Box) -> int:
    return max(min(a.x1, b.x1) - max(a.x0, b.x0), 0) * max(min(a.y1, b.y1) - max(a.y0, b.y0), 0)
