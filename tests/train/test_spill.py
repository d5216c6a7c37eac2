"""The watch for memory that spills: what it reads, when it looks, and what a run does about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.test_ladder import PLENTY, QUICK
from tests.train.test_run import configured, logged
from train import spill
from train.ladder import RUNGS
from train.run import run
from train.spill import KEPT, LEAST, SECONDS, SWAPPED, SpillWatch, card_overflows, driver_spills, read_status, swapped_bytes

STATUS = "Name:\tpython\nVmRSS:\t  812344 kB\nVmSwap:\t{} kB\nThreads:\t2\n"
GB = 10**9
CPU = torch.device("cpu")


@pytest.mark.parametrize(("text", "size"), [(STATUS.format("       0"), 0), (STATUS.format("  300000"), 300000 * 1024), ("Name: x\n", 0), ("", 0)])
def test_the_kernels_text_is_read(text: str, size: int) -> None:
    assert swapped_bytes(text) == size


def test_this_process_has_such_a_text_where_there_is_one() -> None:
    assert Path("/proc/self/status").exists() == bool(read_status()) and swapped_bytes(read_status()) >= 0


@pytest.mark.parametrize(
    ("reserved", "free", "total", "over"),
    [
        (5 * GB, 2 * GB, 8 * GB, False),
        (8 * GB - KEPT + 1, GB, 8 * GB, True),  # more than Windows leaves to it
        (11 * GB, 0, 8 * GB, True),
        (4 * GB, LEAST - 1, 8 * GB, True),  # other programs hold the rest
        (4 * GB, LEAST, 8 * GB, False),
    ],
)
def test_a_card_that_is_full_overflows(reserved: int, free: int, total: int, over: bool) -> None:
    assert card_overflows(reserved, free, total) == over


@pytest.mark.parametrize(
    ("system", "release", "spills"),
    [("Windows", "11", True), ("Linux", "5.15.153.1-microsoft-standard-WSL2", True), ("Linux", "6.8.0-45-generic", False), ("Darwin", "24.1", False)],
)
def test_windows_drivers_spill_and_others_do_not(monkeypatch: pytest.MonkeyPatch, system: str, release: str, spills: bool) -> None:
    monkeypatch.setattr(spill.platform, "system", lambda: system)
    monkeypatch.setattr(spill.platform, "release", lambda: release)
    assert driver_spills() == spills


def test_a_card_is_asked_only_where_it_may_spill(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def mem_get_info(device: Any) -> tuple[int, int]:
        asked.append(device)
        return 0, 8 * GB

    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 9 * GB)
    for spills in (False, True):
        monkeypatch.setattr(spill, "driver_spills", lambda spills=spills: spills)
        found = SpillWatch(torch.device("cuda", 0), status=lambda: "").look()
        assert bool(asked) == spills and ("the GPU's 8 GB are full" in found) == spills


def test_a_process_is_found_each_time_that_it_swaps_more() -> None:
    now, kilobytes = [0.0], [1000]
    watch = SpillWatch(CPU, lambda: now[0], lambda: STATUS.format(kilobytes[0]))
    assert watch.look() == "", "what lay there before the run is none of its doing"
    kilobytes[0] += SWAPPED // 1024
    assert watch.look() == "", "it is not time to look"
    now[0] += SECONDS
    assert "GB of this run lie in the swap file" in watch.look()
    now[0] += SECONDS
    assert watch.look() == "", "it says so once"
    kilobytes[0] += SWAPPED // 1024
    now[0] += SECONDS
    assert watch.look()
    watch.told, now[0] = True, now[0] + SECONDS
    kilobytes[0] += SWAPPED // 1024
    assert watch.look() == ""


@pytest.fixture
def spilling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every run spill more with each step."""
    sizes = iter(range(0, 10**9, SWAPPED // 1024))
    real = SpillWatch.__init__

    def made(self: SpillWatch, device: torch.device) -> None:
        times = iter(range(0, 10**6, int(SECONDS)))
        real(self, device, lambda: float(next(times)), lambda: STATUS.format(next(sizes)))

    monkeypatch.setattr(SpillWatch, "__init__", made)
    # Each look asks the clock twice.
    monkeypatch.setattr(spill, "SECONDS", 1.0)


@pytest.mark.usefixtures("one_thread", "spilling")
def test_under_fit_a_run_goes_down_while_it_spills(tiny_base: Path, tiny_tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(tiny_base, tiny_tree, **{**QUICK, "max_train_steps": 8}, **PLENTY)
    run(config)
    said = capsys.readouterr().out
    assert said.count("lie in the swap file") == said.count("going on with: ") + 1 and f"going on with: {RUNGS[-1].words}" in said
    assert said.count("there is no lower rung; lower train_batch_size or resolution") == 1
    assert [line["step"] for line in logged(config)] == list(range(1, 9))


@pytest.mark.usefixtures("one_thread", "spilling")
def test_without_it_a_run_says_once_what_would_help(tiny_base: Path, tiny_tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = configured(tiny_base, tiny_tree, **QUICK)
    run(plain)
    said = capsys.readouterr().out
    assert said.count("lie in the swap file") == said.count("set fit = true, or lower train_batch_size or resolution") == 1
    assert [line["step"] for line in logged(plain)] == [1, 2, 3, 4]
