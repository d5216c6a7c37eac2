"""Store: the sidecars of a picture folder, one JSON file for each item."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from prep.caption_states import BLANK, CaptionStates
from prep.images import find_pictures, pixel_hash, save
from prep.item import Item
from prep.options import UserError, atomic_write

if TYPE_CHECKING:
    from PIL import Image
    from pydantic import ConfigDict, TypeAdapter

STORE = ".atelier"  # the hidden folder in which a picture folder keeps sidecars, scores and reports


@lru_cache
def _adapter() -> TypeAdapter[Item]:
    from pydantic import TypeAdapter  # a tenth of a second that `--help` need not pay

    return TypeAdapter(Item)


@dataclass
class _Row(Item):
    """An item as its sidecar has it, with paths from the folder."""

    __pydantic_config__: ClassVar[ConfigDict] = {"ser_json_inf_nan": "constants"}  # as json.dumps: null would not be read back
    path: str  # type: ignore[assignment]
    source: str | None = None  # type: ignore[assignment]


@lru_cache
def _rows() -> TypeAdapter[_Row]:
    from pydantic import TypeAdapter

    return TypeAdapter(_Row)


@dataclass
class _Glance:
    path: str
    dropped: str = ""


@lru_cache
def _glance() -> TypeAdapter[_Glance]:
    from pydantic import TypeAdapter

    return TypeAdapter(_Glance)


def _place(sidecar: str) -> tuple[str, str]:
    try:
        with open(sidecar, "rb") as file:
            row = _glance().validate_json(file.read())
    except ValueError:
        return "", ""  # reading all of it will say what is wrong
    return os.path.normpath(row.path), row.dropped


def _bytes(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


_ELSEWHERE = set(BLANK)  # fields that are in no sidecar


@dataclass(frozen=True)
class Store:
    """The sidecars of one picture folder: FOLDER/.atelier/items/KEY.json, paths in them relative to FOLDER.

    What captions change of an item is in a table instead, see prep.caption_states; a sidecar of an older version holds it too.
    """

    folder: Path
    # How many pictures `items` or `sources` found in their folder when they began, for who waits for all of them.
    listed: int = field(default=0, init=False, repr=False, compare=False)

    @property
    def hidden(self) -> Path:
        return self.folder / STORE

    @cached_property
    def _root(self) -> str:
        return os.path.abspath(self.folder)

    @cached_property
    def _items(self) -> str:
        return os.path.join(self.hidden, "items")

    @cached_property
    def _states(self) -> CaptionStates:
        return CaptionStates(self.hidden)

    def _sidecar(self, key: str) -> str:
        return f"{self._items}{os.sep}{key}.json"

    def save(self, item: Item) -> None:
        """Write what is known of the item, only if it differs from what is there."""
        self.note([item])
        for path, text in self.unsaved([item]):
            atomic_write(path, text)

    def note(self, items: Iterable[Item]) -> None:
        """Write what captions change of items, for who writes the sidecars of many at once."""
        self._states.put({item.key: item.caption_state() for item in items})

    def unsaved(self, items: Iterable[Item]) -> Iterator[tuple[Path, bytes]]:
        """Yield path and text of each item's sidecar that differs from what is there, for who writes many at once."""
        for item in items:
            path, text = self._sidecar(item.key), self._text(item)
            if _bytes(path) != text:
                yield Path(path), text

    def _text(self, item: Item) -> bytes:
        """Write an item as its sidecar has it; pydantic's own writer takes a tenth of the time of Python's `json` with an indent."""
        row = object.__new__(_Row)
        vars(row).update(vars(item), path=self._relative(item.path), source=item.source and self._relative(item.source))
        return _rows().dump_json(row, indent=1, exclude=_ELSEWHERE) + b"\n"

    def load(self) -> list[Item]:
        """Read all sidecars, sorted by key; raises UserError for one that was broken by hand."""
        return list(self.stream())

    def stream(self) -> Iterator[Item]:
        """Read the sidecars one by one, as `load` does, without holding them all."""
        keys = self.keys()
        for key, state in zip(keys, self._states.read(keys), strict=True):
            yield self._item(key, state)

    def get(self, key: str) -> Item | None:
        """Read one item's sidecar, if there is one."""
        return self._read(key) if os.path.exists(self._sidecar(key)) else None  # not Path.exists: it raises on an over-long name

    def forget(self, key: str) -> None:
        """Delete what is known of an item."""
        Path(self._sidecar(key)).unlink(missing_ok=True)
        self._states.forget(key)

    def keys(self) -> list[str]:
        """List the keys that have a sidecar, sorted."""
        folder = self.hidden / "items"
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        return [name.removesuffix(".json") for name in names if name.endswith(".json") and not name.startswith(".")]

    def _read(self, key: str) -> Item:
        return self._item(key, self._states.get(key))

    def _item(self, key: str, state: Mapping[str, Any] | None) -> Item:
        """Read a sidecar and add what the table says of its captions, if it has a row."""
        path = self._sidecar(key)
        try:
            with open(path, "rb", buffering=0) as file:
                item = _adapter().validate_json(file.read())
        except ValueError as error:
            line = str(error).replace("\n", " ")[:200]
            raise UserError(f"{path} is not a readable sidecar ({line}); mend it, or delete it to have it made anew") from None
        item.path = self._absolute(item.path)
        item.source = item.source and self._absolute(item.source)
        for name, value in (state or {}).items():
            setattr(item, name, value)
        return item

    def retouch(self, item: Item, image: Image.Image | None) -> None:
        """Keep a retouched copy of the item's picture, which then takes its place; None takes the copy away again."""
        path = self.hidden / "retouched" / f"{item.key}.png"
        if image is None:
            item.retouched = item.retouched_digest = ""
            path.unlink(missing_ok=True)
            return
        save(image, path)
        item.retouched, item.retouched_digest = Path(os.path.relpath(path, item.path.parent)).as_posix(), pixel_hash(image)

    def wrote(self, picture: Path, caption: str) -> bool:
        """Tell whether the caption beside a picture of this folder is as a command wrote it, not a person's."""
        item = self.get(picture.stem)
        return item is not None and not item.hand and item.written is not None and item.written.strip() == caption

    def _relative(self, path: Path) -> str:
        """Return the path from the folder, with slashes on every system; from another Windows drive there is only the whole path."""
        folder, name = os.path.split(os.path.abspath(path))
        if folder == self._root:
            return name
        try:
            return Path(os.path.relpath(path, self._root)).as_posix()
        except ValueError:
            return _plain(path).as_posix()

    def _absolute(self, path: Path) -> Path:
        return Path(os.path.normpath(os.path.join(self._root, path)))

    def items(self) -> Iterator[Item]:
        """Yield an item for every picture in the folder, and those set aside, with what their sidecars remember."""
        pictures = self._list(self.folder)
        keys, names = self.keys(), {picture.stem for picture in pictures}
        others = {key: _place(self._sidecar(key)) for key in keys if key not in names}  # most pictures have the sidecar of their name
        renamed = {path: key for key, (path, _) in others.items()}
        own = names.intersection(keys)
        places: dict[str, tuple[str, str]] | None = None
        taken: set[str] = set()
        likely = [renamed.get(picture.name, picture.stem) for picture in pictures]
        for picture, guess, state in zip(pictures, likely, self._states.read(likely), strict=True):
            key = renamed.get(picture.name, picture.stem)
            state = state if key == guess else self._states.get(key)
            item = self._item(key, state) if key in own or key in others else None
            if (item is None or item.path != picture) and places is None:  # rare: only now is it worth looking at all of them
                places = self._places()
                renamed, taken = (
                    {path: key for key, (path, _) in places.items() if os.path.splitext(path)[0] != key},
                    {_folded(key) for key in places},
                )
                key = renamed.get(picture.name, picture.stem)
                item = self._read(key) if places.get(key, ("", ""))[0] == picture.name else None
            yield item if item and item.path == picture else Item(free_key(picture.stem, taken), picture)
        elsewhere = (key for key, (path, dropped) in (others if places is None else places).items() if dropped and os.path.dirname(path))
        yield from (item for item in map(self._read, elsewhere) if item.path.exists())

    def _list(self, folder: Path, by_content: bool = False) -> list[Path]:
        """List the pictures of a folder under their whole paths, and note how many there are."""
        pictures = find_pictures(Path(os.path.abspath(folder)), by_content)
        object.__setattr__(self, "listed", len(pictures))
        return pictures

    def _places(self) -> dict[str, tuple[str, str]]:
        """Return where each sidecar says its picture is, and why that was set aside: key -> path and reason, read at a fifth of the time."""
        return {key: _place(self._sidecar(key)) for key in self.keys()}

    def sources(self, raw: Path, numbers: Callable[[Path], Iterable[int]] | None = None) -> Iterator[Item]:
        """Yield an item for every picture in a raw folder, keyed for this folder; keys once given stay.

        `numbers` says which frames of a file, counted from 1, are items; without it the first alone is. The first ones come before all
        others, so that no frame takes the name of another file.
        """
        find = self._finder(lambda item: (None if item.parent else item.source, item.frame))
        taken = {_folded(key) for key in self.keys()}
        pictures = self._list(raw, by_content=True)
        later = ((path, frame) for path in pictures for frame in numbers(path) if frame > 1) if numbers else ()
        for path, frame in chain(((path, 1) for path in pictures), later):
            yield find(path, frame) or Item(free_key(_stem(path, frame), taken), path, source=path, frame=frame)

    def _finder(self, place: Callable[[Item], tuple[Path | None, int]]) -> Callable[[Path, int], Item | None]:
        """Return what finds the item of a file and frame, which `place` tells; only keys that are not their stem are held in memory."""
        places = ((place(item), item.key) for item in self.stream())
        renamed = {(path, frame): key for (path, frame), key in places if path and _stem(path, frame) != key}

        def find(path: Path, frame: int) -> Item | None:
            item = self.get(renamed.get((path, frame), _stem(path, frame)))
            return item if item and place(item) == (path, frame) else None

        return find


def _stem(path: Path, frame: int) -> str:
    """Return what the key of a file's frame is if no other picture has it."""
    return path.stem if frame == 1 else f"{path.stem}-f{frame}"


def _plain(path: Path) -> Path:
    """Make a path absolute without following links, so that equal files have equal paths."""
    return Path(os.path.abspath(path))


def _folded(key: str) -> str:
    """Return what is equal for two names that are one on some system: case and the spelling of accents do not count there."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", key).casefold())


def free_key(stem: str, taken: set[str]) -> str:
    """Return `stem`, or stem-2, stem-3 ..., whichever no other picture has (case and spelling of accents ignored, as Windows and macOS do).

    Raises UserError for a file name that is no Unicode text, as some old archives leave on Linux.
    """
    if any("\ud800" <= sign <= "\udfff" for sign in stem):
        raise UserError(f"the file name {stem!r} is no readable text; rename that file")
    stem = stem[:180] or "picture"  # 255 bytes is the usual limit for a file name; leave room for suffixes
    while len(stem.encode("utf-8")) > 200:
        stem = stem[:-1]
    key, n = stem, 1
    while _folded(key) in taken:
        n += 1
        key = f"{stem}-{n}"
    taken.add(_folded(key))
    return key
