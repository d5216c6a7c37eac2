"""The embedded tagger beyond its contract (test_models.py): what it says of the world, and how it was trained."""

from __future__ import annotations

import csv

import numpy as np
import torch

from pipelines.pocket import TAGGER, tagger, world
from prep.taggers import locate


def test_its_labels_follow_the_vocabulary_and_have_their_own_ids() -> None:
    with (TAGGER / "selected_tags.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows[4:]] == world.vocabulary()
    assert len({row["tag_id"] for row in rows}) == len(rows)
    assert {row["category"] for row in rows[:4]} == {"9"} and {row["category"] for row in rows[4:]} == {"0"}


def test_it_rates_the_harmless_world_general() -> None:
    model = locate("pocket").open("cpu", 8)
    pictures = [image for image, _ in world.demo_pictures(4, 11)] + [world.draw(world.Character(), 64, 2)]
    scores = model.score([model.prepare(picture) for picture in pictures])
    assert (scores[:, 0] > 0.9).all() and (scores[:, 1:4] < 0.1).all()


def test_worn_copies_differ_from_each_other_but_stay_pictures_of_the_same_thing() -> None:
    torch.manual_seed(0)
    drawing = torch.from_numpy(np.array(world.draw(world.Character(), 64, 1))).permute(2, 0, 1).float() / 127.5 - 1
    copies = tagger.worn(drawing.repeat(8, 1, 1, 1))
    assert copies.shape == (8, 3, 64, 64) and copies.min() >= -1 and copies.max() <= 1
    assert (copies[0] - copies[1]).abs().mean() > 0.01
    means = copies.mean((1, 2, 3))
    assert (means - drawing.mean()).abs().max() < 0.3
