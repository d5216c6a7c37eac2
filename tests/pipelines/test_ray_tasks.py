"""Ray: a small cluster on this machine gives what one process gives, also when a worker is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from pipelines.executors import EXECUTORS, here
from prep.clean import Clean
from prep.item import Item, Store
from prep.options import UserError, load_object, option
from prep.step import ParallelStep

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One cluster of two workers for all tests here."""
    here = str(Path(__file__).parents[2])
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": here}})
    yield
    ray.shutdown()


@dataclass(frozen=True)
class Fragile(ParallelStep):
    """Note the width of every picture; the first time that `victim` comes, its worker is killed."""

    batch: ClassVar[int] = 2

    victim: str = option("", help="The key at which a worker dies once.")
    fail: str = option("", help="The key at which to fail.")

    def inputs(self, item: Item) -> Any:
        return item.path.stat().st_size

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        for item in batch:
            if item.key == self.fail:
                raise UserError(f"{item.key} is not wanted")
            died = store.folder / "died"
            if item.key == self.victim and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            item.width = item.image().width
            yield item


@pytest.fixture
def store(tmp_path: Path) -> Store:
    for number in range(20):
        Image.new("RGB", (8 + number, 8), "red").save(tmp_path / f"{number:03}.png")
    return Store(tmp_path)


def run(step: ParallelStep, store: Store) -> list[Item]:
    return list(load_object(EXECUTORS["ray"])(step, store.items(), store, 2))


def test_a_killed_worker_changes_nothing(store: Store) -> None:
    items = run(Fragile(victim="007"), store)
    assert (store.folder / "died").exists()
    assert [item.key for item in items] == [f"{number:03}" for number in range(20)]
    assert [item.width for item in items] == [8 + number for number in range(20)]
    assert store.load() == items


def test_the_sentence_of_an_error_arrives(store: Store) -> None:
    with pytest.raises(UserError, match="011 is not wanted"):
        run(Fragile(fail="011"), store)


def test_cleaning_on_the_cluster_equals_cleaning_here(store: Store, tmp_path: Path) -> None:
    contents = []
    for name in ("ray", "here"):
        target = Store(tmp_path / name / "work")
        step = Clean(min_side=4, check=False)
        execute = load_object(EXECUTORS[name]) if name == "ray" else here
        assert len(list(execute(step, target.sources(store.folder), target, 2))) == 20
        contents.append({path.relative_to(target.folder): path.read_bytes() for path in target.folder.rglob("*") if path.is_file()})
    assert contents[0] == contents[1] and len(contents[0]) == 40
