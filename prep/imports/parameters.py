"""Parameters: the prompt that generators write into their pictures, as AUTOMATIC1111's web UI and NovelAI do."""

from __future__ import annotations

import re
from pathlib import Path

from prep.captions import parse
from prep.imports import Asked, Found, tidy

EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
CODES = {b"UNICODE\0": "utf-16-be", b"ASCII\0\0\0": "utf-8", b"\0" * 8: "utf-8"}  # the first 8 bytes of a UserComment, by the Exif standard
# Where the positive prompt ends.
END = re.compile(r"^(Negative prompt:|Steps: \d)", re.MULTILINE)
EXTRA = re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>", re.IGNORECASE)  # networks called from the prompt
WEIGHT = re.compile(r":\s*-?\d*\.?\d+\s*(?=[)\]])")
BREAK = re.compile(r"\b(?:BREAK|AND)\b|\||\n")  # between parts of a prompt
ESCAPED = {"\\(": "\x00", "\\)": "\x01"}


def read(source: Path, asked: Asked) -> Found | None:
    """Read PNG text `parameters` (or NovelAI's `Description`), else Exif's UserComment."""
    text = _text(source)
    tags = prompt_tags(text) if text else []
    return Found(source, tidy({"general": tags})) if tags else None


def prompt_tags(text: str) -> list[str]:
    """Return the tags of a positive prompt, without networks, weights and the brackets that weigh."""
    end = END.search(text)
    prompt = EXTRA.sub("", text[: end.start()] if end else text)
    for sign, stand_in in ESCAPED.items():
        prompt = prompt.replace(sign, stand_in)
    prompt = re.sub(r"[()\[\]{}]", " ", WEIGHT.sub("", BREAK.sub(",", prompt)))
    return list(dict.fromkeys(" ".join(tag.replace("\x00", "(").replace("\x01", ")").split()) for tag in parse(prompt)))


def _text(source: Path) -> str:
    """Return what a generator wrote into the file, "" if nothing; pixels are not decoded."""
    from PIL import Image

    try:
        with Image.open(source) as image:
            info = dict(image.info)
            comment = image.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT, b"")
    except Exception:  # a file that is no sound picture says nothing; `prep clean` says why
        return ""
    if isinstance(info.get("parameters"), str):
        return str(info["parameters"])
    if info.get("Software") == "NovelAI" and isinstance(info.get("Description"), str):
        return str(info["Description"])
    text = decoded(comment) if isinstance(comment, bytes) else str(comment)
    return text if END.search(text) else ""  # cameras write other things there


def decoded(comment: bytes) -> str:
    """Decode an Exif UserComment; UTF-16 is tried in both orders, since programs disagree on it."""
    code = CODES.get(comment[:8])
    if code is None:
        return comment.decode("utf-8", "replace")
    body = comment[8:]
    if code == "utf-16-be" and body[1:2] == b"\0":
        code = "utf-16-le"
    return body.decode(code, "replace").strip("\0 ")
