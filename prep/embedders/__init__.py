"""Embedders: the table of ways to tell whether two pictures show the same one, and where their models come from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from prep.options import UserError, load_object

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

TRAITS = "prep.embedders.traits:Traits"
CCIP = "prep.embedders.ccip:Ccip"
FACES = "prep.embedders.faces:Faces"
FEATURES = "model_feat.onnx"  # by this file a folder of CCIP is known


@dataclass(frozen=True)
class EmbedderRow:
    """An embedder: what it tells apart, the class that runs it, its files, and the distance from which two are not the same."""

    description: str
    kind: str
    limit: float
    repo: str = ""  # on the Hugging Face hub
    files: tuple[str, ...] = ()
    revision: str = "main"
    mean: float = 0.0  # what a face model wants subtracted from the pixels, and what they are then divided by
    scale: float = 1.0


_CCIP = "ccip-caformer-24-randaug-pruned"
EMBEDDERS: dict[str, EmbedderRow] = {
    # Measured in 210 sets of the pocket world: of 485 strangers whose difference is to be seen 484 are beyond the limit, of 4520 right
    # ones none. In 12 other sets right ones had at most 0.24, such strangers at least 0.79.
    "tagger": EmbedderRow("what the tagger sees of hair, eyes, horns and the like; no model of its own", TRAITS, 0.5),
    # The limits of CCIP and SFace are their makers', at which their own errors are smallest; that of ArcFace is insightface's.
    "ccip": EmbedderRow("anime characters", CCIP, 0.17847511, "deepghs/ccip_onnx", (f"{_CCIP}/{FEATURES}", f"{_CCIP}/model_metrics.onnx")),
    "sface": EmbedderRow("faces of people, 39 MB", FACES, 1 - 0.363, "opencv/face_recognition_sface", ("face_recognition_sface_2021dec.onnx",)),
    "arcface": EmbedderRow(
        "faces of people, better, not for commercial use",
        FACES,
        1 - 0.28,
        "immich-app/buffalo_l",
        ("recognition/model.onnx",),
        mean=127.5,
        scale=127.5,
    ),
}
LOCAL_CCIP = EmbedderRow(
    "a folder with model_feat.onnx and model_metrics.onnx", CCIP, EMBEDDERS["ccip"].limit, files=(FEATURES, "model_metrics.onnx")
)
# The two kinds of face model of one's own, told apart by the length of what they give: 128 numbers are SFace's.
LOCAL_FACES = EmbedderRow("a face model .onnx", FACES, EMBEDDERS["arcface"].limit, mean=127.5, scale=127.5)
HELP = f"{', '.join(EMBEDDERS)}, a folder of CCIP, or a face model .onnx"


@dataclass(frozen=True)
class Judged:
    """How far a picture is from what most pictures of its set show, whether that is too far, and why, in words."""

    distance: float
    far: bool
    why: str


class Embedder(Protocol):
    """What a row makes; the model is loaded by the first `embed`."""

    version: str  # changes when weights or preprocessing do: vectors are kept by it

    def embed(self, images: Sequence[Image.Image]) -> list[np.ndarray]:
        """Return a float32 vector for each RGB picture; an empty one if there is nothing in it to go by."""
        ...

    def judge(self, vectors: np.ndarray, limit: float | None = None) -> list[Judged]:
        """Find what most of the vectors (n, length) have in common and say how far each is from it; a limit of None is the model's own."""
        ...


def embedder(name: str, device: str = "auto", tagger: str = "pocket") -> Embedder:
    """Make the embedder of that name, folder or file; raises UserError if it is none or cannot be fetched. `tagger` is for "tagger"."""
    row = row_of(name)
    if row.kind == TRAITS:
        return load_object(TRAITS)(row, tagger, device)
    files = _fetch(name, row) if row.repo else _own(name, row)
    version = f"{row.repo}@{_commit(files[0], row.files[0])}" if row.repo else "-".join(_sha256(file)[:16] for file in files)
    return load_object(row.kind)(row, files, version, device)


def row_of(name: str) -> EmbedderRow:
    """Return the row of that name, or the one that a folder or file follows; raises UserError for anything else."""
    if name in EMBEDDERS:
        return EMBEDDERS[name]
    if (Path(name) / FEATURES).is_file():
        return LOCAL_CCIP
    if Path(name).is_file():
        return LOCAL_FACES
    raise UserError(f"{name!r} is neither an embedder nor a model; the embedders are {HELP}")


def _own(name: str, row: EmbedderRow) -> list[Path]:
    files = [Path(name) / file for file in row.files] or [Path(name)]
    for file in files:
        if not file.is_file():
            raise UserError(f"{name} holds no {file.name}; a folder of CCIP needs {' and '.join(row.files)}")
    return files


def _commit(path: Path, file: str) -> str:
    """Return the commit by which the hub's cache names the folder that a file lies in, however deep."""
    return path.parents[file.count("/")].name


def _fetch(name: str, row: EmbedderRow) -> list[Path]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return [Path(hf_hub_download(row.repo, file, revision=row.revision)) for file in row.files]
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        advice = "go online once, give the path of its files instead of the name, or take --embedder tagger"
        raise UserError(f"cannot fetch the embedder {name} ({row.repo}) from the hub ({reason}); {advice}") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
