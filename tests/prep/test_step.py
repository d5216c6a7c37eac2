"""Step: chains stream in batches, finished work is not done again, and a bad picture costs no other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prep.item import Item
from prep.options import UserError, option
from prep.project import Place
from prep.step import Step, batched
from prep.store import Store


@dataclass(frozen=True)
class Look(Step):
    """Decode every picture; the keys of each batch land in `seen`."""

    batch: ClassVar[int] = 3

    level: int = option(1, help="An option.")
    seen: list[str] = field(default_factory=list, hash=False, compare=False, repr=False)

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        for item in batch:
            item.width = item.image().width
        self.seen.append("".join(item.key for item in batch))
        return batch

    def stamp(self, item: Item) -> str | None:
        return Step.stamp(type(self)(self.level), item)  # `seen` is no option


@dataclass(frozen=True)
class Careful(Look):
    """The same, remembered by the file's size."""

    def inputs(self, item: Item) -> Any:
        return item.path.stat().st_size


@dataclass(frozen=True)
class Glance(Look):
    """The same, without a trace."""

    writes: ClassVar[bool] = False


SIZES: list[int] = []


@dataclass(frozen=True)
class Chosen(Step):
    """A step whose batches are as large as the user says."""

    size: int = option(2, help="How many at once.")

    @property
    def batch(self) -> int:
        return self.size

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        SIZES.append(len(batch))
        return batch


@pytest.fixture
def store(tmp_path: Path) -> Store:
    for name in "abcde":
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{name}.png")
    return Store(tmp_path)


def run(step: Look, store: Store) -> dict[str, Item]:
    return {item.key: item for item in step(step.read(Place(store.folder), store), store)}


def test_items_go_through_in_batches_and_are_remembered(store: Store) -> None:
    step = Look()
    run(step, store)
    assert step.seen == ["abc", "de"]
    assert {item.key: item.width for item in store.load()} == dict.fromkeys("abcde", 8)


def test_a_chain_streams(store: Store) -> None:
    first, second = Look(), Look()
    stream = second(first(store.items(), store), store)
    next(stream)
    assert (first.seen, second.seen) == (["abc"], ["abc"])


def test_an_item_set_aside_passes_by(store: Store) -> None:
    step = Look()
    items = list(store.items())
    items[1].drop("duplicate", "of a")
    assert {item.key for item in step(items, store)} == set("abcde")
    assert step.seen == ["ac", "de"] and items[1].width == 0 and (items[1].dropped, items[1].detail) == ("duplicate", "of a")


@pytest.mark.parametrize("kind", [Look, Careful])
def test_a_bad_picture_sets_aside_only_itself(store: Store, kind: type[Look]) -> None:
    data = (store.folder / "b.png").read_bytes()
    (store.folder / "b.png").write_bytes(data[:40])
    items = run(kind(), store)
    assert {key: item.dropped for key, item in items.items()} == {"a": "", "b": "truncated", "c": "", "d": "", "e": ""}
    assert "b.png" in items["b"].detail and items["c"].width == 8
    assert {item.key: item.dropped for item in store.load()}["b"] == "truncated"


def test_a_bad_picture_that_was_mended_comes_back(store: Store) -> None:
    data = (store.folder / "b.png").read_bytes()
    (store.folder / "b.png").write_bytes(b"")
    for _ in range(2):
        assert run(Look(), store)["b"].dropped == "empty_file"
    (store.folder / "b.png").write_bytes(data)
    item = run(Look(), store)["b"]
    assert (item.dropped, item.detail, item.width) == ("", "", 8) and not next(i for i in store.load() if i.key == "b").dropped


def test_a_raw_picture_set_aside_by_clean_does_not_come_back_by_another_step(store: Store, tmp_path: Path) -> None:
    work = Store(tmp_path / "work")
    raw = store.folder / "a.png"
    work.save(Item("a", raw, source=raw, dropped="truncated"))
    assert run(Look(), work)["a"].dropped == "truncated"


def test_finished_work_is_skipped_until_the_picture_or_an_option_changes(store: Store) -> None:
    assert Careful.table() == "careful"
    step = Careful()
    run(step, store)
    run(step, store)
    assert step.seen == ["abc", "de"]
    Image.new("RGB", (9, 9), "blue").save(store.folder / "c.png", compress_level=0)
    assert run(step, store)["c"].width == 9
    assert step.seen == ["abc", "de", "c"]
    other = Careful(level=2)
    run(other, store)
    assert other.seen == ["abc", "de"]


def test_work_that_was_interrupted_goes_on_after_the_last_finished_batch(store: Store) -> None:
    stream: Iterator[Item] = Careful()(store.items(), store)
    for _ in range(3):
        next(stream)
    del stream
    again = Careful()
    run(again, store)
    assert again.seen == ["de"]


def test_a_step_that_only_looks_leaves_no_trace(store: Store) -> None:
    run(Glance(), store)
    assert not store.hidden.exists()


def test_the_size_of_a_batch_may_be_an_option(store: Store) -> None:
    assert len(list(Chosen()(store.items(), store))) == 5
    assert SIZES == [2, 2, 1] and Step().batch == 16


def test_a_step_without_work_says_so(store: Store) -> None:
    with pytest.raises(UserError, match="Step has nothing to do"):
        list(Step()(store.items(), store))


def test_an_empty_folder_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no pictures in"):
        Look().main(Place(tmp_path))
    with pytest.raises(UserError, match="`prep clean` fills it"):
        Look().main(Place(tmp_path, {}, is_project=True))


@settings(deadline=None)
@given(st.lists(st.integers(), max_size=40), st.integers(1, 7))
def test_batches_hold_everything_in_order(values: list[int], size: int) -> None:
    batches = list(batched(values, size))
    assert [value for batch in batches for value in batch] == values
    assert all(len(batch) == size for batch in batches[:-1]) and all(0 < len(batch) <= size for batch in batches)
