"""Item: one picture on its way from raw/ to the tree, and all that is known of it; prep.store keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.caption_states import BLANK
from prep.decisions import overruled
from prep.images import load, pixel_hash

if TYPE_CHECKING:
    from PIL import Image


@dataclass
class Box:
    """A detected thing: corners in pixels of the uncropped picture (x1, y1 exclusive), label and score in 0..1."""

    label: str
    score: float
    x0: int
    y0: int
    x1: int
    y1: int


@dataclass
class Item:
    """One picture and all that is known of it; what is set aside keeps flowing, with the reason in `dropped`."""

    key: str  # unique in its folder; the stem of the files made from it
    path: Path  # the picture as it now stands
    source: Path | None = None  # the raw file it came from
    source_sha256: str = ""
    frame: int = 1  # which one of its source's, if that is an animation
    digest: str = ""  # prep.images.pixel_hash of the picture at `path`
    width: int = 0
    height: int = 0
    notes: list[str] = field(default_factory=list)  # what was done to the pixels, snake_case
    measures: dict[str, float] = field(default_factory=dict)  # name -> number, see prep.quality
    boxes: list[Box] = field(default_factory=list)  # of the subject and of other people
    marks: list[Box] = field(default_factory=list)  # text, signatures and watermarks that are in the picture
    masked: list[Box] = field(default_factory=list)  # parts that the loss leaves out; the label says why
    retouched: str = ""  # path from the picture's folder to a copy without marks or background, which takes its place
    retouched_digest: str = ""
    proposed: str = ""  # snake_case reason for which a step would set the picture aside; a person decides
    distance: float | None = None  # from the concept, see prep.identity
    parent: str = ""  # key of the picture that this one was cut out of
    stage: str = ""  # and as what: whole, half, head
    emphasis: float = 1.0  # how often it is shown in training, relative to the others
    crop: tuple[int, int, int, int] | None = None  # x0, y0, x1, y1 in pixels of the picture
    sentences: list[str] = field(default_factory=list)  # what `prep describe` said of it, the likeliest first
    tags: list[str] = field(default_factory=list)  # compiled, without the keyword
    keyword: str = ""
    full_name: str = ""  # the character's own name, which `prep keyword` took out
    caption: str = ""
    written: str | None = None  # the caption text we wrote last; a file that differs was edited by hand
    hand: bool = False  # the caption is a person's: kept as it is
    imported_caption: str | None = None  # came with the raw picture
    tokens: int | None = None
    dropped: str = ""  # snake_case reason; empty = kept
    detail: str = ""  # the reason in numbers or names
    stamps: dict[str, str] = field(default_factory=dict)  # step name -> fingerprint of what it last worked from

    @property
    def picture(self) -> Path:
        """The file whose pixels count: the retouched copy if there is one."""
        return self.path.parent / self.retouched if self.retouched else self.path

    @property
    def picture_digest(self) -> str:
        """The pixel_hash of `picture`."""
        return self.retouched_digest if self.retouched else self.digest

    def image(self) -> Image.Image:
        """Decode the picture, RGB, with the crop applied; raises PictureError."""
        image = load(self.picture)
        return image.crop(self.crop) if self.crop else image

    def caption_state(self) -> dict[str, Any]:
        """Return what prep.caption_states keeps of the item: all that captions change."""
        return {name: getattr(self, name) for name in BLANK}

    def see(self, image: Image.Image) -> None:
        """Note size and digest of the item's picture, which has just been decoded."""
        self.width, self.height = image.size
        if self.retouched:
            self.retouched_digest = pixel_hash(image)
        else:
            self.digest = pixel_hash(image)

    def drop(self, reason: str, detail: str = "") -> None:
        """Set the item aside, or bring it back without a reason; the file stays where it is, and a person who keeps it has the last word."""
        if not overruled(self.stamps, reason):
            self.dropped, self.detail = reason, detail
