"""Clean on the torture set: nothing crashes, no source changes, each file ends as stated, again and after a kill."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prep.clean import Clean
from prep.images import find_pictures, load
from prep.item import Item
from prep.masks import alpha_path
from prep.project import Place
from prep.store import Store
from tests.torture import MIN_SIDE, make
from tests.torture_shapes import Expectation

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="its names, links and pipes are those of Linux and macOS")


@dataclass
class Cleaned:
    raw: Path
    expected: dict[str, Expectation]
    before: dict[str, tuple[str, int]]
    store: Store

    @cached_property
    def items(self) -> dict[str, Item]:
        return {item.source.name: item for item in self.store.load() if item.source}

    def of(self, *groups: str) -> dict[str, Expectation]:
        """Pick the files whose pixels are to be as stated; all of them if no group is named."""
        return {name: e for name, e in self.expected.items() if e.reason == "" and e.truth is not None and (e.group in groups or not groups)}


def hashes(folder: Path) -> dict[str, tuple[str, int]]:
    """Hash each file below a folder, with its time, links not followed."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}


def results(folder: Path) -> dict[str, str]:
    """Hash what a run leaves: pictures, sidecars, masks and report, without temporary files."""
    return {name: value for name, (value, _) in hashes(folder).items() if "/.tmp-" not in f"/{name}"}


def clean(raw: Path, out: Path, **options: object) -> None:
    plain = {"check": False, "trim_borders": False, "report": False}  # the pictures here are made for their format
    Clean(**{**plain, "min_side": MIN_SIDE, "out": str(out), "workers": 1, **options}).main(Place.open(raw))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Cleaned:
    place = tmp_path_factory.mktemp("torture")
    expected = make(place / "raw")
    before = hashes(place / "raw")
    clean(place / "raw", place / "out")
    return Cleaned(place / "raw", expected, before, Store(place / "out"))


def off(cleaned: Cleaned, name: str) -> float:
    """Return by how many levels the cleaned picture is off the truth, at its worst pixel."""
    seen, truth = np.asarray(load(cleaned.items[name].path)).astype(float), cleaned.expected[name].truth
    assert truth is not None and seen.shape == truth.shape, name
    return float(np.abs(seen - truth).max())


def test_the_set_is_large_and_various(cleaned: Cleaned) -> None:
    assert len(cleaned.expected) >= 150
    groups = Counter(e.group for e in cleaned.expected.values())
    assert {"exif", "icc", "cmyk", "16bit", "alpha", "cut", "bomb", "name", "moving", "misnamed"} <= set(groups)


def test_no_source_changes(cleaned: Cleaned) -> None:
    assert hashes(cleaned.raw) == cleaned.before


def test_each_file_ends_as_stated(cleaned: Cleaned) -> None:
    stated = {name: e.reason for name, e in cleaned.expected.items() if e.reason is not None}
    assert {name: item.dropped for name, item in cleaned.items.items()} == stated
    assert all(item.detail for item in cleaned.items.values() if item.dropped)


def test_each_picture_has_a_file_of_its_own(cleaned: Cleaned) -> None:
    kept = [item for item in cleaned.items.values() if not item.dropped]
    assert sorted(item.path for item in kept) == find_pictures(cleaned.store.folder)
    assert len({item.key.casefold() for item in cleaned.items.values()}) == len(cleaned.items)
    assert all(item.path == cleaned.store.folder / f"{item.key}.png" for item in kept)
    assert {Image.open(item.path).format for item in kept} == {"PNG"}


@pytest.mark.parametrize("groups", [("exif", "icc", "cmyk", "16bit"), ()])
def test_pixels_are_those_a_viewer_shows(cleaned: Cleaned, groups: tuple[str, ...]) -> None:
    wanted = cleaned.of(*groups)
    assert len(wanted) > 80
    assert {name: value for name in wanted if (value := off(cleaned, name)) > wanted[name].within} == {}


