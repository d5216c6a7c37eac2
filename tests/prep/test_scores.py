import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.options import UserError
from prep.scores import STEPS, Labels, ScoreStore, UnsoundScores, pack, picture_key, unpack

LABELS = Labels(("general", "1girl", "hat", "miku"), ("rating", "general", "general", "character"))


def test_scores_come_back_as_they_went_in(tmp_path: Path) -> None:
    with ScoreStore.open(tmp_path) as store:
        model = store.register("pocket", "w1", 1, LABELS)
        store.put(model, {"a": np.array([0.1, 0.5, 0.25, 1.0], np.float32)})
    with ScoreStore.open(tmp_path, create=False) as store:
        again = store.last_used("pocket")
        assert again == model
        values = store.get("a", again)
        assert values is not None and np.abs(values - [0.1, 0.5, 0.25, 1.0]).max() < 1e-3 and values.dtype == np.float32
        assert store.get("b", again) is None and store.has("a", again) and not store.has("b", again)
        assert LABELS.read(values, 0.5) == {"rating": {"general": values[0]}, "general": {"1girl": 0.5}, "character": {"miku": 1.0}}


def test_weights_and_preprocessing_are_told_apart_and_the_last_used_is_known(tmp_path: Path) -> None:
    with ScoreStore.open(tmp_path) as store:
        assert store.last_used() is None
        first = store.register("pocket", "w1", 1, LABELS)
        others = [store.register("pocket", "w2", 1, LABELS), store.register("pocket", "w1", 2, LABELS), store.register("wd", "w1", 1, LABELS)]
        assert len({first, *others}) == 4
        assert store.last_used() == others[2] and store.last_used("pocket") == others[1] and store.last_used("none") is None
        assert store.register("pocket", "w1", 1, LABELS) == first == store.last_used()


def test_of_two_that_register_a_model_at_once_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look, looks = ScoreStore._newest_if, []

    def slowly(store: ScoreStore, *model: object) -> int | None:
        found = look(store, *model)
        looks.append(found)
        if len(looks) == 1:  # another process registers after this one has looked
            with ScoreStore.open(tmp_path) as other:
                other.register("pocket", "w1", 1, LABELS)
        return found

    monkeypatch.setattr(ScoreStore, "_newest_if", slowly)
    with ScoreStore.open(tmp_path) as store:
        store.register("pocket", "w1", 1, LABELS)
    assert looks == [None, None, None, 1]
    with sqlite3.connect(tmp_path / "scores.sqlite") as database:
        assert database.execute("SELECT used FROM models").fetchall() == [(1,)]
    database.close()


def test_a_crop_is_another_picture() -> None:
    assert picture_key("d", None) == "d"
    assert picture_key("d", (0, 0, 5, 5)) != picture_key("d", (0, 0, 5, 6))


def test_a_missing_or_damaged_store_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `prep tag` first"), ScoreStore.open(tmp_path / ".atelier", create=False):
        pass
    assert not (tmp_path / ".atelier").exists()
    (tmp_path / "scores.sqlite").write_bytes(b"no database, whatever its name says" * 40)
    with pytest.raises(UserError, match=r"scores\.sqlite cannot be used .*; delete it"), ScoreStore.open(tmp_path):
        pass


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_and_named_and_nothing_beside_it_kept(tmp_path: Path, bad: float) -> None:
    with ScoreStore.open(tmp_path) as store:
        model = store.register("pocket", "w1", 1, LABELS)
        with pytest.raises(UnsoundScores, match="pocket gives the picture the-black-one a score that is no number"):
            store.put(model, {"sound": np.zeros(4, np.float32), "the-black-one": np.array([0, 0, bad, 0], np.float32)})
        assert not store.has("sound", model) and not store.any(model)
        store.put(model, {"sound": np.zeros(4, np.float32)})
        assert store.any(model) and not store.any(store.register("pocket", "w2", 1, LABELS))


