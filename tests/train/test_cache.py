"""Kept tensors: they are reused only when nothing that they depend on has changed, and what is old goes."""

import os
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.cache import DAY, Store, hash_modules, key_of, prune

plain = st.one_of(st.integers(-3, 3), st.floats(-2, 2), st.text("a|1", max_size=3), st.booleans(), st.none())


def tensors(number: float, count: int = 4) -> dict[str, torch.Tensor]:
    return {"x": torch.full((count,), float(number))}


@given(st.lists(plain, max_size=4), st.lists(plain, max_size=4))
def test_other_facts_have_another_name(first: list[object], second: list[object]) -> None:
    assert (key_of(first) == key_of(second)) == (repr(first) == repr(second))


@pytest.mark.parametrize("on_disk", [True, False])
def test_is_made_once(tmp_path: Path, on_disk: bool) -> None:
    store = Store(tmp_path if on_disk else None)
    store.prepare(("a", 1), lambda: tensors(1))
    assert torch.equal(store.get(("a", 1), lambda: tensors(9))["x"], tensors(1)["x"])
    assert torch.equal(store.get(("a", 2), lambda: tensors(2))["x"], tensors(2)["x"])
    assert store.made == 2 and len(store.used) == 2
    later = Store(tmp_path if on_disk else None)
    later.prepare(("a", 1), lambda: tensors(3))
    assert later.made == (0 if on_disk else 1)


@pytest.mark.parametrize("keep", [0, 7, 60])
def test_broken_file_is_made_anew(tmp_path: Path, keep: int) -> None:
    Store(tmp_path).prepare(("a",), lambda: tensors(1))
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:keep])
    store = Store(tmp_path)
    assert torch.equal(store.get(("a",), lambda: tensors(1))["x"], tensors(1)["x"]) and store.made == 1
    assert torch.equal(Store(tmp_path).get(("a",), lambda: tensors(2))["x"], tensors(1)["x"])


def test_file_that_another_run_took_away_is_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path, resident=0)
    store.prepare(("a",), lambda: tensors(1))
    store.path(("a",)).unlink()
    assert torch.equal(store.get(("a",), lambda: tensors(1))["x"], tensors(1)["x"]) and store.made == 2


def test_no_half_written_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prep.options.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).prepare(("a",), lambda: tensors(1))
    assert not list(tmp_path.rglob("*.*"))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(0, 600))
def test_memory_never_holds_more_than_it_may(tmp_path_factory: pytest.TempPathFactory, counts: list[int], resident: int) -> None:
    store = Store(tmp_path_factory.getbasetemp() / "held", resident=resident)
    for _ in range(2):
        for number, count in enumerate(counts):
            found = store.get((number, count), lambda n=number, c=count: tensors(n, c))["x"]
            assert torch.equal(found, tensors(number, count)["x"])
    assert sum(tensor.nbytes for group in store.held.values() for tensor in group.values()) <= resident


def filled(folder: Path, ages: list[int]) -> list[Path]:
    store, files = Store(folder), []
    for number, age in enumerate(ages):
        store.prepare((number,), lambda n=number: tensors(n, 250))
        files.append(store.path((number,)))
        os.utime(files[-1], (time.time() - age * DAY,) * 2)
    return files


def test_what_was_not_used_for_long_goes_unless_this_run_needs_it(tmp_path: Path) -> None:
    files = filled(tmp_path, [0, 50, 70, 90])
    gone, freed = prune([tmp_path], {files[3].stem}, 0, 60)
    assert [file.exists() for file in files] == [True, True, False, True]
    assert (gone, freed) == (1, files[0].stat().st_size)
    assert prune([tmp_path, tmp_path / "nowhere"], set(), 0, 0) == (0, 0)


def test_what_was_used_longest_ago_goes_until_the_rest_fits(tmp_path: Path) -> None:
    files = filled(tmp_path, [3, 1, 4, 2])
    size = files[0].stat().st_size
    assert prune([tmp_path], set(), 2.5 * size / 1e9, 0) == (2, 2 * size)
    assert [file.exists() for file in files] == [False, True, False, True]
    assert prune([tmp_path], {file.stem for file in files}, size / 1e9, 1) == (0, 0)


def test_a_use_makes_a_file_young_again(tmp_path: Path) -> None:
    (file,) = filled(tmp_path, [90])
    Store(tmp_path).prepare((0,), lambda: tensors(9))
    assert prune([tmp_path], set(), 0, 60) == (0, 0) and file.exists()


def test_every_weight_counts() -> None:
    module = torch.nn.Linear(40, 40)
    before = hash_modules([module])
    assert hash_modules([module]) == before
    with torch.no_grad():
        module.weight[17, 23] += 1e-3
    assert hash_modules([module]) != before
    assert hash_modules([module.half()]) != hash_modules([module.float()])
