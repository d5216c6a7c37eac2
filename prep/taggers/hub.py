"""Hub: fetch a tagger's files at a pinned revision, whole by checksum, resumable, and without a network if they are here already."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prep.options import UserError


@dataclass(frozen=True)
class Source:
    """Where files lie on the Hugging Face hub."""

    repo: str
    revision: str  # a commit, or a tag or branch, whose commit is then noted beside the scores
    sha256: str = ""  # of the first file, where it is known
    licence: str = ""  # one that the user has to know of before fetching


def fetch(source: Source, files: Sequence[str], offline: bool = False, accepted: bool = False) -> list[Path]:
    """Return the files, from the cache or the hub; raises UserError if that cannot be, or a licence has not been accepted."""
    _quiet_unless_terminal()
    if source.licence and not offline and not accepted:
        try:
            return _all(source, files, offline=True)  # who has them has accepted it before
        except UserError:
            sentence = f"the weights of {source.repo} are under {source.licence}, which binds what you build from them"
            raise UserError(f"{sentence}; if you accept that, give --accept-licence") from None
    return _all(source, files, offline)


def _all(source: Source, files: Sequence[str], offline: bool) -> list[Path]:
    sums = [source.sha256, *[""] * (len(files) - 1)]
    return [_whole(source, file, sha256, offline) for file, sha256 in zip(files, sums, strict=True)]


def _whole(source: Source, file: str, sha256: str, offline: bool) -> Path:
    """Get a file and compare its checksum; a damaged one is fetched once more."""
    path = _get(source, file, offline, anew=False)
    if is_whole(path, sha256):
        return path
    if not offline:
        path = _get(source, file, offline, anew=True)
        if is_whole(path, sha256):
            return path
    raise UserError(f"{path} is not the file that {source.repo} holds (its sha256 differs); delete it and fetch it again online")


def is_whole(path: Path, sha256: str) -> bool:
    """Compare a file with its checksum: the one given, else the one by which the hub's cache names large files; without any it passes."""
    expected = sha256 or path.resolve().name
    return not re.fullmatch("[0-9a-f]{64}", expected) or sha256_of(path) == expected


def sha256_of(path: Path) -> str:
    """Return the sha256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _get(source: Source, file: str, offline: bool, anew: bool) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        found = hf_hub_download(source.repo, file, revision=source.revision, local_files_only=offline, force_download=anew)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        # LocalEntryNotFoundError hides what went wrong on the way behind a page of advice.
        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0].rstrip(".")
        advice = f"go online once, or put it and the list of its tags into a folder and give --tagger FOLDER (wanted: {file})"
        raise UserError(f"cannot fetch the tagger {source.repo} from the hub ({reason}); {advice}") from None
    return Path(found)


def _quiet_unless_terminal() -> None:
    """The hub's own bar shows rate and time left; it belongs on a terminal only."""
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    enable_progress_bars() if sys.stderr.isatty() else disable_progress_bars()
