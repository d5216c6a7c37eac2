"""Digests: the memory never gives a stale sum, whatever happens to a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from prep.digests import Digests, sha256_file


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["write", "replace", "rename", "link", "save", "touch"]), st.binary(max_size=2))))
def test_it_always_says_what_is_in_the_file(tmp_path_factory: object, steps: list[tuple[str, str, bytes]]) -> None:
    folder: Path = tmp_path_factory.mktemp("digests")  # type: ignore[attr-defined]
    digests = Digests.open(folder / "memory.json")
    for name in "ab":
        (folder / name).write_bytes(b"")
    for name, step, data in steps:
        path = folder / name
        if step == "write":
            path.write_bytes(data)
        elif step == "replace":
            (folder / "new").write_bytes(data)
            (folder / "new").replace(path)
        elif step == "rename":
            path.rename(folder / "c")
            (folder / "c").rename(path)
        elif step == "link":
            other = folder / ("b" if name == "a" else "a")
            other.unlink()
            os.link(path, other)
        elif step == "touch":
            os.utime(path)
        else:
            digests.save()
            digests = Digests.open(folder / "memory.json")
        for path in (folder / "a", folder / "b"):
            assert digests.of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_older_than_the_memory_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    os.utime(path, ns=(0, 10**9))
    digests = Digests.open(tmp_path / "memory.json")
    first = digests.of(path)
    digests.save()
    path.write_bytes(b"two")
    os.utime(path, ns=(0, 10**9))  # nobody can see this change but by reading
    assert Digests.open(tmp_path / "memory.json").of(path) == first
    os.utime(path)
    assert Digests.open(tmp_path / "memory.json").of(path) == sha256_file(path) != first


def test_a_note_is_made_once_for_each_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    asked: list[str] = []
    for _ in range(2):
        digests = Digests.open(tmp_path / "memory.json")
        assert digests.note(str(tmp_path / "a"), lambda path: not asked.append(path))[1]  # type: ignore[func-returns-value]
        digests.save()
    assert len(asked) == 1
