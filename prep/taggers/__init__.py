"""Taggers: the table of models that can score a picture, and where their files come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from prep.options import UserError, load_object

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from prep.scores import Labels

ONNX = "prep.taggers.onnx_tagger:OnnxTagger"
CONTRACTS = "prep.taggers.contract"


@dataclass(frozen=True)
class TaggerRow:
    """A tagger: where its files are, how a picture becomes its input, and the scores from which its tags count."""

    description: str
    general: float  # the model's threshold of equal precision and recall, where it is known
    repo: str = ""  # on the Hugging Face hub
    revision: str = "main"  # a commit where one is known; else what the name resolved to is noted beside the scores
    sha256: str = ""  # of the model file, where it is known
    folder: str = ""  # "module:NAME" of a Path, for one that ships with the project
    kind: str = ONNX
    character: float = 0.85  # a wrong name does more harm than a missing one
    files: tuple[str, str] = ("model.onnx", "selected_tags.csv")
    contract: str = "WD"  # a record of prep.taggers.contract
    licence: str = ""  # one that binds the user; they have to accept it

    def threshold(self, category: str) -> float:
        """Return the score from which a tag of that category counts; names of works and artists are as harmful as those of characters."""
        return self.character if category in ("character", "copyright", "artist") else self.general


_V3, _V2 = "SmilingWolf/wd-{}-tagger-v3", "SmilingWolf/wd-v1-4-{}-tagger-v2"

# Commits and checksums are those that other projects pin (seen in two of them each for v3); "v2.0" is the author's tag, and of
# "main" no commit was to be found without the hub.
TAGGERS: dict[str, TaggerRow] = {
    "pocket": TaggerRow("ships with the project, knows only its drawn world", 0.5, folder="pipelines.pocket:TAGGER"),
    "wd-vit-v3": TaggerRow(
        "anime, 10,861 tags, fastest of v3", 0.2614, _V3.format("vit"), "7f6b584d0bd3f55c4531f14ba3d4761b2bccdc0f",
        "35f23693620b668f4d53fd3c62bf65e40af739bc52c7eb0fbc49258b58d065b6",
    ),
    "wd-swinv2-v3": TaggerRow(
        "anime, 10,861 tags", 0.2653, _V3.format("swinv2"), "627aef95638667ddcaa3ac8ae625e88ea5b02f51",
        "e6774bff34d43bd49f75a47db4ef217dce701c9847b546523eb85ff6dbba1db1",
    ),
    "wd-convnext-v3": TaggerRow(
        "anime, 10,861 tags", 0.2682, _V3.format("convnext"), "d39e46de298d27340111b64965e20b8185c407e6",
        "1b8a7abf13d9b8368267df47501d523789c4aeae66b2296ad98483239dfa32eb",
    ),
    "wd-vit-large-v3": TaggerRow(
        "anime, 10,861 tags, better and slower", 0.2606, _V3.format("vit-large"), "ae469aa2e4706a3af08d3673cf73a11d1add314c",
        "e4c8001b000a6c98f2db10794f7c406daa79873d071d6ca924330fa053fa1845",
    ),
    "wd-eva02-large-v3": TaggerRow(
        "anime, 10,861 tags, best and slowest", 0.5296, _V3.format("eva02-large"), "b25b82a03f7282e41aa2f257a52c7583b710bd1c",
        "9e768793060c7939b277ccb382783e8670e8a042d29d77aa736be0c8cc898bfc",
    ),
    "wd-vit-v2": TaggerRow("anime, 9,083 tags, older", 0.3537, _V2.format("vit"), "v2.0"),
    "wd-convnext-v2": TaggerRow("anime, 9,083 tags, older", 0.3685, _V2.format("convnext"), "v2.0"),
    "wd-convnextv2-v2": TaggerRow(
        "anime, 9,083 tags, older", 0.3710, _V2.format("convnextv2"), "bf364499ea843a403cc2770072f31f5cfb2ffa58"
    ),
    "wd-swinv2-v2": TaggerRow("anime, 9,083 tags, older", 0.3771, _V2.format("swinv2"), "v2.0"),
    "wd-moat-v2": TaggerRow(
        "anime, 9,083 tags, older", 0.3771, _V2.format("moat"), "8452cddf280b952281b6e102411c50e981cb2908",
        "b8cef913be4c9e8d93f9f903e74271416502ce0b4b04df0ff1e2f00df488aa03",
    ),
    "pixai-v0.9": TaggerRow(
        "anime, 13,461 tags, many characters", 0.30, "deepghs/pixai-tagger-v0.9-onnx", "d8cf666911a2c3d10d586d7823259192313c7eb7",
        "a8d479098b5e23f253543c93df42391736abbb77c21c2efd3a513b9cda7b3657", contract="PIXAI",
    ),
    "cl-tagger": TaggerRow(
        "anime, with artists, models and quality", 0.55, "cella110n/cl_tagger", "0b6e9b4e145b1423bfd1715119074a24a301b471",
        "1459e946ffc083159015e0eb26239016349ddd36c3daecfeb70bfa4ccf38b944", character=0.55,
        files=("cl_tagger_1_02/model.onnx", "cl_tagger_1_02/tag_mapping.json"), contract="CL",
    ),
    "camie-v2": TaggerRow(
        "anime, 70,527 tags; GPL-3.0", 0.492, "Camais03/camie-tagger-v2", character=0.492,
        files=("camie-tagger-v2.onnx", "camie-tagger-v2-metadata.json"), contract="CAMIE", licence="GPL-3.0",
    ),
    "joytag": TaggerRow(
        "photographs and anime, over 5,000 tags", 0.4, "fancyfeast/joytag", "6b7f16331a6ccf0fdce37d5a9564715f6e772b22",
        "f85b7130e6e549b5b0822537007b7482e8c4c8e754c8d9a5bee08e27050e1097", files=("model.onnx", "top_tags.txt"), contract="JOYTAG",
    ),
    "deepdanbooru": TaggerRow(
        "anime, old tags", 0.5, "deepghs/imgutils-models", character=0.5, contract="DEEPDANBOORU",
        files=("deepdanbooru/deepdanbooru.onnx", "deepdanbooru/deepdanbooru_tags.csv"),
    ),
}  # fmt: skip
LOCAL = TaggerRow("a folder with a model in ONNX and the list of its tags", 0.35)
# Of a local folder: the list of tags that is in it -> the row whose ways it follows. The first that fits wins.
FOLDERS = (
    ("selected_tags.csv", LOCAL),
    ("*tag_mapping.json", TAGGERS["cl-tagger"]),
    ("*metadata.json", TAGGERS["camie-v2"]),
    ("*top_tags.txt", TAGGERS["joytag"]),
    ("*tags.csv", TAGGERS["deepdanbooru"]),
    ("*tags.txt", TAGGERS["deepdanbooru"]),
)


class Tagger(Protocol):
    """What a kind's class offers; its model is loaded by the first `prepare`, which several threads may call."""

    labels: Labels
    version: int  # of the preprocessing
    provider: str  # what the model runs on, "" before it is loaded

    def __init__(self, row: TaggerRow, files: tuple[Path, Path], device: str, batch: int, gpus: str = "") -> None: ...

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Turn an RGB picture into what `score` takes, uint8 of shape (height, width, 3)."""
        ...

    def score(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Return probabilities of shape (pictures, labels), float32; a picture's do not depend on the others."""
        ...


