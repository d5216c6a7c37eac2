"""Masks: which parts of a picture the loss leaves out, kept beside the picture as NAME.mask.png (white is learned, black is not)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageDraw

from prep.images import MASK, encode
from prep.item import Item
from prep.options import atomic_write
from prep.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable


UNTOUCHED = 128  # where nobody has painted


def mask_path(item: Item) -> Path:
    """Return where the item's mask lies, if it has one."""
    return item.path.with_name(item.key + MASK)


def alpha_path(item: Item, store: Store) -> Path:
    """Return where `prep clean` keeps the transparency that the raw picture had."""
    return store.hidden / "alpha" / f"{item.key}.png"


def cutout_path(item: Item, store: Store) -> Path:
    """Return where `prep subject` keeps the subject's share in each pixel, if the background is to be left out."""
    return store.hidden / "cutout" / f"{item.key}.png"


def painted_path(key: str, store: Store) -> Path:
    """Return where a person's strokes on a picture's mask are kept (L): black is left out, white is learned, grey is as it was."""
    return store.hidden / "painted" / f"{key}.png"


def keep_alpha(item: Item, store: Store, alpha: Image.Image | None) -> None:
    """Keep the transparency (L, 255 = opaque) that a raw picture had, or none."""
    _put(alpha_path(item, store), alpha)


def keep_cutout(item: Item, store: Store, cutout: Image.Image | None) -> None:
    """Keep what `prep subject` cut out (L, 255 = subject) as a layer of the item's mask, or nothing."""
    _put(cutout_path(item, store), cutout)


def update_mask(item: Item, store: Store) -> None:
    """Write the item's mask anew from its transparency, its cut-out, the boxes in `item.masked` and, on top, a person's strokes.

    There is no mask if all is learned.
    """
    mask = Image.new("L", (item.width, item.height), 255)
    for path in (alpha_path(item, store), cutout_path(item, store)):
        if path.exists():
            with Image.open(path) as layer:
                if layer.size == mask.size:  # else it is of a picture that has been replaced since
                    mask = ImageChops.darker(mask, layer.convert("L"))
    draw = ImageDraw.Draw(mask)
    for box in item.masked:
        draw.rectangle((box.x0, box.y0, box.x1 - 1, box.y1 - 1), fill=0)  # the corner is inside, for Pillow
    strokes = painted_path(item.key, store)
    if strokes.exists():
        with Image.open(strokes) as image:
            painted = image.convert("L")
        if painted.size == mask.size:
            mask = Image.composite(painted, mask, painted.point(lambda level: 255 * (level != UNTOUCHED)))
    _put(mask_path(item), None if mask.getextrema()[0] == 255 else mask)


def loss_mask(item: Item) -> Image.Image | None:
    """Return the mask (L) of the item's picture with the crop applied; None if all of it is learned."""
    path = mask_path(item)
    if not path.exists():
        return None
    with Image.open(path) as image:
        mask = image.convert("L")
    if mask.size != (item.width, item.height):
        return None  # of a picture that has been replaced since
    return mask.crop(item.crop) if item.crop else mask


def with_mask(image: Callable[[], Image.Image], mask: Callable[[], Image.Image | None]) -> Image.Image:
    """Return the picture with its mask as alpha, the colours beneath kept; RGB if there is no mask."""
    picture, alpha = image(), mask()
    if alpha is None or ImageChops.invert(alpha).getbbox() is None:
        return picture
    picture.putalpha(alpha)
    return picture


def _put(path: Path, image: Image.Image | None) -> None:
    if image is None:
        path.unlink(missing_ok=True)
        return
    data = encode(image, ".png")
    if not path.exists() or path.read_bytes() != data:
        atomic_write(path, data)
