"""Threads that work ahead: the same items in the same order, not far ahead, errors where they belong, and no thread left."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prep.options import UserError
from tests.train.test_run import configured
from train.dataset import Batch, TrainingSet
from train.prefetch import ahead, decoded, mapped
from train.processes import Processes
from train.run import groups_left, open_base, prepare, run, start
from train.state import Job, TrainState


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 4), st.integers(1, 6))
def test_items_come_in_order_however_long_each_takes(waits: list[int], count: int, waiting: int) -> None:
    def slow(numbered: tuple[int, int]) -> int:
        time.sleep(numbered[1] / 1000)
        return numbered[0]

    assert list(mapped(slow, enumerate(waits), count, waiting)) == list(range(len(waits)))
    assert list(ahead(waits)) == waits
    assert not threads()


def test_no_more_is_begun_than_may_wait() -> None:
    begun: list[int] = []
    for number, found in enumerate(mapped(lambda item: begun.append(item) or item, range(20), threads=2, waiting=3)):
        time.sleep(0.002)
        assert found == number and len(begun) <= number + 1 + 3
    begun.clear()
    items = ahead(begun.append(item) or item for item in range(20))  # type: ignore[func-returns-value]
    for number in range(5):
        assert next(items) == number
        time.sleep(0.01)
        assert begun == list(range(number + 2)), "the next one is made meanwhile, and no other"
    items.close()  # type: ignore[attr-defined]
    assert not threads()


def broken(count: int) -> Iterator[int]:
    yield from range(count)
    raise UserError("it is broken")


def test_an_error_comes_after_what_came_before_it() -> None:
    seen = []
    with pytest.raises(UserError, match="it is broken"):
        for item in ahead(broken(3)):
            seen.append(item)
    with pytest.raises(ZeroDivisionError):
        for found in mapped(lambda item: 6 // item, (3, 2, 1, 0, 1)):
            seen.append(found)
    assert seen == [0, 1, 2, 2, 3, 6]
    assert not threads()


def test_decoders_leave_warnings_as_they_were() -> None:
    import warnings

    def quiet(wait: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            time.sleep(wait / 1000)

    before = list(warnings.filters)
    list(decoded(quiet, [5, 1, 3, 8, 2, 1, 4, 9, 1]))
    assert list(warnings.filters) == before


@pytest.fixture
def ready(tiny_base: Path, tiny_tree: Path) -> tuple[Job, TrainState]:
    config = configured(tiny_base, tiny_tree, gradient_accumulation_steps=2, num_epochs=3, train_text_encoder=False, shuffle_caption=False)
    job = prepare(config, *open_base(config, Processes()), {})
    return job, start(job, None)


def equal(a: Batch, b: Batch) -> bool:
    text = a.text is not None and b.text is not None and torch.equal(a.text.states, b.text.states)
    tensors = ("latent_mean", "latent_std", "input_ids", "sizes", "weight")
    return text and a.seed == b.seed and a.captions == b.captions and all(torch.equal(getattr(a, name), getattr(b, name)) for name in tensors)


@pytest.mark.parametrize("until", [1, 4, 5])
def test_a_run_reads_the_batches_it_takes_and_no_others(ready: tuple[Job, TrainState], monkeypatch: pytest.MonkeyPatch, until: int) -> None:
    job, state = ready
    an_epoch = -(-job.data.batches_per_epoch // 2)
    wanted = [batch for epoch in range(3) for batch in job.data.batches(epoch)]
    made: list[Any] = []
    real = TrainingSet._batch
    monkeypatch.setattr(TrainingSet, "_batch", lambda self, *args: made.append(args) or real(self, *args))
    taken = []
    for group in groups_left(job, state, until):
        taken += group
        state.advance(job.data.batches_a_step, job.data.batches_per_epoch, 0.0)
    assert state.step == until and state.epoch == until // an_epoch
    assert len(taken) == len(made) and all(map(equal, taken, wanted))
    assert not threads()


@pytest.mark.usefixtures("one_thread")
def test_a_picture_that_went_ends_the_run_in_its_sentence(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import train.run

    config = configured(tiny_base, tiny_tree, num_epochs=2)

    def gone(job: Job, state: TrainState) -> None:
        job.data.latents.store.held.clear()
        shutil.rmtree(tiny_tree.parent / ".atelier" / "latents")
        for path in (tiny_tree / "img").rglob("*.png"):
            path.unlink()

    monkeypatch.setattr(train.run, "announce", gone)
    with pytest.raises(UserError, match=r"\.png cannot be read .*mend it or take it out of the tree"):
        run(config)
    assert not threads()
