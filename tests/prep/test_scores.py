import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prep.options import UserError
from prep.scores import Labels, ScoreStore, picture_key

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
        assert len({model.id for model in [first, *others]}) == 4
        assert store.last_used() == others[2] and store.last_used("pocket") == others[1] and store.last_used("none") is None
        assert store.register("pocket", "w1", 1, LABELS) == first == store.last_used()


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
