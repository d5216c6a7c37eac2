"""Clean: raw pictures in whatever state become RGB, sRGB, upright pictures under names of their own; raw/ is only read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image, ImageColor

from prep.captions import read_caption
from prep.decisions import ASIDE
from prep.detectors import HELP, detector, names_of
from prep.images import Decoded, PictureError, decode, encode, frame_numbers, frames, load, pixel_hash
from prep.item import Item
from prep.masks import keep_alpha, update_mask
from prep.options import UserError, atomic_write, option
from prep.project import Place
from prep.quality import LIMITS, content_box, faults, measure
from prep.step import ParallelStep
from prep.store import Store

GONE = "source_gone"
LEFT_OUT = "frame_left_out"
PASSING = (GONE, LEFT_OUT, "needs_package")  # reasons that may be over though neither file nor options changed


@dataclass(frozen=True)
class Clean(ParallelStep):
    """Decode every raw picture, put it right (rotation, colour, transparency, 16 bits, CMYK) and write it to work/.

    A file is taken for what it is, whatever its name says. Pictures that are broken or too small are set aside with the reason. The raw
    files are never changed. On a bare folder ROOT the result goes to ROOT-clean, or to --out.
    """

    batch: ClassVar[int] = 1  # a picture at a time: a broken one costs no other its work, and memory stays flat

    format: str = option("png", help="Format of the cleaned pictures.", choices=("png", "webp", "jpg"))
    quality: int = option(95, help="Quality of webp and jpg.", min=1, max=100)
    trim_borders: bool = option(True, help="Cut off uniform borders and letterboxes.")
    min_side: int = option(200, help="Pictures whose shorter side has fewer pixels are set aside.", min=1)
    check: bool = option(True, help="Measure quality and set aside what is beyond the limits below; 0 switches one off.")
    min_megapixels: float = option(0.0, help="Least megapixels.", min=0)
    min_contrast: float = option(8.0, help="Least levels of 255 between dark and bright; below is an empty picture.", min=0)
    max_blur: float = option(0.7, help="Most width of the sharpest edges, in percent of the shorter side.", min=0)
    max_overexposed: float = option(0.5, help="Most share of blown-out pixels.", min=0, max=1)
    max_underexposed: float = option(0.995, help="Most share of pixels darker than white three stops down.", min=0, max=1)
    max_blockiness: float = option(3.2, help="Most coarseness of JPEG's rounding; 1 is that of quality 50.", min=0)
    min_chroma: float = option(0.0, help="Least levels between the channels; 10 sets grey pictures aside.", min=0)
    detector: str = option("face", help=f"In whose box sharpness is measured: {HELP}.")
    background: str = option("white", help="Colour under transparent parts: a name or #rrggbb.")
    frames: int = option(1, help="So many frames of an animation, spread evenly, become pictures of their own.", min=1, max=10_000, matters=False)
    report: bool = option(True, help="Write report.html: what was set aside, changed and kept.", matters=False)
    out: str = option("", help="Where the cleaned pictures of a bare folder go.", matters=False)

    @property
    def pictured(self) -> bool:
        return self.report

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
        for item in store.sources(raw, partial(frame_numbers, count=self.frames) if self.frames > 1 else None):
            if item.dropped in PASSING:
                item.stamps.pop(self.table(), None)  # nothing else tells that it may be otherwise now
            if item.dropped not in ("", ASIDE) and self.stamp(item) != item.stamps.get(self.table()):
                item.drop("")
            yield item
        if store.listed:
            yield from self._orphans(store)

    def _orphans(self, store: Store) -> Iterator[Item]:
        """Yield, set aside, the items whose raw file is no longer there, or of whose file this frame is no longer asked for."""
        for item in store.stream():
            if item.source and not item.source.exists():
                item.drop(GONE, f"{item.source.name} is no longer among the raw pictures")
            elif item.source and item.frame > 1 and not item.parent and item.frame not in frame_numbers(item.source, self.frames):
                item.drop(LEFT_OUT, f"frame {item.frame} of {item.source.name} is not among the {self.frames} asked for")
            else:
                continue
            store.save(item)
            yield item

    def nothing(self, place: Place) -> str:
        return f"there are no pictures in {_raw(place)}; put yours there"

    def inputs(self, item: Item) -> Any:
        if item.source is None:
            return None
        stat = item.source.stat()
        known = [stat.st_size, stat.st_mtime_ns, read_caption(item.source), item.path.exists()]
        return known if item.frame == 1 else [*known, item.frame, self.frames]  # whether a later frame looks new depends on those between

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        for item in batch:
            self._clean(item, store)
            yield item

    def _clean(self, item: Item, store: Store) -> None:
        source = item.source or item.path
        item.source_sha256 = _file_hash(source)
        caption = read_caption(source)  # `prep tag` on the raw folder may have written it; then it is compiled anew here
        item.imported_caption = None if caption and Store(source.parent).wrote(source, caption) else caption
        decoded = self._decode(source, item.frame)
        if decoded is None:
            item.drop("frame_repeated", f"frame {item.frame} of {source.name} looks like the one before")
            return
        item.notes = decoded.notes + (["renamed_suffix"] if decoded.suffix not in ("", source.suffix) else [])
        if self.trim_borders:
            self._trim(item, decoded)
        if fault := self._fault(item, decoded.image):
            item.drop(*fault)
        if item.dropped:
            return
        self._write(item, decoded, store)
        keep_alpha(item, store, decoded.alpha)
        update_mask(item, store)

    def _trim(self, item: Item, decoded: Decoded) -> None:
        """Cut off the borders of a decoded picture and of its transparency."""
        box = content_box(decoded.image)
        if box != (0, 0, *decoded.image.size):
            decoded.image, decoded.alpha = decoded.image.crop(box), decoded.alpha and decoded.alpha.crop(box)
            item.notes.append("border_trimmed")

    def _fault(self, item: Item, image: Image.Image) -> tuple[str, str] | None:
        """Measure a picture, and say why it is set aside, if it is."""
        item.width, item.height = image.size
        if min(image.size) < self.min_side or not self.check:  # the numbers of a thumbnail say nothing
            item.measures = {"side": float(min(image.size))}
            return faults(item.measures, {"min_side": self.min_side})
        boxes = [box for found in (detector(name)([image]) for name in names_of(self.detector)) for box in found[0]]
        item.measures = measure(image, boxes)
        return faults(item.measures, {limit.option: getattr(self, limit.option) for limit in LIMITS})

    def _decode(self, source: Path, frame: int) -> Decoded | None:
        """Decode the frame; None if it is a later one that shows nothing new."""
        if frame == 1:
            return decode(source, self._background())
        return next((decoded for decoded in frames(source, self.frames, self._background()) if decoded.frame == frame), None)

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


def _file_hash(path: Path) -> str:
    """Return the sha256 of a file; raises PictureError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PictureError("unreadable", f"{path.name} cannot be read: {error.strerror}") from None


def _raw(place: Place) -> Path:
    """Say where the raw pictures are: raw/ in a project, the folder itself else; absolute, as the store's folder is."""
    return Path(os.path.abspath(place.raw if place.is_project else place.root))
