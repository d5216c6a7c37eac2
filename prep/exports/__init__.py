"""Exports: the table of other trainers' data set formats that a checked tree can be written as."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prep.captions import caption_path, read_caption
from prep.images import decode
from prep.options import load_object
from prep.tree import Folder


@dataclass(frozen=True)
class ExportRow:
    """A format: what it is for, and the function that writes it."""

    description: str
    function: str  # "module:NAME"


EXPORTS: dict[str, ExportRow] = {
    "sd-scripts": ExportRow("data set TOML and metadata JSON of sd-scripts and kohya_ss", "prep.exports.sd_scripts:write"),
    "dreambooth": ExportRow("concepts JSON of sd_dreambooth_extension, with square pictures", "prep.exports.dreambooth:write"),
    "onetrainer": ExportRow("concepts JSON of OneTrainer, with its mask files", "prep.exports.onetrainer:write"),
    "ai-toolkit": ExportRow("job YAML of ai-toolkit", "prep.exports.ai_toolkit:write"),
    "simpletuner": ExportRow("multidatabackend JSON of SimpleTuner", "prep.exports.simpletuner:write"),
    "imagefolder": ExportRow("Hugging Face imagefolder: pictures and metadata.jsonl", "prep.exports.imagefolder:write"),
    "webdataset": ExportRow("tar shards of WebDataset", "prep.exports.webdataset:write"),
}


@dataclass(frozen=True)
class Source:
    """What is exported: the folders of a tree, and the training settings that a format has a place for."""

    folders: tuple[Folder, ...]
    keyword: str = ""
    class_: str = ""
    name: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)  # the [train] table, with the defaults filled in
    own: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)  # path of a folder -> the settings that are its own

    def of(self, folder: Folder) -> Mapping[str, Any]:
        """Return the training settings that hold for a folder."""
        return {**self.settings, **self.own.get(folder.path, {})}

    def caption(self, folder: Folder, picture: Path) -> str:
        """Return what a trainer reads beside a picture; the folder's concept where there is no caption."""
        return read_caption(picture) or folder.concept

    def masked(self, folder: Folder) -> bool:
        """Say whether a picture of the folder has a loss mask."""
        return any(decode(picture, None).alpha is not None for picture in folder.pictures)


def exporter(name: str) -> Callable[[Source, Path], None]:
    """Return the function that writes a format into a folder."""
    return load_object(EXPORTS[name].function)


def place(picture: Path, target: Path, caption: str | None = None) -> None:
    """Put a picture into an export: a hard link, or a copy where the file system has none; with a caption beside it if one is given."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(picture, target)
    except OSError:
        shutil.copyfile(picture, target)
    if caption is not None:
        caption_path(target).write_text(caption + "\n", encoding="utf-8", newline="\n")