def row_of(name: str) -> TaggerRow:
    """Return the row of that name, or what is known of a local folder."""
    return TAGGERS.get(name) or _row_of_folder(name)


@lru_cache(maxsize=16)
def _row_of_folder(name: str) -> TaggerRow:
    """Say whose ways a folder follows, by the list of tags in it; a caption of each picture asks for this."""
    folder = Path(name)
    for pattern, row in FOLDERS:
        labels = next(iter(sorted(folder.glob(pattern))), None) if folder.is_dir() else None
        if labels is not None:
            if row is LOCAL and "ips" in _first_line(labels).split(","):  # works that a character is from: only PixAI lists those
                row = TAGGERS["pixai-v0.9"]
            model = next(iter(sorted(path.name for path in folder.glob("*.onnx"))), LOCAL.files[0])
            files = (model if not (folder / LOCAL.files[0]).exists() else LOCAL.files[0], labels.name)
            if (row.contract, files) == (LOCAL.contract, LOCAL.files):
                return LOCAL
            return replace(row, description=LOCAL.description, repo="", revision="", sha256="", licence="", files=files)
    return LOCAL


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.readline().strip()


@dataclass(frozen=True)
class Located:
    """A tagger whose files are on this machine; `identity` changes when the weights or labels do."""

    row: TaggerRow
    files: tuple[Path, Path]
    identity: str

    def open(self, device: str, batch: int, gpus: str = "") -> Tagger:
        """Make the tagger; its labels are read now, its model when it is needed. `gpus` are numbers such as "0,1", all if empty."""
        return load_object(self.row.kind)(self.row, self.files, device, batch, gpus)


def locate(name: str, offline: bool = False, accepted: bool = False) -> Located:
    """Find a tagger's files by its row or folder, fetching them from the hub if they are not here; raises UserError.

    With `offline` the network is left alone; `accepted` says that the user knows the row's licence.
    """
    from prep.taggers.hub import Source, fetch, sha256_of

    row = row_of(name)
    if row.repo:
        model, labels = fetch(Source(row.repo, row.revision, row.sha256, row.licence), row.files, offline, accepted)
        # Files of the hub lie in a folder that is named by their commit, however deep.
        return Located(row, (model, labels), f"{row.repo}@{model.parents[row.files[0].count('/')].name}")
    folder = load_object(row.folder) if row.folder else Path(name)
    if not folder.is_dir():
        raise UserError(f"{name!r} is neither a tagger nor a folder; the taggers are {', '.join(TAGGERS)}")
    files = (folder / row.files[0], folder / row.files[1])
    for file in files:
        if not file.is_file():
            raise UserError(f"{folder} holds no {file.name}; a tagger's folder needs {' and '.join(row.files)}")
    return Located(row, files, "-".join(sha256_of(file)[:16] for file in files))
