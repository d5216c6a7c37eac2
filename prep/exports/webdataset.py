"""WebDataset: tar shards of KEY.png, KEY.txt and KEY.json, in order, the same bytes for the same tree.

Source: the WebDataset format description; a key ends at the first dot of a file's name, so keys hold none.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from prep.exports import Source
from prep.options import atomic_write
from prep.step import batched

SHARD = 1_000  # samples in a shard


def write(source: Source, out: Path) -> None:
    """Write shard-000000.tar and so on."""
    for number, samples in enumerate(batched(_samples(source), SHARD)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for key, files in samples:
                for suffix, data in files.items():
                    entry = tarfile.TarInfo(f"{key}.{suffix}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
        atomic_write(out / f"shard-{number:06}.tar", buffer.getvalue())


def _samples(source: Source) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield a key and the files of every picture; the key is a number, since names may hold dots or be too long for a tar file."""
    number = 0
    for folder in source.folders:
        for picture in folder.pictures:
            facts = {"name": picture.name, "concept": folder.concept, "repeats": folder.repeats, "is_reg": folder.is_reg}
            yield (
                f"{number:08}",
                {
                    picture.suffix.lower().removeprefix("."): picture.read_bytes(),
                    "txt": source.caption(folder, picture).encode("utf-8"),
                    "json": json.dumps(facts, ensure_ascii=False).encode("utf-8"),
                },
            )
            number += 1
