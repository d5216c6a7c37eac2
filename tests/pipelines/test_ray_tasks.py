"""Ray: a small cluster on this machine gives what one process gives, also when a worker is killed."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from pipelines.executors import EXECUTORS, here
from prep.clean import Clean
from prep.item import Item
from prep.options import UserError, load_object, option
from prep.project import Place
from prep.run import run_steps
from prep.step import ParallelStep
from prep.store import Store
from prep.tag import Tag

ray = pytest.importorskip("ray")
models = pytest.importorskip("tests.prep.taggers.models")  # they need onnx


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


@dataclass(frozen=True)
class FragileTag(Tag):
    """Score pictures; the first time that `victim` comes, its worker is killed, before or after it has kept the scores."""

    victim: str = option("", help="The key at which a worker dies once.")
    late: bool = option(False, help="Die when the scores are kept.")

    @classmethod
    def table(cls) -> str:
        return Tag.table()

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        died = store.folder.parent / "died"
        dying = self.victim in [item.key for item in batch] and not died.exists()
        if not dying or self.late:
            super().apply(batch, store)
        if dying:
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return batch


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


def scored(folder: Path, step: Tag) -> dict[str, object]:
    """Score a folder and its captions, and return all that is known of it afterwards, scores byte by byte."""
    from prep.caption import Caption

    run_steps(Place(folder), [step, Caption(tagger=step.tagger)])
    hidden = folder / ".atelier"
    found: dict[str, object] = {}
    for name, query in (
        ("scores.sqlite", "SELECT picture, model, scores FROM scores ORDER BY picture"),
        ("scores.sqlite", "SELECT * FROM models"),
        ("captions.sqlite", "SELECT key, state FROM captions ORDER BY key"),
    ):
        with sqlite3.connect(hidden / name) as database:
            found[query] = database.execute(query).fetchall()
        database.close()
    files = [*folder.glob("*.txt"), *(hidden / "items").iterdir()]
    return found | {path.name: path.read_bytes() for path in files}


def test_scores_from_the_cluster_are_those_of_this_process_to_the_byte_also_when_workers_die(store: Store, tmp_path: Path) -> None:
    tagger = str(models.make_tagger(tmp_path / "tagger"))
    Image.new("RGB", (8, 8), "red").save(store.folder / "twin.png")  # its pixels are those of 000
    (store.folder / "broken.png").write_bytes(b"\x89PNG")
    steps = {
        "here": Tag(tagger=tagger),
        "ray": Tag(tagger=tagger, executor="ray", workers=2, batch_size=3),
        "early": FragileTag(tagger=tagger, executor="ray", workers=2, batch_size=3, victim="007"),
        "late": FragileTag(tagger=tagger, executor="ray", workers=2, batch_size=3, victim="007", late=True),
    }
    results = {}
    for name, step in steps.items():
        folder = tmp_path / "runs" / name / "pictures"
        folder.mkdir(parents=True)
        for picture in store.folder.glob("*.png"):
            shutil.copy2(picture, folder)
        results[name] = scored(folder, step)
        assert (folder.parent / "died").exists() == isinstance(step, FragileTag)
    for name, result in results.items():
        assert result == results["here"], name
    assert len(results["here"]) == 3 + 21 + 22  # tables, captions, sidecars
