"""Score shards: what tasks score apart is one store afterwards, whichever comes first, dies or runs twice."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from prep.options import UserError
from prep.score_shards import files
from prep.scores import Labels, Model, ScoreStore

LABELS = Labels(("general", "1girl"), ("rating", "general"))


def score(folder: Path, shard: str, pictures: str, value: float = 0.5, complete: bool = True) -> Model:
    with ScoreStore.open(folder, shard=shard) as store:
        model = store.register("pocket", "w1", 1, LABELS)
        store.put(model, {picture: np.full(2, value, np.float32) for picture in pictures})
        if complete:
            store.complete()
    return model


def kept(folder: Path, model: Model, shard: str = "") -> set[str]:
    with ScoreStore.open(folder, create=False, shard=shard) as store:
        return {picture for picture in "abcdefgh" if store.has(picture, model)}


def test_each_task_sees_the_store_and_its_own_scores_and_writes_a_file_of_its_own(tmp_path: Path) -> None:
    model = score(tmp_path, "", "a")
    before = (tmp_path / "scores.sqlite").read_bytes()
    for shard, pictures in (("1/2", "bc"), ("2/2", "de")):
        assert score(tmp_path, shard, pictures) == model
        assert kept(tmp_path, model, shard) == set("a" + pictures)
    assert (tmp_path / "scores.sqlite").read_bytes() == before
    assert [path.name for path in files(tmp_path)] == ["scores-1-of-2.sqlite", "scores-2-of-2.sqlite"]
    assert kept(tmp_path, model) == set("abcde") and not files(tmp_path)


def test_a_task_knows_the_tagger_that_was_used_last(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has been scored yet"), ScoreStore.open(tmp_path, create=False, shard="1/2"):
        pass
    model = score(tmp_path, "", "a")
    for _ in range(2):
        with ScoreStore.open(tmp_path, create=False, shard="1/2") as store:
            assert store.last_used() == model and store.last_used("wd") is None and store.any(model)
            values = store.get("a", model)
            assert values is not None and values.tolist() == [0.5, 0.5] and store.get("b", model) is None
        score(tmp_path, "1/2", "")


def test_a_task_that_was_killed_keeps_its_file_and_is_taken_in_again_when_it_went_on(tmp_path: Path) -> None:
    model = score(tmp_path, "1/2", "ab", complete=False)
    score(tmp_path, "2/2", "c")
    for _ in range(2):
        assert kept(tmp_path, model) == set("abc") and [path.name for path in files(tmp_path)] == ["scores-1-of-2.sqlite"]
    assert kept(tmp_path, model, "1/2") == set("abc")
    score(tmp_path, "1/2", "d")
    assert kept(tmp_path, model) == set("abcd") and not files(tmp_path)


def test_a_picture_that_two_tasks_scored_is_there_once(tmp_path: Path) -> None:
    model = score(tmp_path, "", "a", 0.25)
    score(tmp_path, "1/2", "b", 0.5)
    score(tmp_path, "2/2", "ab", 0.75)
    with ScoreStore.open(tmp_path, create=False) as store:
        assert [float(values[0]) for key in "ab" if (values := store.get(key, model)) is not None] == [0.25, 0.5]


def test_models_that_the_store_numbers_otherwise_are_told_apart(tmp_path: Path) -> None:
    with ScoreStore.open(tmp_path) as store:
        other = store.register("wd", "w9", 1, LABELS)
        store.put(other, {"a": np.zeros(2, np.float32)})
    model = score(tmp_path, "1/2", "b")
    assert kept(tmp_path, model) == {"b"} and kept(tmp_path, other) == {"a"}
    with ScoreStore.open(tmp_path) as store:
        assert store.last_used() == model


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    score(tmp_path, "", "a")
    (tmp_path / "scores-1-of-2.sqlite").write_bytes(b"no database, whatever its name says" * 40)
    with pytest.raises(UserError, match=r"scores-1-of-2\.sqlite cannot be used .*; delete it and run"), ScoreStore.open(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "scores.sqlite") as database:
        assert database.execute("SELECT count(*) FROM scores").fetchone() == (1,)
