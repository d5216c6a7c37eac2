"""The report on each picture, over losses that are made up, and what max_token_length cuts off its caption."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prep.clip_bpe import count
from tests.train.test_diagnose import Ready, ready
from train.config import DataConfig, TrainConfig
from train.per_picture import cut_tags, picture_report, report_lines, robust_scores, spread, truncation_notes, verdict_of

pytestmark = pytest.mark.usefixtures("one_thread")

TAGS = st.lists(st.text("abcdefgh ()0123456789", min_size=1, max_size=24).filter(lambda tag: bool(tag.strip())), min_size=1, max_size=60)


@given(TAGS, st.sampled_from((75, 150)))
def test_what_is_cut_and_what_is_kept_is_the_caption(tags: list[str], length: int) -> None:
    tags = [" ".join(tag.split()) for tag in tags]
    caption = ", ".join(tags)
    cut = cut_tags(caption, DataConfig(), length)
    kept = tags[: len(tags) - len(cut)]
    assert [*kept, *cut] == tags and bool(cut) == (count(caption) > length)
    assert not cut or (count(", ".join(kept)) <= length < count(", ".join([*kept, cut[0]])))


def test_weights_of_tags_are_no_tokens() -> None:
    caption = ", ".join(["(smile:1.25)"] * 37)
    assert cut_tags(caption, DataConfig(weighted_captions=True), 75) == [] and cut_tags(caption, DataConfig(), 75)


@pytest.mark.parametrize(
    ("own", "verdict"),
    [
        ((0.5, 0.0, 0.1, 0.0, 0.5, 0.1), ""),
        ((0.1, -8.0, 0.1, 0.0, 0.5, 0.1), "mislabelled"),
        ((0.4, -8.0, 0.1, 0.0, 0.5, 0.1), ""),  # a little less in a set of equals
        ((0.5, 0.0, -0.1, -5.0, 0.5, 0.1), "mislabelled"),
        ((0.5, 0.0, -0.1, -5.0, 0.5, 0.001), ""),  # the keyword tells nothing
        ((0.8, 6.0, 0.1, 0.0, 0.5, 0.1), "memorised"),
        ((-0.1, -2.0, 0.1, 0.0, 0.5, 0.1), "unlearned"),
        ((-0.1, -9.0, 0.1, 0.0, 0.001, 0.1), ""),  # nothing was learned by any
    ],
)
def test_verdicts(own: tuple[float, float, float, float, float, float], verdict: str) -> None:
    assert verdict_of(*own) == verdict


def test_one_far_out_does_not_hide_another() -> None:
    scores = robust_scores([1.0, 1.1, 0.9, 1.05, 0.95, 1.0, 9.0, -9.0])
    assert all(abs(score) < 2 for score in scores[:6]) and scores[6] > 50 and scores[7] < -50
    assert robust_scores([1.0, 99.0]) == [0.0, 0.0]


@pytest.fixture
def many(tiny_base: Path, tiny_tree: Path) -> Ready:
    job, state = ready(tiny_base, tiny_tree, num_epochs=1)
    first = next(picture for picture in job.data.pictures if not picture.folder.is_reg)
    pictures = tuple(dataclasses.replace(first, path=first.path.with_name(f"{n}.png")) for n in range(9))
    return dataclasses.replace(job, steps=1000, data=dataclasses.replace(job.data, pictures=pictures)), state


def test_the_report_names_whom_the_losses_show(many: Ready) -> None:
    job, state = many
    left = {"0": 0.9, "1": 0.1}

    def measure(pictures: Sequence[Any], captions: Sequence[str]) -> torch.Tensor:
        assert len(captions) == 9
        if not state.network.multiplier:
            return torch.ones(9, 4)
        bare = "tok" not in captions[0]
        shares = [left.get(p.path.stem, 0.5 + 0.01 * int(p.path.stem)) + bare * 0.05 for p in pictures]
        return torch.tensor(shares)[:, None].expand(-1, 4)

    rows = picture_report(job, state, measure)
    assert [row.verdict for row in rows] == ["mislabelled", "memorised", *[""] * 7] and state.network.multiplier == 1
    assert rows[3].improvement == pytest.approx(0.47) and rows[3].keyword == pytest.approx(0.05) and rows[3].base == 1
    lines = report_lines(rows, job.config.data.tree)
    assert [line.partition(":")[0] for line in lines] == ["mislabelled", "memorised"] and "img/2_tok/0.png" in lines[0]


def test_a_fresh_network_has_no_outliers(many: Ready) -> None:
    job, state = many
    assert {(row.improvement, row.keyword, row.verdict) for row in picture_report(job, state)} == {(0.0, 0.0, "")}


def test_pictures_are_spread_evenly(many: Ready) -> None:
    pictures = many[0].data.pictures
    assert [picture.path.stem for picture in spread(pictures, 3)] == ["0", "3", "6"] and spread(pictures, 20) == list(pictures)


LONG = ", ".join(["tok", *(f"tag number {n}" for n in range(30))])


def test_tags_that_are_never_trained(many: Ready) -> None:
    job, _ = many
    plain = TrainConfig(data=DataConfig(shuffle_caption=False))
    fits, long = "tok, smile", LONG + ", red hat, smile"
    pictures = [dataclasses.replace(p, caption=(fits, long, long)[n % 3], settings=plain.data) for n, p in enumerate(job.data.pictures)]
    (line,) = truncation_notes(pictures, plain)
    assert "6 of 9 captions are longer than 75 tokens" in line and line.endswith("set max_token_length = 150")
    assert "never trained: red hat" in line and "smile" not in line
    assert not truncation_notes(pictures[:1], plain)
    shuffled = [dataclasses.replace(picture, settings=DataConfig()) for picture in pictures]
    (line,) = truncation_notes(shuffled, plain)
    assert "others each time" in line and "never" not in line
