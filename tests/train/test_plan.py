"""The plan: what an epoch holds, in which batches, and which regularization pictures are used how often."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.loaders import registered as peers_count
from prep.options import UserError
from prep.tree import Folder
from train.buckets import Fit
from train.config import TrainConfig
from train.pictures import Picture
from train.plan import SamplePlan, apportion, describe_reg, registered, take_turns

counts = st.integers(0, 12)
SMALL = (64, 64)


def configured(tree: Path, **train: Any) -> TrainConfig:
    return TrainConfig.load({"train": {"base": "pocket", "tree": str(tree), "train_batch_size": 2, **train}}, {})


def picture(number: int, size: tuple[int, int], is_reg: bool, repeats: int = 1) -> Picture:
    folder = Folder(Path("reg" if is_reg else "img"), repeats, "x", is_reg, ())
    return Picture(folder.path / str(number), str(number), Fit(size, size, 0.0), "x", folder)


@given(counts.filter(bool), counts, counts, counts, st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_plan_of_any_tree(square: int, wide: int, reg_square: int, reg_wide: int, batch_size: int, repeats: int, seed: int) -> None:
    small, large = (64, 64), (96, 48)
    kinds = [(small, False)] * square + [(large, False)] * wide + [(small, True)] * reg_square + [(large, True)] * reg_wide
    pictures = [picture(i, size, is_reg, 1 if is_reg else repeats) for i, (size, is_reg) in enumerate(kinds)]
    config = configured(Path("tree"), train_batch_size=batch_size, seed=seed)
    plan = SamplePlan.make(pictures, config)
    wanted = repeats * (square + wide)
    for epoch in range(3):
        batches = plan.batches(epoch)
        assert len(batches) == plan.batches_per_epoch
        assert all(len({pictures[i].bucket for i in batch}) == 1 and len(batch) <= batch_size for batch in batches)
        seen = Counter(i for batch in batches for i in batch)
        assert all(seen[i] == repeats for i, (_, is_reg) in enumerate(kinds) if not is_reg)
        reg = {i: seen[i] for i, (_, is_reg) in enumerate(kinds) if is_reg}
        assert sum(reg.values()) == (wanted if reg else 0)
        assert set(seen) <= set(plan.used(epoch + 1))


def test_regularization_pictures_are_used_evenly() -> None:
    pictures = [picture(i, (64, 64), False, 2) for i in range(5)] + [picture(i, (64, 64), True) for i in range(30)]
    plan = SamplePlan.make(pictures, configured(Path("tree"), train_batch_size=4))
    seen = Counter(i for epoch in range(6) for batch in plan.batches(epoch) for i in batch if i >= 5)
    assert len(seen) == 30 and set(seen.values()) == {2}
    assert len(plan.used(1)) == 5 + 10


def test_kinds_take_turns_in_every_batch() -> None:
    pictures = [picture(i, (64, 64), False) for i in range(8)] + [picture(i, (64, 64), True) for i in range(8)]
    for batch in SamplePlan.make(pictures, configured(Path("tree"), train_batch_size=4)).batches(0):
        assert [pictures[i].folder.is_reg for i in batch] == [False, True, False, True]
    singles = SamplePlan.make(pictures, configured(Path("tree"), train_batch_size=1)).batches(0)
    assert [pictures[i].folder.is_reg for (i,) in singles] == [False, True] * 8


@given(st.lists(st.integers(), max_size=30), st.lists(st.integers(), max_size=30))
def test_taking_turns_loses_nothing_and_keeps_both_orders(first: list[int], second: list[int]) -> None:
    evens, odds = [2 * n for n in first], [2 * n + 1 for n in second]
    merged = take_turns(evens, odds)
    assert [n for n in merged if n % 2 == 0] == evens and [n for n in merged if n % 2] == odds


@given(st.integers(0, 500), st.lists(st.integers(1, 90), min_size=1, max_size=6))
def test_shares_add_up_and_are_fair(total: int, sizes: list[int]) -> None:
    shares = apportion(total, {(64 * i, 64): size for i, size in enumerate(sizes)})
    assert sum(shares.values()) == total
    assert all(abs(share - total * size / sum(sizes)) < 1 for share, size in zip(shares.values(), sizes, strict=True))


def planned(train: int, reg: int, reg_use: str = "paired", **settings: Any) -> SamplePlan:
    pictures = [picture(i, SMALL, False) for i in range(train)] + [picture(train + i, SMALL, True) for i in range(reg)]
    return SamplePlan.make(pictures, configured(Path("tree"), reg_use=reg_use, **settings))


# sd-scripts' count: 200 training samples against 300, 60 and no regularization pictures (trainer.md, 2.4).
@pytest.mark.parametrize(("files", "used", "samples"), [(300, 200, 200), (60, 60, 200), (0, 0, 0)])
def test_peers_count_rule(files: int, used: int, samples: int) -> None:
    times = registered([1] * files, 200)
    assert (sum(map(bool, times)), sum(times)) == (used, samples)
    assert times == sorted(times, reverse=True), "the first in order, never the tail"


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), max_size=4), st.integers(1, 60))
def test_peers_count_equals_what_the_check_says(folders: Sequence[tuple[int, int]], wanted: int) -> None:
    reg = [
        Folder(Path(f"reg/{n}"), repeats, "x", True, tuple(Path(f"reg/{n}/{i}") for i in range(files))) for n, (repeats, files) in enumerate(folders)
    ]
    shown = peers_count(reg, wanted)
    assert [shown[path] for folder in reg for path in folder.pictures] == registered([f.repeats for f in reg for _ in f.pictures], wanted)


def test_use_as_in_sd_scripts_is_the_same_in_every_epoch() -> None:
    plan = planned(4, 10, "sd-scripts")
    for epoch in range(3):
        seen = Counter(index for batch in plan.batches(epoch) for index in batch)
        assert seen == dict.fromkeys(range(8), 1)
    assert plan.used(9) == list(range(8))


def test_how_many_regularization_pictures_are_used_is_said_aloud() -> None:
    def said(train: int, reg: int, reg_use: str = "paired", epochs: int = 2) -> str:
        return describe_reg(planned(train, reg, reg_use), reg, epochs, reg_use)

    assert said(40, 200, "sd-scripts").startswith("40 of your 200 regularization pictures will be used, the first in order")
    assert said(40, 200).startswith("80 of your 200 regularization pictures will be used, 40 in an epoch")
    assert said(40, 200, epochs=5) == "40 of your 200 regularization pictures are used in an epoch, others in the next, and all of them in 5"
    assert said(40, 20) == "all 20 regularization pictures are used in an epoch, 2 times each on average"
    assert said(40, 0) == ""


def test_a_tree_without_training_pictures_is_a_users_mistake() -> None:
    with pytest.raises(UserError, match="no training pictures"):
        planned(0, 3)
