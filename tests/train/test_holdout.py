"""Held-out pictures: a seeded share, groups that tell of one another never parted, and folds that cover every picture once."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from prep.tree import Folder
from train.buckets import BucketRule
from train.config import ValidationConfig
from train.holdout import FEWEST, MOST, alike, groups_of, hold_out
from train.looks import Looks
from train.pictures import Picture

RULE = BucketRule((64, 64), 64, 64, 64)


def pictures(training: int, reg: int = 0, digests: tuple[str, ...] = ()) -> list[Picture]:
    found = []
    for index in range(training + reg):
        side = "reg" if index >= training else "img"
        path = Path("tree") / side / "1_x" / f"{index}.png"
        digest = digests[index] if index < len(digests) else f"digest {index}"
        found.append(Picture(path, digest, RULE.fit(64, 64), "x", Folder(path.parent, 1, "x", side == "reg", (path,))))
    return found


@given(training=st.integers(0, 90), reg=st.integers(0, 90), split=st.floats(0, 0.5), seed=st.integers(0, 99))
def test_a_share_of_each_kind_is_held_and_the_seed_decides_which(training: int, reg: int, split: float, seed: int) -> None:
    found = pictures(training, reg)
    held = hold_out(found, ValidationConfig(validation_split=split), seed, {})
    for indices, count, is_reg in ((held.training, training, False), (held.reg, reg, True)):
        assert all(found[index].folder.is_reg == is_reg for index in indices)
        if count < FEWEST or not split or training < FEWEST:
            assert not indices
        else:
            assert 0 < len(indices) <= min(MOST, count * split + 1)
    assert held == hold_out(found, ValidationConfig(validation_split=split), seed, {})


@given(st.lists(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), min_size=FEWEST, max_size=60), st.integers(0, 99))
def test_the_same_pixels_are_never_on_both_sides(digests: list[str], seed: int) -> None:
    held = hold_out(pictures(len(digests), digests=tuple(digests)), ValidationConfig(), seed, {})
    inside = {digests[index] for index in held.training}
    assert not inside & {digest for index, digest in enumerate(digests) if index not in held.training}


@given(st.integers(2, 25), st.integers(2, 6), st.integers(0, 99))
def test_folds_hold_each_picture_once(count: int, folds: int, seed: int) -> None:
    found, config = pictures(count), ValidationConfig(validation_folds=folds)
    counts = Counter(index for fold in range(folds) for index in hold_out(found, config, seed, {}, fold).training)
    assert counts == Counter(range(count))


def test_crops_of_one_original_stay_together() -> None:
    found = pictures(6)
    sources = {found[0].path: "one", found[3].path: "one", found[5].path: "other"}
    assert [0, 3] in [sorted(group) for group in groups_of(found, range(6), sources)]


@pytest.fixture
def drawings(tmp_path: Path) -> list[Path]:
    """Four drawings of one head with other colours and places, and copies of the first: smaller, re-compressed, mirrored."""
    paths = []
    for index, (colour, left) in enumerate((("red", 20), ("blue", 20), ("red", 60), ("green", 40))):
        image = Image.new("RGB", (128, 128), "white")
        ImageDraw.Draw(image).ellipse((left, 20, left + 50, 90), fill=colour, outline="black")
        paths.append(tmp_path / f"{index}.png")
        image.save(paths[-1])
    first = Image.open(paths[0])
    for name, copy, options in (
        ("small.png", first.resize((64, 64)), {}),
        ("again.jpg", first, {"quality": 60}),
        ("mirror.png", first.transpose(Image.Transpose.FLIP_LEFT_RIGHT), {}),
    ):
        paths.append(tmp_path / name)
        copy.save(paths[-1], **options)
    return paths


def test_copies_are_alike_and_different_drawings_are_not(drawings: list[Path]) -> None:
    looks = Looks.open(None)
    pairs = {tuple(sorted(pair)) for pair in alike([looks.of(path, False).thumb for path in drawings])}
    assert {(0, 4), (0, 5), (0, 6)} <= pairs
    assert not {pair for pair in pairs if pair[0] in (1, 2, 3) or pair[1] in (1, 2, 3)}
