"""Executors: where the work of a step is done; the step is the same function everywhere.

An executor takes a step, a stream of items, the store and how many workers there may be, and yields the items in their order.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait

from prep.item import Item
from prep.step import Step, batched
from prep.store import Store

WORTH = 4  # batches of new work for each worker: for fewer, starting processes takes longer than they save
AHEAD = 3  # batches a worker may have waiting; they bound the memory


def here(step: Step, items: Iterable[Item], store: Store, workers: int = 1) -> Iterator[Item]:
    """Do the work in this process."""
    for batch in batched(items, step.batch):
        yield from step.work(batch, store)


def processes(step: Step, items: Iterable[Item], store: Store, workers: int = 0) -> Iterator[Item]:
    """Spread the batches over processes of this machine, one for each core if `workers` is 0; a little work is done here."""
    workers = workers or cores()
    batches = batched(items, step.batch)
    first: list[list[Item]] = []
    todo = 0
    while todo < workers * WORTH and (batch := next(batches, None)) is not None:
        first.append(batch)
        todo += bool(step.todo(batch))
    if workers == 1 or todo < workers * WORTH:
        yield from here(step, chain.from_iterable(chain(first, batches)), store)
        return
    # Processes are started anew, not forked: a model's threads do not survive a fork, and Windows and macOS have none.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin)
    packed = pickle.dumps((step, store))
    try:
        yield from in_order(step, chain(first, batches), workers * AHEAD, lambda batch: pool.submit(work_on, packed, batch).result)
    finally:
        pool.shutdown(cancel_futures=True)


# Name -> "module:function".
EXECUTORS = {
    "here": "pipelines.executors:here",
    "processes": "pipelines.executors:processes",
    "ray": "pipelines.ray_tasks:ray_tasks",
}


def cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(step: Step, batches: Iterable[list[Item]], ahead: int, submit: Callable[[list[Item]], Callable[[], list[Item]]]) -> Iterator[Item]:
    """Hand batches out with `submit`, which returns what waits for the result, and yield them in their order.

    At most `ahead` batches are out or done and not yet yielded; those with nothing to do are not handed out.
    """
    batches = iter(batches)
    waiting: deque[Callable[[], list[Item]]] = deque()
    while True:
        for batch in islice(batches, ahead - len(waiting)):
            waiting.append(submit(batch) if step.todo(batch) else partial(list, batch))
        if not waiting:
            return
        yield from waiting.popleft()()


def work_on(packed: bytes, batch: list[Item]) -> list[Item]:
    """Do a batch's work in a worker; `packed` is the pickled step and store."""
    step, store = _unpacked(packed)
    return list(step.work(batch, store))


@lru_cache(maxsize=1)
def _unpacked(packed: bytes) -> tuple[Step, Store]:
    """Unpack a step once for all its batches, so that a model it loads is loaded once."""
    return pickle.loads(packed)


def _begin() -> None:
    """Prepare a worker: Ctrl-C is the parent's business, and a worker whose parent is gone must not stay behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
