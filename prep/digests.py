"""Digests: sha256 of files, remembered by what the file system says of them, so that a rebuild reads only what has changed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from prep.options import atomic_write

Row = tuple[int, int, str]  # size, time of the last change in ns, sha256


@dataclass
class Digests:
    """A memory of digests in one JSON file: inode -> size, time, sha256; losing it costs time and nothing else.

    An inode stays with a file that is renamed or linked, and a copy elsewhere has another. As in git's index, a file that was changed
    when the memory was written, or later, is read again, since a clock tick may hide a second change.
    """

    path: Path
    known: dict[str, Row] = field(default_factory=dict)
    notes: dict[str, bool] = field(default_factory=dict)  # sha256 -> what `note` found
    written: int = 0  # when, in ns by the file system's clock
    started: int = field(default_factory=time.time_ns)
    seen: dict[str, Row] = field(default_factory=dict)  # what this run asked for; only that is saved
    noted: dict[str, bool] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Digests:
        """Read the memory; one that is missing or damaged is empty."""
        try:
            written = path.stat().st_mtime_ns
            found = json.loads(path.read_bytes())
            files = {key: (int(size), int(changed), str(digest)) for key, (size, changed, digest) in found["files"].items()}
            return cls(path, files, dict(found["notes"]), written)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return cls(path)

    def of(self, path: str | Path) -> str:
        """Return the sha256 (hex) of a file; raises OSError."""
        return self.look(path)[0]

    def look(self, path: str | Path) -> tuple[str, int]:
        """Return the sha256 (hex) of a file and its inode, 0 where there are none; raises OSError."""
        stat = os.stat(path)
        key, size, changed = str(stat.st_ino), stat.st_size, stat.st_mtime_ns
        memory, until = (self.seen, self.started) if key in self.seen else (self.known, self.written)
        row = memory.get(key)
        if row is None or row[0] != size or row[1] != changed or changed >= until:
            row = (size, changed, sha256_file(path))
        self._keep(key, row)
        return row[2], stat.st_ino

    def learn(self, path: str | Path, digest: str) -> None:
        """Remember the digest of a file that this run has just written."""
        stat = os.stat(path)
        self._keep(str(stat.st_ino), (stat.st_size, stat.st_mtime_ns, digest))

    def note(self, path: str, test: Callable[[str], bool]) -> tuple[str, bool]:
        """Return a file's digest, and the answer to the one question that is asked of contents here, once for each content."""
        digest = self.of(path)
        if digest not in self.noted:
            self.noted[digest] = self.notes[digest] if digest in self.notes else test(path)
        return digest, self.noted[digest]

    def _keep(self, key: str, row: Row) -> None:
        if key != "0":  # a file system without inodes, on which nothing can be remembered
            self.seen[key] = row

    def save(self) -> None:
        """Write what this run has seen."""
        atomic_write(self.path, json.dumps({"files": self.seen, "notes": self.noted}, separators=(",", ":")))


def sha256_file(path: str | Path) -> str:
    """Return the sha256 of a file's bytes in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
