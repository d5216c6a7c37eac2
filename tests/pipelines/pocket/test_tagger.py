"""The embedded tagger keeps the contract of the published WD taggers."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pipelines.pocket import MARKS, TAGGER, world
from pipelines.pocket.measure import fresh_drawings, kind_of, macro_f1, read_tags


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    import onnxruntime

    yield onnxruntime.InferenceSession(TAGGER / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Three drawings as the contract wants them: (3, 448, 448, 3) BGR, 0..255."""
    images, _ = fresh_drawings(3)
    return np.stack([np.asarray(image.resize((448, 448)))[:, :, ::-1] for image in images]).astype(np.float32)


def rows() -> list[dict[str, str]]:
    with (TAGGER / "selected_tags.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_it_is_small() -> None:
    assert (TAGGER / "model.onnx").stat().st_size < 1_000_000


def test_its_labels_are_four_ratings_and_then_every_tag_of_the_world() -> None:
    labels = rows()
    assert list(labels[0]) == ["tag_id", "name", "category", "count"]
    assert [row["name"] for row in labels[:4]] == ["general", "sensitive", "questionable", "explicit"]
    assert {row["category"] for row in labels[:4]} == {"9"} and {row["category"] for row in labels[4:]} == {"0"}
    assert [row["name"] for row in labels[4:]] == world.vocabulary()
    assert len({row["tag_id"] for row in labels}) == len(labels)


def test_it_takes_any_number_of_pictures_and_gives_probabilities(session: Any, pixels: np.ndarray) -> None:
    name, shape = session.get_inputs()[0].name, session.get_inputs()[0].shape
    assert shape[1:] == [448, 448, 3] and not isinstance(shape[0], int)
    together = session.run(None, {name: pixels})[0]
    assert together.shape == (3, len(rows())) and together.dtype == np.float32
    assert (together >= 0).all() and (together <= 1).all()
    single = np.concatenate([session.run(None, {name: pixels[i : i + 1]})[0] for i in range(3)])
    np.testing.assert_allclose(together, single, atol=1e-5)


def test_it_rates_the_harmless_world_general(session: Any, pixels: np.ndarray) -> None:
    scores = session.run(None, {session.get_inputs()[0].name: pixels})[0]
    assert (scores[:, 0] > 0.9).all() and (scores[:, 1:4] < 0.1).all()


def test_it_reads_fresh_drawings_and_their_marks() -> None:
    pictures, truth = fresh_drawings(60)
    seen = read_tags(pictures)
    for mark in MARKS:
        right = [(mark in found) == (mark in real) for found, real in zip(seen, truth, strict=True)]
        assert sum(right) >= 0.95 * len(right), mark


def test_macro_f1_counts_missed_and_invented_tags() -> None:
    truth = [["1girl", "solo"], ["1girl", "solo"]]
    perfect = macro_f1([{"1girl", "solo"}] * 2, truth)
    assert perfect == 1.0
    missed = macro_f1([{"1girl", "solo"}, {"1girl"}], truth)
    assert perfect - missed == pytest.approx((1 - 2 / 3) / len(world.vocabulary()))
    assert macro_f1([{"1girl", "solo", "horns"}] * 2, truth) == pytest.approx(1 - 1 / len(world.vocabulary()))


def test_every_tag_has_a_kind_for_the_report() -> None:
    kinds = {tag: kind_of(tag) for tag in world.vocabulary()}
    assert kinds["blue_hair"] == "hair colour" and kinds["blue_eyes"] == "eyes colour" and kinds["long_hair"] == "hair style"
    assert kinds["black_background"] == "background colour" and kinds["blush"] == "blush" and kinds["crown"] == "headwear"


@pytest.mark.slow
def test_macro_f1_on_500_fresh_drawings() -> None:
    pictures, truth = fresh_drawings()
    assert macro_f1(read_tags(pictures), truth) >= 0.95
