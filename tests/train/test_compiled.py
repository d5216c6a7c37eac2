"""Whether blocks are compiled: as set, or by a measurement that is made once; nobody's GPU is asked here, the clock is a table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import train.compiled
from prep.options import UserError
from tests.train.test_diagnose import ready
from tests.train.test_run import configured
from train.compiled import COMPILED, GRAPHS, PLAIN, Shelf, Timing, best, cause_of, compiled, facts_of, timed
from train.config import FREE, TrainConfig
from train.run import run
from train.runtime import StoppedError

FASTER = {PLAIN: Timing(0.0, 1.0), COMPILED: Timing(40.0, 0.8), GRAPHS: Timing(60.0, 0.7)}


class FakeRegions:
    """Blocks that note in which mode they are to be compiled."""

    twins, draws, left = (1, 2, 3), False, 0

    def __init__(self) -> None:
        self.modes: list[str] = []

    def use(self, mode: str, graphs: bool = False) -> None:
        self.modes.append(mode)
        assert graphs == ("cudagraphs" not in mode and mode != "default")

    def remove(self) -> None:
        self.modes.append("")


class Card:
    """A run on a CUDA card that is not there; `asked` lists the ways that were timed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tree: Path, steps: int = 1000, **output: Any) -> None:
        config = TrainConfig.load({"train": {"tree": str(tree), **output}}, {})
        processes = SimpleNamespace(first=True, greatest=lambda number: [number])
        runtime = SimpleNamespace(device=torch.device("cuda"), processes=processes)
        self.job: Any = SimpleNamespace(config=config, runtime=runtime, steps=steps)
        self.state: Any = SimpleNamespace(step=0, regions=None)
        self.regions, self.timings, self.asked = FakeRegions(), dict[str, Any](FASTER), list[str]()
        monkeypatch.setattr(train.compiled, "timed", self.timed)
        monkeypatch.setattr(train.compiled, "regions_of", lambda job, state: self.regions)
        monkeypatch.setattr(train.compiled, "facts_of", lambda job: ["an imagined card"])
        monkeypatch.setattr(train.compiled, "one_pass", lambda *_: self.asked.append("pass"))

    def timed(self, way: str, *_: Any) -> Timing:
        self.asked.append(way)
        if isinstance(self.timings[way], BaseException):
            raise self.timings[way]
        found: Timing = self.timings[way]
        return found

    def choose(self) -> str:
        with compiled(self.job, self.state) as choice:
            assert self.state.regions is self.regions and self.regions.modes[-1] == train.compiled.MODES.get(choice.way, "")
        assert self.state.regions is None and self.regions.modes[-1] == ""
        return choice.way


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Card:
    return Card(monkeypatch, tmp_path / "tree")


def test_the_way_that_is_first_done_wins() -> None:
    assert [best(FASTER, batches) for batches in (100, 199, 201, 10_000)] == [PLAIN, PLAIN, GRAPHS, GRAPHS]
    assert best({PLAIN: Timing(0.0, 1.0), COMPILED: Timing(10.0, 0.9), GRAPHS: Timing(100.0, 0.89)}, 200) == COMPILED


