"""Cut-outs: the subject told from its background, kept as a layer of the loss mask, or used in a retouched copy over that of `prep marks`."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, cast

from prep.detectors import DETECTORS, detector, locate
from prep.images import PictureError, load, pixel_hash, save
from prep.item import Item
from prep.options import UserError, load_object
from prep.store import Store

if TYPE_CHECKING:
    from PIL import Image

CUTOUT = "cutout"  # the stamp with the digest of the copy that `prep subject` made
SALIENCY = "saliency"


class Cutter(Protocol):
    """What can tell a subject from its background."""

    def cutout(self, image: Image.Image) -> Image.Image:
        """Return the subject's share in each pixel of an RGB picture, L of its size."""
        ...


@lru_cache
def cutter(name: str, device: str) -> Cutter:
    """Return the cutter of a row or of a U2-Net model file; raises UserError for a detector that knows only boxes."""
    found = detector(name, device) if name in DETECTORS else load_object(DETECTORS[SALIENCY].kind)(locate(name), DETECTORS[SALIENCY], device)
    if not hasattr(found, "cutout"):
        raise UserError(f"the detector {name} finds boxes and cannot cut out; give --cutter {SALIENCY}, or a U2-Net .onnx file")
    return cast(Cutter, found)


def under(item: Item, store: Store) -> Image.Image | None:
    """Return the retouched copy that an earlier step made, without what `prep subject` did to it; None if there is none.

    It is kept aside before our copy takes its place, so that a run killed between the two finds it again.
    """
    path = store.hidden / "under" / f"{item.key}.png"
    aside = load(path) if path.exists() else None
    if not item.retouched:
        path.unlink(missing_ok=True)
        return None
    if item.retouched_digest == item.stamps.get(CUTOUT):
        return aside
    try:
        image = load(item.picture)
    except PictureError:
        return aside
    if pixel_hash(image) != item.retouched_digest:  # killed after our copy was written and before the sidecar was
        return aside
    save(image, path)
    return image
