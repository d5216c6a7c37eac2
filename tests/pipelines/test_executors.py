"""Executors: wherever the work is done, the same items come out in the same order, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from pipelines.executors import EXECUTORS, cores, here, processes
from prep.item import Item
from prep.options import UserError, load_object, option
from prep.step import ParallelStep
from prep.store import Store

COUNT = 40


@dataclass(frozen=True)
class Who(ParallelStep):
    """Note in which process an item was worked on."""

    batch: ClassVar[int] = 2

    level: int = option(1, help="Which matters.")
    fail: str = option("", help="The key at which to fail.")

    def inputs(self, item: Item) -> Any:
        return item.path.stat().st_size

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        for item in batch:
            if item.key == self.fail:
                raise UserError(f"{item.key} is not wanted")
            item.width, item.detail = item.image().width, str(os.getpid())
            yield item


@pytest.fixture
def store(tmp_path: Path) -> Store:
    for number in range(COUNT):
        Image.new("RGB", (8 + number, 8), "red").save(tmp_path / f"{number:03}.png")
    (tmp_path / "007.png").write_bytes(b"\x89PNG broken")
    return Store(tmp_path)


def run(store: Store, name: str, step: Who | None = None, workers: int = 2) -> list[Item]:
    return list(load_object(EXECUTORS[name])(step or Who(), store.items(), store, workers))


def test_processes_give_what_one_process_gives_in_the_same_order(store: Store) -> None:
    spread = run(store, "processes")
    assert store.load() == spread
    pids = {item.detail for item in spread if not item.dropped}
    assert pids and str(os.getpid()) not in pids
    assert [item.dropped for item in spread if item.key == "007"] == ["truncated"]
    alone = {item.key: item for item in run(store, "here", Who(level=2))}
    assert {item.detail for item in alone.values() if not item.dropped} == {str(os.getpid())}
    for item in spread:
        assert replace(alone[item.key], detail="", stamps={}) == replace(item, detail="", stamps={})


def test_finished_work_is_not_handed_out_again(store: Store) -> None:
    before = {item.key: item.detail for item in run(store, "processes")}
    assert {item.key: item.detail for item in run(store, "processes", workers=3)} == before
    assert {item.key: item.detail for item in run(store, "here")} == before, "how many workers there are does not matter to the result"


def test_a_little_work_is_done_here(store: Store) -> None:
    few = [item for item in store.items() if item.key < "006"]
    assert {item.detail for item in processes(Who(), few, store, 2)} == {str(os.getpid())}
    done = list(processes(Who(), store.items(), store, 8))
    assert len(done) == COUNT and {item.detail for item in done if not item.dropped} == {str(os.getpid())}


def test_an_error_in_a_worker_ends_the_run_with_its_sentence(store: Store) -> None:
    with pytest.raises(UserError, match="033 is not wanted"):
        run(store, "processes", Who(fail="033"))


@pytest.mark.skipif(sys.platform == "win32", reason="asks ps")
def test_stopping_early_ends_the_workers(store: Store) -> None:
    stream = processes(Who(), store.items(), store, 2)
    first = next(stream)
    stream.close()
    assert not _alive(int(first.detail))


def test_here_needs_no_workers(store: Store) -> None:
    assert len(list(here(Who(), store.items(), store))) == COUNT
    assert 1 <= cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_workers_of_a_killed_parent_end(store: Store) -> None:
    code = f"""
from pathlib import Path
from pipelines.executors import processes
from prep.store import Store
from tests.pipelines.test_executors import Who
if __name__ == "__main__":
    store = Store(Path({str(store.folder)!r}))
    for item in processes(Who(), store.items(), store, 2):
        print(item.detail, flush=True)
        input()
"""
    script = store.folder / "parent.py"
    script.write_text(code, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    assert parent.stdout
    worker = int(parent.stdout.readline())
    assert worker != parent.pid and _alive(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(100):
        if not _alive(worker):
            return
        time.sleep(0.1)
    pytest.fail("a worker outlived its parent by ten seconds")


def _alive(pid: int) -> bool:
    """Tell whether a process is there and is not a zombie that nobody waited for."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")
