"""The torture set: every kind of picture file that the world holds, sound and damaged, made by code, each with what must become of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from tests import torture_faults as faults
from tests import torture_shapes as shapes
from tests.torture_shapes import Expectation, Row, best, cells

MIN_SIDE = 16  # what the set is to be cleaned with


def rows() -> Iterator[Row]:
    """Yield name, bytes and expectation of each plain file."""
    sound = (shapes.formats, shapes.orientations, shapes.deep, shapes.transparent, shapes.inks, shapes.profiles)
    other = (faults.damaged, faults.bombs, faults.optional, faults.moving, faults.sizes, faults.names, faults.misnamed)
    yield from chain.from_iterable(make_rows() for make_rows in (*sound, *other))


def make(folder: Path) -> dict[str, Expectation]:
    """Write the set into a folder, which may exist; return what must become of each name."""
    folder.mkdir(parents=True, exist_ok=True)
    expected: dict[str, Expectation] = {}
    for name, data, expectation in rows():
        assert name not in expected, name
        (folder / name).write_bytes(data)
        expected[name] = expectation
    return expected | _links(folder)


def _links(folder: Path) -> dict[str, Expectation]:
    """Add links, folders and pipes that are called pictures."""
    outside = folder.with_name(f"{folder.name} elsewhere")
    outside.mkdir(exist_ok=True)
    (outside / "target.png").write_bytes(best(cells(1), "PNG"))
    (folder / "link.png").symlink_to(outside / "target.png")
    (folder / "link to nowhere.png").symlink_to(outside / "nowhere.png")
    (folder / "link to itself.png").symlink_to(folder / "link to itself.png")
    (folder / "link there.png").symlink_to(folder / "link back.png")
    (folder / "link back.png").symlink_to(folder / "link there.png")
    (folder / "link to a folder.png").symlink_to(outside)
    (folder / "folder.png").mkdir()
    (folder / "folder.png" / "inside.png").write_bytes(best(cells(1), "PNG"))
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe")
    unseen = (
        "link to nowhere.png",
        "link to itself.png",
        "link there.png",
        "link back.png",
        "link to a folder.png",
        "folder.png",
        "pipe.png",
        "pipe",
    )
    kept = Expectation(truth=cells(1), group="link")
    return {"link.png": kept} | dict.fromkeys(unseen, Expectation(None, group="unseen"))
