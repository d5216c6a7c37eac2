"""Taggers: the table of models that can score a picture, and where their files come from."""

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

    from prep.scores import Labels

WD = "prep.taggers.wd:WDTagger"


@dataclass(frozen=True)
class TaggerRow:
    """A tagger: where its files are, the class that runs them, and the scores from which its tags count."""

    description: str
    general: float  # the model's threshold of equal precision and recall, where it is known
    repo: str = ""  # on the Hugging Face hub
    revision: str = "main"  # what a branch resolved to is noted beside the scores
    folder: str = ""  # "module:NAME" of a Path, for one that ships with the project
    kind: str = WD
    character: float = 0.85  # a wrong name does more harm than a missing one
    files: tuple[str, str] = ("model.onnx", "selected_tags.csv")


TAGGERS: dict[str, TaggerRow] = {
    "pocket": TaggerRow("ships with the project, knows only its drawn world", 0.5, folder="pipelines.pocket:TAGGER"),
    "wd-vit-v3": TaggerRow("anime, 10,861 tags, fastest of v3", 0.2614, "SmilingWolf/wd-vit-tagger-v3"),
    "wd-swinv2-v3": TaggerRow("anime, 10,861 tags", 0.2653, "SmilingWolf/wd-swinv2-tagger-v3"),
    "wd-convnext-v3": TaggerRow("anime, 10,861 tags", 0.2682, "SmilingWolf/wd-convnext-tagger-v3"),
    "wd-vit-large-v3": TaggerRow("anime, 10,861 tags, better and slower", 0.2606, "SmilingWolf/wd-vit-large-tagger-v3"),
    "wd-eva02-large-v3": TaggerRow("anime, 10,861 tags, best and slowest", 0.5296, "SmilingWolf/wd-eva02-large-tagger-v3"),
    "wd-vit-v2": TaggerRow("anime, 9,083 tags, older", 0.3537, "SmilingWolf/wd-v1-4-vit-tagger-v2", "v2.0"),
    "wd-convnext-v2": TaggerRow("anime, 9,083 tags, older", 0.3685, "SmilingWolf/wd-v1-4-convnext-tagger-v2", "v2.0"),
    "wd-convnextv2-v2": TaggerRow("anime, 9,083 tags, older", 0.3710, "SmilingWolf/wd-v1-4-convnextv2-tagger-v2", "v2.0"),
    "wd-swinv2-v2": TaggerRow("anime, 9,083 tags, older", 0.3771, "SmilingWolf/wd-v1-4-swinv2-tagger-v2", "v2.0"),
    "wd-moat-v2": TaggerRow("anime, 9,083 tags, older", 0.3771, "SmilingWolf/wd-v1-4-moat-tagger-v2", "v2.0"),
}
LOCAL = TaggerRow("a folder with model.onnx and selected_tags.csv", 0.35)


class Tagger(Protocol):
    """What a kind's class offers; `batch` pictures are scored at once, and its model is loaded by the first `prepare`."""

    labels: Labels
    version: int  # of the preprocessing
    provider: str  # what the model runs on, "" before it is loaded

    def __init__(self, files: tuple[Path, Path], device: str, batch: int) -> None: ...

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Turn an RGB picture into the model's input, uint8 of shape (height, width, 3)."""
        ...

    def score(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Return probabilities of shape (pictures, labels), float32."""
        ...


def row_of(name: str) -> TaggerRow:
    """Return the row of that name, or the row for local folders."""
    return TAGGERS.get(name, LOCAL)


@dataclass(frozen=True)
class Located:
    """A tagger whose files are on this machine; `identity` changes when the weights or labels do."""

    row: TaggerRow
    files: tuple[Path, Path]
    identity: str

    def open(self, device: str, batch: int) -> Tagger:
        """Make the tagger; its labels are read now, its model when it is needed."""
        return load_object(self.row.kind)(self.files, device, batch)


def locate(name: str) -> Located:
    """Find a tagger's files by its row or folder, fetching them from the hub if they are not here; raises UserError."""
    row = row_of(name)
    if row.repo:
        files = _fetch(row)
        # Files of the hub lie in a folder that is named by their commit.
        return Located(row, files, f"{row.repo}@{files[0].parent.name}")
    folder = load_object(row.folder) if row.folder else Path(name)
    if not folder.is_dir():
        raise UserError(f"{name!r} is neither a tagger nor a folder; the taggers are {', '.join(TAGGERS)}")
    files = (folder / row.files[0], folder / row.files[1])
    for file in files:
        if not file.is_file():
            raise UserError(f"{folder} holds no {file.name}; a tagger's folder needs {' and '.join(row.files)}")
    return Located(row, files, "-".join(_sha256(file)[:16] for file in files))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(row: TaggerRow) -> tuple[Path, Path]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        model, labels = (Path(hf_hub_download(row.repo, file, revision=row.revision)) for file in row.files)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        advice = f"go online once, or put {' and '.join(row.files)} into a folder and give --tagger FOLDER"
        raise UserError(f"cannot fetch the tagger {row.repo} from the hub ({reason}); {advice}") from None
    return model, labels
