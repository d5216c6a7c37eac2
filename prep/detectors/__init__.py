"""Detectors: the table of models that find the subject of a picture, so that a crop never cuts it, and where their files come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from prep.options import UserError, load_object

if TYPE_CHECKING:
    from PIL import Image

    from prep.item import Box

DATA = Path(__file__).parent / "data"
MODEL = "model.onnx"  # what a local folder must hold
YOLO = "prep.detectors.yolo:Yolo"


@dataclass(frozen=True)
class DetectorRow:
    """A detector: what it finds, the code that runs it, and where its model is.

    `kind` names a class that is made of (model file, row, device), or, in a row without a file, the function itself.
    """

    description: str
    kind: str = YOLO
    label: str = ""  # of its boxes; the model's own class names if empty
    threshold: float = 0.25  # least score of a box
    iou: float = 0.7  # intersection over union from which two boxes are one
    repo: str = ""  # on the Hugging Face hub; without one the file is embedded
    file: str = ""
    revision: str = "main"


# The thresholds of the anime rows are those at which the models' makers use them.
DETECTORS: dict[str, DetectorRow] = {
    "face": DetectorRow("real and drawn faces, ships with the project", "prep.detectors.face:find_faces", "face"),
    "saliency": DetectorRow(
        "what stands out, whatever it is; ships with the project", "prep.detectors.saliency:Saliency", "subject", file="u2netp.onnx"
    ),
    "anime-person": DetectorRow(
        "anime: whole people", label="person", threshold=0.3, iou=0.5, repo="deepghs/anime_person_detection", file=f"person_detect_v1.1_m/{MODEL}"
    ),
    "anime-half": DetectorRow(
        "anime: head to waist", label="half", threshold=0.5, repo="deepghs/anime_halfbody_detection", file=f"halfbody_detect_v1.0_s/{MODEL}"
    ),
    "anime-head": DetectorRow(
        "anime: heads with hair", label="head", threshold=0.4, repo="deepghs/anime_head_detection", file=f"head_detect_v2.0_s/{MODEL}"
    ),
    "anime-face": DetectorRow("anime: faces, also small ones", label="face", repo="deepghs/anime_face_detection", file=f"face_detect_v1.4_s/{MODEL}"),
    "text": DetectorRow("lines of text, ships with the project", "prep.detectors.text:find_text", "text"),
    "none": DetectorRow("nothing: for styles and objects", "prep.detectors:find_nothing"),
}
LOCAL = DetectorRow("a YOLO model file of your own, or a folder with model.onnx")
HELP = f"{', '.join(DETECTORS)}, or a YOLO .onnx file; several with commas"


class Detector(Protocol):
    """What a row makes: RGB pictures in, the boxes of each out, best first, in its pixels; the model is loaded on first use."""

    def __call__(self, images: Sequence[Image.Image]) -> list[list[Box]]: ...


@lru_cache
def detector(name: str, device: str = "auto") -> Detector:
    """Return the detector of that name or file, fetching its model if it is not here; raises UserError."""
    row = DETECTORS.get(name, LOCAL)
    kind = load_object(row.kind)
    return kind(locate(name), row, device) if row.file or row is LOCAL else kind


def names_of(text: str) -> list[str]:
    """Split a setting such as "face, anime-person" into names; raises UserError for one that is neither a row nor a file."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in DETECTORS and not Path(name).exists():
            raise UserError(f"{name!r} is neither a detector nor a model file; the detectors are {', '.join(DETECTORS)}")
    return names or ["none"]


def locate(name: str) -> Path:
    """Find a detector's model file by its row, its own path or its folder; raises UserError."""
    row = DETECTORS.get(name, LOCAL)
    if row.repo:
        return _fetch(name, row)
    path = DATA / row.file if row.file else Path(name)
    path = path / MODEL if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"there is no detector model {path}; the detectors are {', '.join(DETECTORS)}, or give an .onnx file")
    return path


def _fetch(name: str, row: DetectorRow) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(hf_hub_download(row.repo, row.file, revision=row.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        advice = "go online once, or give the path of its .onnx file instead of the name"
        raise UserError(f"cannot fetch the detector {name} ({row.repo}/{row.file}) from the hub ({reason}); {advice}") from None


def find_nothing(images: Sequence[Image.Image]) -> list[list[Box]]:
    """Find nothing: for styles and objects, where a crop has to go by the picture's detail alone."""
    return [[] for _ in images]
