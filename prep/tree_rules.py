"""What can be wrong with a tree: rules over folders, pictures and captions, each finding a sentence that says what to do."""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prep.captions import caption_path, parse, read_by_training, read_caption, wordings
from prep.clip_bpe import LENGTHS, count
from prep.images import READABLE, PictureError, find_pictures, load
from prep.options import UserError
from prep.tree import CAPTION_SUFFIXES, SIDES, Folder, parse_folder_name, regularization_use, same_name, subfolders, why_unusable

TREE_SUFFIXES = frozenset({".png", ".jpg", ".webp"})  # what every trainer reads
OTHER_PICTURES = READABLE - TREE_SUFFIXES | frozenset({".heics", ".ico", ".psd", ".svg", ".tga", ".mp4", ".webm"})


@dataclass(frozen=True)
class Finding:
    """Something amiss in a tree: an error spoils the training or part of it, a warning may."""

    level: Literal["error", "warning"]
    path: Path
    message: str


@dataclass(frozen=True)
class Caption:
    """The captions of a picture that are trained on, and what they are judged against."""

    lines: list[str]
    more: bool  # there are other lines, which nothing reads
    keyword: str  # that each must hold
    strange: tuple[str, ...] = ()  # keywords that it must not hold: it is a class's

    def lacks_keyword(self) -> bool:
        return bool(self.keyword) and not all(holds(line, self.keyword) for line in self.lines)

    def has_it_later(self) -> bool:
        return bool(self.keyword) and any(holds(line, self.keyword) and fold(parse(line)[0]) != fold(self.keyword) for line in self.lines)


# Level, does it apply, what to say.
CAPTION_RULES: tuple[tuple[Literal["error", "warning"], Callable[[Caption], bool], str], ...] = (
    ("error", lambda c: not c.lines, "the caption is empty, which stops sd-scripts; write tags into it, or delete the picture"),
    (
        "error",
        Caption.lacks_keyword,
        "the keyword is missing from the caption or a line of it; run `prep keyword`, then `prep build`",
    ),
    (
        "warning",
        Caption.has_it_later,
        "the keyword is not the first tag, so keep_tokens does not hold it in place; run `prep keyword`, then `prep build`",
    ),
    (
        "error",
        lambda c: any(holds(line, keyword) for line in c.lines for keyword in c.strange),
        "a regularization caption holds the keyword, which would unteach it; take it out of the caption",
    ),
    (
        "error",
        lambda c: max(map(count, c.lines), default=0) > LENGTHS[-1],
        f"the caption is longer than {LENGTHS[-1]} tokens and its end would be cut off; shorten it (`prep tokens` names the tags beyond)",
    ),
    (
        "warning",
        lambda c: c.more,
        "the caption has several lines, of which trainers read the first; with enable_wildcard = true under [train] they choose one each time",
    ),
)