def test_a_card_is_measured_once(card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    assert card.choose() == GRAPHS and card.asked == [PLAIN, COMPILED, GRAPHS]
    assert "blocks are computed compiled, by CUDA graphs (seconds a batch: plain 1, compiled 0.8, CUDA graphs 0.7)" in capsys.readouterr().out
    assert card.choose() == GRAPHS and len(card.asked) == 3
    card.state.step = 900
    assert card.choose() == PLAIN, "what is left would not win back what building takes"


def test_what_is_built_already_costs_nothing_more(card: Card) -> None:
    card.job.steps = 155  # too few to win 40 seconds back, had they not passed in measuring
    assert card.choose() == GRAPHS


def test_a_short_run_is_not_measured(card: Card) -> None:
    card.job.steps = 100
    assert card.choose() == PLAIN and card.asked == [PLAIN]
    card.job.steps = 1000
    assert card.choose() == GRAPHS, "and nothing was kept of it"


def test_batches_that_are_gathered_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    card = Card(monkeypatch, tmp_path / "tree", steps=100, gradient_accumulation_steps=4)
    assert card.choose() == GRAPHS


def test_a_way_that_fails_is_said_and_left_out(card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    card.timings[GRAPHS] = RuntimeError("graphs cannot be captured\nhere")
    assert card.choose() == COMPILED
    assert "CUDA graphs cannot be had here: graphs cannot be captured\n" in capsys.readouterr().out
    card.timings[GRAPHS] = FASTER[GRAPHS]
    assert card.choose() == GRAPHS, "it is tried again"


def test_memory_that_does_not_hold_a_step_is_left_to_the_step(card: Card) -> None:
    card.timings[PLAIN] = torch.OutOfMemoryError("full")
    assert card.choose() == PLAIN


def test_dropout_goes_without_cuda_graphs(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeRegions, "draws", True)
    assert card.choose() == COMPILED and card.asked == [PLAIN, COMPILED]


def test_where_nothing_can_be_compiled_nothing_is_measured(card: Card, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(FakeRegions, "twins", ())
    assert card.choose() == PLAIN and not card.asked and not capsys.readouterr().out


def test_processes_compute_as_the_first_one_chose(card: Card) -> None:
    card.job.runtime.processes = SimpleNamespace(first=False, greatest=lambda number: [train.compiled.WAYS.index(COMPILED)])
    assert card.choose() == COMPILED and not card.asked


def test_a_stop_while_compiling_is_no_failure_of_it(card: Card) -> None:
    failure = RuntimeError("the compiler broke off")
    failure.__cause__ = StoppedError(2, "stopped")
    card.timings[COMPILED] = failure
    with pytest.raises(StoppedError):
        card.choose()
    assert not card.state.regions and card.regions.modes[-1] == ""


def test_faults_are_told_by_how_they_began() -> None:
    try:
        try:
            raise ValueError("no triton: install it.\nmore")
        except ValueError as error:
            raise RuntimeError("backend failed") from error
    except RuntimeError as error:
        assert cause_of(error) == "no triton: install it"
    assert cause_of(KeyError()) == "KeyError"


@pytest.mark.parametrize(("draws", "mode"), [(False, "max-autotune"), (True, "max-autotune-no-cudagraphs")])
def test_max_measures_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, draws: bool, mode: str) -> None:
    card = Card(monkeypatch, tmp_path / "tree", compile="max")
    monkeypatch.setattr(FakeRegions, "draws", draws)
    with compiled(card.job, card.state) as choice:
        assert card.regions.modes == [mode] and card.asked == ["pass"] and choice.way == (COMPILED if draws else GRAPHS)


def test_max_names_what_a_card_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    card = Card(monkeypatch, tmp_path / "tree", compile="max")

    def fail(*_: Any) -> None:
        raise RuntimeError("Cannot find a working triton installation")

    monkeypatch.setattr(train.compiled, "one_pass", fail)
    with pytest.raises(UserError, match=r"\(Cannot find a working triton installation\); install triton \(triton-windows on Windows\), or"):
        card.choose()


@pytest.mark.parametrize("text", ["", "[]", '{"x": 3}', '{"x": {"plain": [1]}}', "{"])
def test_a_broken_file_is_measured_again(tmp_path: Path, text: str) -> None:
    path = tmp_path / "compiled.json"
    path.write_text(text, encoding="utf-8")
    shelf = Shelf(path)
    assert shelf.timings("x") is None
    shelf.keep("y", FASTER)
    assert shelf.timings("y") == FASTER and len(json.loads(path.read_text(encoding="utf-8"))) >= 1


def test_without_a_cache_on_disk_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    card = Card(monkeypatch, tmp_path / "tree", cache_latents_to_disk=False)
    assert card.choose() == card.choose() == GRAPHS and len(card.asked) == 6
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("setting", ["off", "auto"])
def test_a_processor_loads_nothing_of_it(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setitem(sys.modules, "train.regions", None)  # which makes its import an error
    run(configured(tiny_base, tiny_tree, max_train_steps=1, report_pictures=False, compile=setting))
    assert "compile" in FREE, "a stopped run may go on with another setting"


@pytest.mark.usefixtures("one_thread")
def test_a_way_is_timed_by_passes_that_leave_nothing(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, state = ready(tiny_base, tiny_tree)
    before, passes, real = state.network.state(), list[Any](), train.compiled.one_pass

    def one_pass(*args: Any) -> None:
        passes.append(args)
        real(*args)

    monkeypatch.setattr(train.compiled, "one_pass", one_pass)
    regions = SimpleNamespace(use=lambda *_: None, remove=lambda: None, begin_step=lambda: None)
    found = timed(GRAPHS, regions, job, state)  # type: ignore[arg-type]
    assert found.build > 0 and found.seconds > 0 and len(passes) == train.compiled.FIRST[GRAPHS] + train.compiled.TIMED
    assert all(torch.equal(tensor, before[key]) for key, tensor in state.network.state().items())
    assert all(parameter.grad is None for parameter in state.parameters) and state.step == 0
    other, _ = ready(tiny_base, tiny_tree, network_dim=3)
    assert facts_of(job) == facts_of(ready(tiny_base, tiny_tree)[0]) != facts_of(other)
