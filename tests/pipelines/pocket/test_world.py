"""The painter: the same picture for the same numbers, and only what the tags say."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipelines.pocket import MARKS, world


def pixels(character: world.Character, size: int = 64, seed: int = 5) -> np.ndarray:
    return np.asarray(world.draw(character, size, seed)).astype(int)


def test_the_same_seed_gives_the_same_picture_and_another_seed_another_pose() -> None:
    character = world.sample(random.Random(3))
    assert (pixels(character) == pixels(character)).all()
    assert (pixels(character) != pixels(character, seed=6)).any()


@pytest.mark.parametrize("size", [64, 100, 256])
def test_a_picture_is_rgb_and_of_the_asked_size(size: int) -> None:
    image = world.draw(world.Character(), size, 1)
    assert (image.mode, image.size) == ("RGB", (size, size))


def test_the_vocabulary_has_at_least_45_different_tags_in_danbooru_form() -> None:
    names = world.vocabulary()
    assert len(names) == len(set(names)) >= 45
    assert all(name and name == name.lower() and " " not in name and "," not in name for name in names)
    assert tuple(names[-len(MARKS) :]) == MARKS


def test_every_sampled_character_is_described_by_the_vocabulary_without_a_tag_twice() -> None:
    rng, known, met = random.Random(0), set(world.vocabulary()), set()
    for _ in range(2000):
        tags = world.tags(world.sample(rng, marks=True))
        assert len(tags) == len(set(tags)) >= 5
        met |= set(tags)
    assert met == known  # nothing unknown, and no tag that never occurs


def test_marks_are_never_sampled_unless_asked_for() -> None:
    rng = random.Random(1)
    assert not any(world.sample(rng).marks for _ in range(2000))
    assert {mark for _ in range(50) for mark in world.sample(rng, marks=True).marks} == set(MARKS)


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_changes_the_picture_in_one_clearly_visible_place(mark: str) -> None:
    plain = world.Character()
    difference = np.abs(pixels(plain) - pixels(replace(plain, marks=(mark,)))).max(2) > 60
    assert 20 <= difference.sum() < 1200  # of 4,096 pixels


@pytest.mark.parametrize(
    "change",
    [{"hair": "pink"}, {"style": "twintails"}, {"eyes": "red"}, {"eyes": ""}, {"shirt": "green"}, {"headwear": "witch_hat"}, {"eyewear": "glasses"},
     {"mouth": "open_mouth"}, {"background": "yellow"}, {"neckwear": "bowtie"}, {"flower": True}, {"blush": True}],
)  # fmt: skip
def test_every_attribute_can_be_seen_and_is_named(change: dict) -> None:
    plain, other = world.Character(), replace(world.Character(), **change)
    assert (np.abs(pixels(plain) - pixels(other)).max(2) > 40).sum() >= 4
    assert world.tags(plain) != world.tags(other)


def test_eyes_behind_sunglasses_are_not_named() -> None:
    assert not any(tag.endswith("_eyes") for tag in world.tags(world.Character(eyewear="sunglasses")))


def test_demo_pictures_show_one_character_in_changing_states_at_large_sizes() -> None:
    made = world.demo_pictures(8, seed=4)
    assert all(isinstance(image, Image.Image) and 256 <= image.width == image.height <= 512 for image, _ in made)
    fixed = {"purple_hair", "short_hair", *MARKS}
    assert all(fixed <= set(tags) for _, tags in made)
    assert len({tuple(tags) for _, tags in made}) >= 6
    again = world.demo_pictures(8, seed=4)
    assert all((np.asarray(a) == np.asarray(b)).all() for (a, _), (b, _) in zip(made, again, strict=True))
