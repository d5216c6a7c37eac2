"""Clean: raw pictures in whatever state become RGB, sRGB, upright pictures under names of their own; raw/ is only read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL import ImageColor

from prep.captions import read_caption
from prep.images import Decoded, decode, encode, find_pictures, load, pixel_hash
from prep.item import Item, Store
from prep.masks import keep_alpha, update_mask
from prep.options import UserError, atomic_write, option
from prep.project import Place
from prep.step import Step

GONE = "source_gone"


@dataclass(frozen=True)
class Clean(Step):
    """Decode every raw picture, put it right (rotation, colour, transparency, 16 bits, CMYK) and write it to work/.

    Pictures that are broken or too small are set aside with the reason. The raw files are never changed. On a bare folder ROOT the
    result goes to ROOT-clean, or to --out.
    """

    batch: ClassVar[int] = 1  # a picture at a time: a broken one costs no other its work, and memory stays flat

    format: str = option("png", help="Format of the cleaned pictures.", choices=("png", "webp", "jpg"))
    quality: int = option(95, help="Quality of webp and jpg.", min=1, max=100)
    min_side: int = option(200, help="Pictures whose shorter side has fewer pixels are set aside.", min=1)
    background: str = option("white", help="Colour under transparent parts: a name or #rrggbb.")
    out: str = option("", help="Where the cleaned pictures of a bare folder go.")

    def store(self, place: Place) -> Store:
        if place.is_project and self.out:
            raise UserError("in a project the cleaned pictures go to its work folder; leave --out away, or change work in [project]")
        raw = _raw(place)
        beside = self.out or raw.with_name(f"{raw.name}-clean")
        folder = Path(os.path.abspath(place.work if place.is_project else beside))
        if folder.resolve() == raw.resolve():
            raise UserError(f"the cleaned pictures cannot go to {raw}, where the raw ones are; name another folder")
        return Store(folder)

    def read(self, place: Place, store: Store) -> Iterator[Item]:
        """Yield the raw pictures; those set aside have another chance when their file or the options changed."""
        raw = _raw(place)
        if not find_pictures(raw):
            return
        for item in store.sources(raw):
            if item.dropped and (item.dropped == GONE or self.stamp(item) != item.stamps.get(self.table())):
                item.drop("")
                store.save(item)
            yield item
        yield from self._orphans(store)

    def _orphans(self, store: Store) -> Iterator[Item]:
        """Yield, set aside, the items whose raw file is no longer there."""
        for item in store.load():
            if item.source and not item.source.exists():
                item.drop(GONE, f"{item.source.name} is no longer among the raw pictures")
                store.save(item)
                yield item

    def nothing(self, place: Place) -> str:
        return f"there are no pictures in {_raw(place)}; put yours there"

    def inputs(self, item: Item) -> Any:
        if item.source is None:
            return None
        stat = item.source.stat()
        return [stat.st_size, stat.st_mtime_ns, read_caption(item.source), item.path.exists()]

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        for item in batch:
            self._clean(item, store)
            yield item

    def _clean(self, item: Item, store: Store) -> None:
        source = item.source or item.path
        item.source_sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
        caption = read_caption(source)  # `prep tag` on the raw folder may have written it; then it is compiled anew here
        item.imported_caption = None if caption and Store(source.parent).wrote(source, caption) else caption
        decoded = decode(source, self._background())
        item.notes = decoded.notes + (["renamed_suffix"] if decoded.suffix not in ("", source.suffix) else [])
        item.width, item.height = decoded.image.size
        if min(decoded.image.size) < self.min_side:
            item.drop("too_small", f"{item.width} x {item.height}, the shorter side should have {self.min_side}")
        else:
            self._write(item, decoded, store)
            keep_alpha(item, store, decoded.alpha)
            update_mask(item, store)

    def _write(self, item: Item, decoded: Decoded, store: Store) -> None:
        """Write the picture to the store's folder; another format's file from an earlier run is replaced by it."""
        target, before = store.folder / f"{item.key}.{self.format}", item.path
        data = encode(decoded.image, target.suffix, self.quality)
        if not target.exists():
            atomic_write(target, data)
        elif target.read_bytes() != data:
            if before != target:
                raise UserError(f"{target} was not made from {item.source}; rename one of the two")
            atomic_write(target, data)
        if before != target and before.parent == target.parent:
            before.unlink(missing_ok=True)
        digest = pixel_hash(decoded.image if self.format == "png" else load(target))
        if digest != item.digest:
            item.digest, item.boxes, item.marks, item.masked, item.crop = digest, [], [], [], None
            store.retouch(item, None)
        item.path = target

    def _background(self) -> tuple[int, int, int]:
        try:
            red, green, blue = ImageColor.getrgb(self.background)[:3]
        except ValueError:
            raise UserError(f"{self.background!r} is no colour; give a name such as white, or #rrggbb") from None
        return red, green, blue


def _raw(place: Place) -> Path:
    """Say where the raw pictures are: raw/ in a project, the folder itself else; absolute, as the store's folder is."""
    return Path(os.path.abspath(place.raw if place.is_project else place.root))