def test_profiles_inks_and_16_bits_are_within_two_levels(cleaned: Cleaned) -> None:
    assert {group: max(off(cleaned, name) for name in cleaned.of(group)) <= 2 for group in ("icc", "cmyk", "16bit")} == dict.fromkeys(
        ("icc", "cmyk", "16bit"), True
    )


def test_transparency_is_kept(cleaned: Cleaned) -> None:
    for name, expectation in cleaned.of().items():
        path = alpha_path(cleaned.items[name], cleaned.store)
        assert path.exists() == (expectation.alpha is not None), name
        if expectation.alpha is not None:
            assert np.abs(np.asarray(Image.open(path)).astype(int) - expectation.alpha).max() <= 1, name


def test_again_is_the_same(cleaned: Cleaned) -> None:
    before = hashes(cleaned.store.folder)
    clean(cleaned.raw, cleaned.store.folder)
    report = ".atelier/report.json"
    after = hashes(cleaned.store.folder)
    assert after.pop(report)[0] == before.pop(report)[0]
    assert after == before


@pytest.mark.parametrize("suffix", ["webp", "jpg"])
def test_other_formats_hold_the_same_pictures(cleaned: Cleaned, suffix: str) -> None:
    store = Store(cleaned.store.folder.with_name(suffix))
    clean(cleaned.raw, store.folder, format=suffix, quality=50)
    assert [(item.key, item.dropped) for item in store.load()] == [(item.key, item.dropped) for item in cleaned.store.load()]
    assert {path.suffix for path in find_pictures(store.folder)} == {f".{suffix}"}


@pytest.mark.slow
def test_two_workers_leave_what_one_leaves(cleaned: Cleaned) -> None:
    store = Store(cleaned.store.folder.with_name("two"))
    clean(cleaned.raw, store.folder, workers=2)
    assert results(store.folder) == results(cleaned.store.folder)


def test_killed_and_run_again_is_as_if_never_killed(cleaned: Cleaned) -> None:
    out = cleaned.store.folder.with_name("killed")
    command = [sys.executable, "-m", "prep", "clean", str(cleaned.raw), "--out", str(out), "--min-side", str(MIN_SIDE), "--workers", "1"]
    command += ["--no-check", "--no-trim-borders", "--no-report"]
    sidecars = out / ".atelier" / "items"
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list(sidecars.glob("[!.]*.json"))) < 60:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    finished = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in sidecars.glob("[!.]*.json")}
    finished |= {item.path: (item.path.stat().st_ino, item.path.stat().st_mtime_ns) for item in Store(out).load() if not item.dropped}
    assert process.returncode == -signal.SIGKILL and 60 <= len(list(sidecars.glob("[!.]*.json"))) < len(cleaned.items)
    subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL, check=True)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in finished} == finished, "what was finished is not done again"
    assert results(out) == results(cleaned.store.folder)
    assert hashes(cleaned.raw) == cleaned.before


def test_without_the_optional_packages_their_pictures_are_set_aside_by_name(cleaned: Cleaned, tmp_path: Path) -> None:
    for name in ("plain.heic", "plain.jxl", "plain.png"):
        (tmp_path / name).write_bytes((cleaned.raw / name).read_bytes())
    code = (
        "import sys; sys.modules['pillow_heif'] = sys.modules['pillow_jxl'] = None\n"
        f"from tests.prep.test_torture import clean, Path; clean(Path({str(tmp_path)!r}), Path({str(tmp_path / 'out')!r}))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL, check=True)
    items = {item.key: item for item in Store(tmp_path / "out").load()}
    assert {key: item.dropped for key, item in items.items()} == {"plain": "needs_package", "plain-2": "needs_package", "plain-3": ""}
    assert "pip install pillow-heif" in items["plain"].detail and "pip install pillow-jxl-plugin" in items["plain-2"].detail
    clean(tmp_path, tmp_path / "out")
    assert {item.dropped for item in Store(tmp_path / "out").load()} == {
        cleaned.items[name].dropped for name in ("plain.heic", "plain.jxl", "plain.png")
    }