WRITER = """
import sys, numpy as np
from pathlib import Path
from prep.scores import Labels, ScoreStore
with ScoreStore.open(Path(sys.argv[1])) as store:
    model = store.register("m", "w", 1, Labels(("a", "b"), ("general", "general")))
    n = 0
    while True:
        store.put(model, {f"{n}-{i}": np.full(2, 0.5, np.float32) for i in range(8)})
        n += 1
        print(n, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_writer_loses_nothing_it_had_put(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], text=True)
    assert writer.stdout is not None
    done = [int(writer.stdout.readline()) for _ in range(5)][-1]
    os.kill(writer.pid, signal.SIGKILL)
    done = max([done, *map(int, writer.stdout.read().split())])
    writer.wait()
    with ScoreStore.open(tmp_path) as store:
        model = store.last_used()
        assert model is not None
        assert all(store.has(f"{n}-{i}", model) for n in range(done) for i in range(8))
        assert len({store.has(f"{done}-{i}", model) for i in range(8)}) == 1  # the batch under way is whole or absent


@given(st.lists(st.floats(0, 1, width=32), max_size=40))
def test_every_score_is_kept_to_an_eight_thousandth(values: list[float]) -> None:
    row = np.array(values, np.float32)
    back = unpack(pack(row), len(row))
    assert back.dtype == np.float32 and back.shape == row.shape
    assert np.abs(back.astype(np.float64) - row).max(initial=0) <= 1 / (2 * STEPS) + 1e-7
    assert np.array_equal(unpack(pack(back), len(row)), back)


def test_a_score_at_a_threshold_of_three_decimals_counts() -> None:
    labels = Labels(tuple(f"t{i}" for i in range(1001)), ("general",) * 1001)
    values = unpack(pack(np.arange(1001, dtype=np.float32) / 1000), 1001)
    for thousandths in (1, 35, 50, 261, 350, 850, 999):
        read = labels.read(values, thousandths / 1000)["general"]
        assert [tag for tag, score in read.items() if score >= thousandths / 1000] == list(labels.names[thousandths:])


@pytest.mark.parametrize("kind", ["like a tagger's", "any numbers"])
def test_a_hundred_thousand_pictures_of_wds_tags_take_less_than_two_gigabytes(tmp_path: Path, kind: str) -> None:
    rng, count, pictures = np.random.default_rng(0), 10861, 200
    values = rng.random((pictures, count))
    if kind != "any numbers":  # most near nothing, a few dozen that fire
        logits = rng.normal(-9, 2.2, (pictures, count))
        logits[:, ::270] = rng.normal(1.5, 2, (pictures, 41))
        values = 1 / (1 + np.exp(-logits))
    with ScoreStore.open(tmp_path) as store:
        model = store.register("wd", "w", 1, Labels(tuple(map(str, range(count))), ("general",) * count))
        before = (tmp_path / "scores.sqlite").stat().st_size
        for at in range(0, pictures, 16):
            store.put(model, {hashlib.sha256(bytes([at + i])).hexdigest(): row.astype(np.float32) for i, row in enumerate(values[at : at + 16])})
    each = ((tmp_path / "scores.sqlite").stat().st_size - before) / pictures
    assert each < (20_000 if kind == "any numbers" else 11_000)


def test_rows_of_an_older_store_are_read_and_rewritten(tmp_path: Path) -> None:
    with ScoreStore.open(tmp_path) as store:
        model = store.register("pocket", "w1", 1, LABELS)
    database = sqlite3.connect(tmp_path / "scores.sqlite")
    with database:
        database.execute("PRAGMA user_version = 0")
        for picture, value in (("a", 0.25), ("b", 0.75)):
            database.execute("INSERT INTO scores VALUES (?, ?, ?)", (picture, 1, np.full(4, value, "<f2").tobytes()))
    database.close()
    for _ in range(2):
        with ScoreStore.open(tmp_path, create=False) as store:
            assert np.array_equal(store.get("a", model), [0.25] * 4) and np.array_equal(store.get("b", model), [0.75] * 4)


def test_a_row_that_does_not_fit_its_labels_is_a_sentence(tmp_path: Path) -> None:
    with ScoreStore.open(tmp_path) as store:
        model = store.register("pocket", "w1", 1, LABELS)
        store.put(model, {"a": np.zeros(7, np.float32)})
    with pytest.raises(UserError, match=r"scores\.sqlite cannot be used"), ScoreStore.open(tmp_path) as store:
        store.get("a", model)


def test_threads_share_a_store(tmp_path: Path) -> None:
    with ScoreStore.open(tmp_path) as store, ThreadPoolExecutor(8) as pool:
        model = store.register("pocket", "w1", 1, LABELS)

        def use(number: int) -> bool:
            store.put(model, {str(number): np.full(4, number / 4000, np.float32)})
            return store.has(str(number), model) and store.get(str(number), model)[0] == np.float32(number / 4000)

        assert all(pool.map(use, range(64)))


@given(st.lists(st.integers(0, 4000), min_size=5, max_size=40), st.one_of(st.floats(0, 1), st.integers(0, 1000).map(lambda n: n / 1000)))
def test_packed_scores_are_read_as_unpacked_ones(steps: list[int], floor: float) -> None:
    count = len(steps)
    labels = Labels(tuple(f"tag_{n}" for n in range(count)), ("rating", "general", *("character", "meta", "general") * count)[:count])
    data = pack(np.array(steps) / 4000)
    assert labels.read_packed(data, floor) == labels.read(unpack(data, count), floor)
