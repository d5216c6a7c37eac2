"""Build: write the tree that trainers read from the kept pictures, their captions and the regularization pictures."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prep.captions import read_caption
from prep.images import PictureError, find_pictures, load
from prep.item import Item, Store, free_key
from prep.masks import loss_mask, mask_path, with_mask
from prep.options import UserError, option
from prep.project import Command, Place
from prep.run import track
from prep.tokens import caption_of
from prep.tree import PlannedPicture, TreePlan, folder_name, publish, sha256_file

if TYPE_CHECKING:
    from PIL import Image

TOOLS = ("lora-atelier", "pillow")  # whose versions decide the bytes of the pictures


@dataclass(frozen=True)
class Build(Command):
    """Write tree/img/N_keyword class and tree/reg/N_class with a manifest; the old tree is replaced only when the new one is whole."""

    keyword: str = option("", "-k", help="The concept word.")
    class_: str = option("", help="What the concept is one of.")
    repeats: int = option(0, help="How often an epoch shows each picture; 0 = chosen by --target.", min=0, max=10_000)
    reg_repeats: int = option(1, help="The same for regularization pictures.", min=1, max=10_000)
    target: int = option(200, help="Samples an epoch to aim at when the repeats are chosen.", min=1)
    masks: bool = option(True, help="Put loss masks into the pictures as transparency; the colours beneath stay.")

    def ready(self, place: Place) -> None:
        if not self.keyword.strip():
            raise UserError("there is no keyword; give --keyword, or keyword under [project] in dataset.toml (`prep rare` proposes some)")

    def main(self, place: Place) -> None:
        self.ready(place)
        items = kept_items(place)
        reg = find_pictures(place.reg)
        if reg and not self.class_.strip():
            raise UserError(f"{place.reg} holds pictures of a class, but which is not said; give --class, or class under [project] in dataset.toml")
        repeats = self.repeats_for(len(items))
        pictures = [*self._plan_items(items, repeats), *self._plan_reg(reg)]
        facts = {"keyword": self.keyword, "class": self.class_, "repeats": repeats, "tools": tool_versions()}
        kept = publish(place.tree, TreePlan(track(pictures, "build", len(pictures)), facts))
        samples = f"{len(items)} pictures x {repeats} repeats = {sum(_repeats(item, repeats) for item in items)} samples an epoch"
        print(f"{place.tree}: {samples}, {len(reg)} regularization pictures")
        if kept:
            print(f"the old tree held edits by hand and is kept as {kept}; captions are best edited in {place.work}")

    def repeats_for(self, kept: int) -> int:
        """Return the repeats for this many pictures: as set, or so that an epoch comes to about `target` samples."""
        return self.repeats or max(1, round(self.target / max(1, kept)))

    def _plan_items(self, items: list[Item], repeats: int) -> Iterator[PlannedPicture]:
        """Plan the pictures of the concept, those of equal repeats in one folder, with where they came from and what was done to them."""
        taken: set[str] = set()
        for item in items:
            folder = f"img/{folder_name(_repeats(item, repeats), f'{self.keyword} {self.class_}')}"
            mask = mask_path(item)
            record: dict[str, Any] = {
                "source": (item.source or item.path).name,
                "source_sha256": item.source_sha256 or sha256_file(item.path),
                "work_sha256": sha256_file(item.picture),
                "mask_sha256": sha256_file(mask) if self.masks and mask.exists() else None,
                "operations": [*item.notes, *(["retouched"] if item.retouched else []), *(["cropped"] if item.crop else [])],
                "crop": list(item.crop) if item.crop else None,
                "versions": tool_versions(),
            }
            pixels = partial(with_mask, item.image, partial(loss_mask, item)) if self.masks else item.image
            yield PlannedPicture(folder, _stem(item.key, taken), partial(_pixels, item.picture, pixels), caption_of(item) or "", record)

    def _plan_reg(self, pictures: list[Path]) -> Iterator[PlannedPicture]:
        if not pictures:
            return
        folder, taken = f"reg/{folder_name(self.reg_repeats, self.class_)}", set[str]()
        for path in pictures:
            record = {"source": path.name, "source_sha256": sha256_file(path), "operations": [], "versions": tool_versions()}
            yield PlannedPicture(
                folder, _stem(path.stem, taken), partial(_pixels, path, partial(load, path)), read_caption(path) or self.class_, record
            )


def kept_items(place: Place) -> list[Item]:
    """Return the pictures that go into the tree; raises UserError if there are none or one has no caption."""
    items = [item for item in Store(place.work).items() if not item.dropped]
    if not items:
        raise UserError(f"there is no kept picture in {place.work}, so no tree is built; run `prep clean`, and see what it set aside and why")
    bare = [item.path.name for item in items if not caption_of(item)]
    if bare:
        listed = ", ".join(bare[:3]) + (" …" if len(bare) > 3 else "")
        raise UserError(f"there is no caption for {listed} in {place.work}; run `prep tag`, or write the .txt files")
    return items


def _repeats(item: Item, repeats: int) -> int:
    return max(1, round(repeats * item.emphasis))


def _pixels(path: Path, image: Callable[[], Image.Image]) -> Image.Image:
    """Decode a picture that an earlier step could read; raises UserError if it has been damaged since."""
    try:
        return image()
    except PictureError as error:
        raise UserError(f"{path} cannot be read any more ({error}); replace or delete it, then run `prep build` again") from None


def tool_versions() -> dict[str, str]:
    """Return the versions of what makes the pictures; a change of them has the tree written anew."""
    return {name: _version(name) for name in TOOLS}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a source folder that is not installed
        return "not installed"


def _stem(key: str, taken: set[str]) -> str:
    """Name a picture in the tree: composed Unicode, and distinct also where case is ignored."""
    return free_key(unicodedata.normalize("NFC", key), taken)
