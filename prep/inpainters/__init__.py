"""Inpainters: the table of ways to fill a hole in a picture from what is around it, and where their models come from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from prep.options import UserError, load_object

if TYPE_CHECKING:
    from PIL import Image

LAMA = "prep.inpainters.lama:Lama"


@dataclass(frozen=True)
class InpainterRow:
    """An inpainter: `kind` names a class that is made of (model file, device), or, in a row without a file, the function itself."""

    description: str
    kind: str = LAMA
    repo: str = ""  # on the Hugging Face hub
    file: str = "model.onnx"
    revision: str = "main"


# Measured (telea): the mean error in the boxes of 84 addresses and signatures is 10.6 levels, 27.6 before; see prep.mark_actions.letters.
INPAINTERS: dict[str, InpainterRow] = {
    "telea": InpainterRow("from the rim inwards (OpenCV), for thin letters", "prep.inpainters.classic:telea"),
    "ns": InpainterRow("along the lines that run into the hole (OpenCV)", "prep.inpainters.classic:navier_stokes"),
    "lama": InpainterRow("a network that goes on with textures, 200 MB from the hub", repo="Carve/LaMa-ONNX", file="lama_fp32.onnx"),
}
LOCAL = InpainterRow("an .onnx file of your own, picture and mask in, picture out, or a folder with model.onnx")
HELP = f"{', '.join(INPAINTERS)}, or an .onnx file that takes picture and mask as LaMa does"


class Inpainter(Protocol):
    """What a row makes: an RGB picture and a hole (L of the same size, 255 = fill) in, the RGB picture without the hole out."""

    def __call__(self, image: Image.Image, hole: Image.Image) -> Image.Image: ...


@lru_cache
def inpainter(name: str, device: str = "auto") -> Inpainter:
    """Return the inpainter of that name or file, fetching its model if it is not here; raises UserError."""
    row = INPAINTERS.get(name, LOCAL)
    kind = load_object(row.kind)
    return kind if row.kind != LAMA else kind(_locate(name, row), device)


def _locate(name: str, row: InpainterRow) -> Path:
    if row.repo:
        return _fetch(name, row)
    path = Path(name) / row.file if Path(name).is_dir() else Path(name)
    if not path.is_file():
        raise UserError(f"{name!r} is neither an inpainter nor a model file; the inpainters are {', '.join(INPAINTERS)}")
    return path


def _fetch(name: str, row: InpainterRow) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(hf_hub_download(row.repo, row.file, revision=row.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        advice = "go online once, give the path of its .onnx file, or use telea"
        raise UserError(f"cannot fetch the inpainter {name} ({row.repo}/{row.file}) from the hub ({reason}); {advice}") from None