def fold(text: str) -> str:
    """Write a text so that case, underscores, runs of blanks and Unicode forms make no difference."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().replace("_", " ").split())


def holds(text: str, keyword: str) -> bool:
    """Say whether a text holds the keyword as a whole word or words."""
    return re.search(rf"(?<!\w){re.escape(fold(keyword))}(?!\w)", fold(text)) is not None


def findings(root: Path, keyword: str, keywords: Mapping[str, str] | None = None, wildcard: bool = False) -> Iterator[Finding]:
    """Yield all that is amiss in the tree under `root`; `keywords` says for folders such as "img/10_mira 1girl" which is theirs.

    With `wildcard` every line of a caption is trained on, not the first alone.
    """
    if not (root / "img").is_dir():
        yield Finding("error", root, why_unusable(root))
        return
    yield from _loose_pictures(root)
    keywords = keywords or {}
    all_of_them = tuple(sorted({*keywords.values()} or {keyword} - {""}))
    folders = []
    for side in SIDES:
        yield from _loose_pictures(root / side)
        for path in subfolders(root / side):
            parsed = parse_folder_name(path.name)
            if not parsed:
                yield _bad_name(path)
                continue
            folder = Folder(path, *parsed, side == "reg", tuple(find_pictures(path)))
            folders.append(folder)
            own, strange = ("", all_of_them) if folder.is_reg else (keywords.get(f"img/{path.name}", keyword), ())
            for rule in FOLDER_RULES:
                yield from rule(folder, strange)
            for picture in folder.pictures:
                yield from _picture(picture)
                yield from _caption(picture, folder, Judged(own, strange, wildcard))
    yield from _whole(root, folders)


def _loose_pictures(folder: Path) -> Iterator[Finding]:
    loose = find_pictures(folder)
    if loose:
        yield Finding("error", folder, f"{_some(loose)} lie directly in it, where no trainer looks; move them into an N_concept folder")


def _bad_name(path: Path) -> Finding:
    head, _, rest = path.name.partition("_")
    if head.lstrip("-").isdecimal() and rest.strip():
        return Finding("error", path, f"{head} is not a number of repeats, so the folder is passed over; rename it to 1_{rest.strip()} or more")
    return Finding("error", path, f"the folder is not named N_concept, so it is passed over; rename it, for instance to 10_{path.name.strip(' _')}")


def _empty(folder: Folder, strange: tuple[str, ...]) -> Iterator[Finding]:
    if not folder.pictures:
        yield Finding("error", folder.path, "there is no picture in the folder; fill it or delete it")


def _reg_name(folder: Folder, strange: tuple[str, ...]) -> Iterator[Finding]:
    if any(holds(folder.concept, keyword) for keyword in strange):
        message = "a regularization folder is named after the keyword, and trainers use the name as caption; name it after the class alone"
        yield Finding("error", folder.path, message)


def _nested(folder: Folder, strange: tuple[str, ...]) -> Iterator[Finding]:
    for inner in subfolders(folder.path):
        buried = any(Path(name).suffix.lower() in READABLE for _, _, names in os.walk(inner) for name in names)
        level: Literal["error", "warning"] = "error" if buried else "warning"
        yield Finding(level, inner, f"a folder inside {folder.path.name} is not read by any trainer; move its pictures up or delete it")


def _suffixes(folder: Folder, strange: tuple[str, ...]) -> Iterator[Finding]:
    for path in _files(folder.path):
        low = path.suffix.lower()
        if low in OTHER_PICTURES:
            yield Finding("error", path, f"{path.suffix} is not read by every trainer; convert it to .png with `prep clean`, or delete it")
        elif low in TREE_SUFFIXES and path.suffix != low:
            yield Finding("warning", path, f"some trainers overlook the capital letters in {path.suffix}; rename it to {low}")


def _stems(folder: Folder, strange: tuple[str, ...]) -> Iterator[Finding]:
    first: dict[str, Path] = {}
    for path in _files(folder.path):
        if path.suffix.lower() in TREE_SUFFIXES | OTHER_PICTURES:
            other = first.setdefault(same_name(path.stem), path)
            if other != path:
                yield Finding("error", path, f"it would share one caption and one latent cache with {other.name}; rename one of the two")


def _orphans(folder: Folder, strange: tuple[str, ...]) -> Iterator[Finding]:
    stems = {picture.stem for picture in folder.pictures}
    for path in _files(folder.path):
        if path.suffix.lower() in CAPTION_SUFFIXES and path.stem not in stems:
            yield Finding("warning", path, "there is no picture for this caption; check the two names, or delete it")


FOLDER_RULES = (_empty, _reg_name, _nested, _suffixes, _stems, _orphans)


def _picture(picture: Path) -> Iterator[Finding]:
    try:
        load(picture)
    except PictureError as error:
        yield Finding("error", picture, f"the picture cannot be read ({error}); replace or delete it")


@dataclass(frozen=True)
class Judged:
    """What the captions of a folder are judged by."""

    keyword: str
    strange: tuple[str, ...]
    wildcard: bool

    def caption(self, text: str) -> Caption:
        lines = read_by_training(text, self.wildcard)
        return Caption(lines, len(wordings(text)) > len(lines), self.keyword, self.strange)


def _caption(picture: Path, folder: Folder, judged: Judged) -> Iterator[Finding]:
    path = caption_path(picture)
    try:
        text = read_caption(picture)
    except UserError:
        yield Finding("error", path, "the caption is not UTF-8 text; save it as UTF-8 in your editor")
        return
    if text is None:
        yield _without_caption(picture, folder)
        return
    if path.exists() and path.read_bytes().startswith(codecs.BOM_UTF8):
        message = "the caption begins with a byte order mark, which sd-scripts takes for part of the first tag; save it as UTF-8 without BOM"
        yield Finding("warning", path, message)
    caption = judged.caption(text)
    for level, applies, message in CAPTION_RULES:
        if applies(caption):
            yield Finding(level, path, message)


def _without_caption(picture: Path, folder: Folder) -> Finding:
    """Say which words stand in for a caption: those of the file that face croppers would have left, else the folder's name."""
    borrowed = face_caption(picture)
    if borrowed:
        message = f"there is no caption beside it, so sd-scripts takes {borrowed.name}, as if it were cut out of that picture; write one of its own"
        return Finding("error", picture, message)
    message = f"there is no caption beside it, so {folder.concept!r} would be used; run `prep tag`, or write one"
    return Finding("warning" if folder.is_reg else "error", picture, message)


def face_caption(picture: Path) -> Path | None:
    """Return the caption that sd-scripts takes for NAME_1_2_3_4.png if there is no NAME_1_2_3_4.txt: NAME.txt, if that is there.

    It counts underscores in the whole path and cuts off the last four parts, whatever they are.
    """
    parts = os.path.splitext(os.path.abspath(picture))[0].split("_")
    path = Path("_".join(parts[:-4]) + ".txt") if len(parts) >= 5 else None
    return path if path and path.is_file() else None


def _whole(root: Path, folders: list[Folder]) -> Iterator[Finding]:
    """Judge what only the whole tree shows: nothing to train on, folders that collide, regularization pictures left over."""
    if not any(folder.samples for folder in folders if not folder.is_reg):
        yield Finding("error", root / "img", "there is no N_concept folder with pictures in it, so there is nothing to train on; run `prep build`")
        return
    first: dict[tuple[bool, str], Folder] = {}
    for folder in folders:
        other = first.setdefault((folder.is_reg, same_name(folder.path.name)), folder)
        if other is not folder:
            yield Finding("warning", folder.path, f"on Windows and macOS it is the same folder as {other.path.name}; rename one of the two")
    wanted, _, unused = regularization_use(folders)
    if unused:
        message = f"sd-scripts would never use the last {unused} pictures, as {wanted} samples are enough; raise the repeats in img"
        yield Finding("warning", root / "reg", message)


def _files(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")), key=lambda path: path.name)


def _some(paths: Iterable[Path], most: int = 3) -> str:
    names = [path.name for path in paths]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
