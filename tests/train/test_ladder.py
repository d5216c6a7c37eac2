"""`fit`: the first rung that fits, and a lower one where memory was short after all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import train.run
from prep.options import UserError
from tests.train.test_run import configured, logged
from train.config import TrainConfig
from train.ladder import RUNGS, Ladder, foreseen, free_bytes, parse_bytes
from train.predict import Need, Shape
from train.processes import Processes
from train.run import open_base, prepare, run
from train.runtime import Runtime
from train.shortage import ShortError

# The tiny base has few blocks: buffers for two of them are as large as the two or three blocks of the first swapping rung.
SAVING = [rung for rung in RUNGS if rung.swapped in (0.0, 1.0)]
QUICK: dict[str, Any] = {"max_train_steps": 4, "report_pictures": False, "train_text_encoder": False}
PLENTY = {"fit": True, "memory_limit": "64GB"}


def ladder(*needs: int, limit: float = 100.0) -> Ladder:
    rungs = [(rung, TrainConfig(), Need(need, 0, 0, 0)) for rung, need in zip(RUNGS, needs, strict=False)]
    return Ladder(rungs, limit, "cpu")


@pytest.mark.parametrize(("needs", "chosen"), [((90, 50, 20), 0), ((101, 100, 20), 1), ((300, 200, 20), 2), ((300, 100, 200, 20), 1)])
def test_the_first_that_fits_is_taken(needs: tuple[int, ...], chosen: int) -> None:
    found = ladder(*needs)
    found.choose()
    assert found.at == chosen and f"> {needs[chosen] / 1e9:6.3g} GB  {RUNGS[chosen].words}" in found.table()
    assert found.table().count("\n") == len(needs) and found.table().count(" > ") == 1


def test_none_that_fits_is_said() -> None:
    with pytest.raises(UserError, match=r"needs 1.5e-07 GB at least, and 1e-07 GB are free; lower train_batch_size"):
        ladder(200, 150, 180).choose()


def test_it_goes_down_to_what_needs_less() -> None:
    found = ladder(90, 120, 50)
    assert found.lower() and found.at == 2 and not found.lower()


def test_a_base_that_is_rounded_stays_so() -> None:
    found = ladder(90, 80, 70, 60, 50, 40)
    for number, (rung, config, _) in enumerate(found.rungs):
        found.rungs[number] = (rung, rung.applied(config, 9), found.rungs[number][2])
    assert found.lower("int8") and found.rungs[found.at][0].precision == "int8"
    assert found.lower("int8") and found.rungs[found.at][0].precision == "nf4" and not found.lower("nf4")


def test_a_rung_adds_to_the_settings() -> None:
    config = TrainConfig.load({"train": {"blocks_to_swap": 5, "base_precision": "fp8"}}, {})
    assert RUNGS[0].applied(config, 21) == config
    found = RUNGS[-1].applied(config, 21)
    assert found.output.gradient_checkpointing and found.memory.blocks_to_swap == 21 and found.memory.base_precision == "fp8"
    assert RUNGS[2].applied(config, 6).memory.blocks_to_swap == 5
    assert [rung.applied(TrainConfig(), 21).memory.base_precision for rung in RUNGS[-2:]] == ["int8", "nf4"]


@pytest.mark.parametrize(("text", "size"), [("6GB", 6e9), (" 7.5 gib", 7.5 * 2**30), ("800MB", 8e8)])
def test_a_limit_is_read(text: str, size: float) -> None:
    assert parse_bytes(text) == size
    assert free_bytes(TrainConfig.load({"train": {"fit": True, "memory_limit": text}}, {}), Runtime.choose("no")) == size


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"fit": True, "memory_limit": "six"}, "write it as"),
        ({"fit": True, "memory_limit": "0GB"}, "write it as"),
        ({"memory_limit": "6GB"}, "set fit = true"),
    ],
)
def test_a_limit_that_means_nothing_is_refused(table: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        TrainConfig.load({"train": table}, {})


def test_what_the_processor_has_free_is_known() -> None:
    assert free_bytes(TrainConfig(), Runtime.choose("no")) > 1e8


def _predicted(base: Path, tree: Path, **settings: Any) -> Ladder:
    config = configured(base, tree, **QUICK, **PLENTY, **settings)
    runtime, model = open_base(config, Processes())
    found = prepare(config, runtime, model, {}).ladder
    assert found
    return found


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("number", range(len(SAVING)))
def test_each_rung_trains_alike(tiny_base: Path, tiny_tree: Path, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    plain = configured(tiny_base, tiny_tree, **QUICK, output_dir="plain")
    run(plain)
    found = _predicted(tiny_base, tiny_tree)
    totals = [found.total(i) for i in range(len(found.rungs))]
    assert [rung for rung, _, _ in found.rungs] == SAVING and totals == sorted(totals, reverse=True)
    capsys.readouterr()
    config = configured(tiny_base, tiny_tree, **QUICK, fit=True, memory_limit=f"{totals[number] / 1e6 + 1e-4:.6f}MB")
    run(config)
    assert re.search(rf"> +\S+ GB  {SAVING[number].words} \(", capsys.readouterr().out)
    tolerance = {"": 1e-4, "int8": 0.05, "nf4": 0.1}[SAVING[number].precision]
    assert [line["loss"] for line in logged(config)] == pytest.approx([line["loss"] for line in logged(plain)], rel=tolerance)


@pytest.mark.parametrize("settings", [{"network_algo": "dora"}, {"full": True, "network_dim": 16, "network_alpha": 8.0}], ids=["dora", "full"])
def test_what_reads_the_base_keeps_it_at_hand(tiny_base: Path, tiny_tree: Path, settings: dict[str, Any]) -> None:
    assert [rung for rung, _, _ in _predicted(tiny_base, tiny_tree, **settings).rungs] == [rung for rung in RUNGS if not rung.moves_base]


def test_what_cannot_be_imagined_on_a_device_is_imagined_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def predict(config: Any, runtime: Runtime, model: Any, shape: Shape) -> Need:
        asked.append(runtime.device.type)
        if runtime.device.type == "cuda":
            raise RuntimeError("not linked")
        return Need(1, 1, 1, 1)

    monkeypatch.setattr("train.predict.predict", predict)
    runtime, model = Runtime(torch.device("cuda"), "bf16", torch.bfloat16, None, ""), Any
    assert foreseen(TrainConfig(), runtime, model, Shape(1, (64, 64), 1, True)) == Need(1, 1, 1, 1) and asked == ["cuda", "cpu"]


def short_at(monkeypatch: pytest.MonkeyPatch, method: str, calls: set[int]) -> None:
    """Let the run find no memory in these calls, counted from 1, of a method of its runtime."""
    real, made = getattr(Runtime, method), []

    def call(self: Runtime, *args: Any) -> Any:
        made.append(1)
        if len(made) in calls:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, *args)

    monkeypatch.setattr(Runtime, method, call)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("method", "calls", "rung"), [("backward", {2}, 1), ("backward", {2, 4}, 3), ("update", {4}, 1), ("update", {1}, 1)])
def test_a_shortage_costs_a_rung_and_no_step(
    tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], method: str, calls: set[int], rung: int
) -> None:
    plain = configured(tiny_base, tiny_tree, **QUICK, output_dir="plain")
    run(plain)
    config = configured(tiny_base, tiny_tree, **QUICK, **PLENTY, save_state_every_n_steps=2)
    with monkeypatch.context() as patch:
        short_at(patch, method, calls)
        result = run(config)
    said = capsys.readouterr().out
    assert said.count("out of memory at step") == len(calls) and f"going on with: {RUNGS[rung].words}, 0." in said
    assert [line["step"] for line in logged(config)] == [1, 2, 3, 4] and result.steps == 4
    assert [line["loss"] for line in logged(config)] == pytest.approx([line["loss"] for line in logged(plain)], rel=1e-4)


def test_the_last_rung_ends_the_run(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short_at(monkeypatch, "backward", set(range(1, 99)))
    with pytest.raises(ShortError, match="out of memory at step 1; lower train_batch_size or resolution"):
        run(configured(tiny_base, tiny_tree, **QUICK, **PLENTY))


def test_without_it_the_run_says_that_it_is_there(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short_at(monkeypatch, "backward", {1})
    with pytest.raises(ShortError, match="set fit = true, or lower"):
        run(configured(tiny_base, tiny_tree, **QUICK))


@pytest.mark.usefixtures("one_thread")
def test_a_stopped_run_goes_on_on_another_rung(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(job: Any, state: Any) -> None:
        if state.step == 2:
            raise MemoryError("the power is gone")

    real = train.run.take_step
    config = configured(tiny_base, tiny_tree, **QUICK, **PLENTY, save_state_every_n_steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(train.run, "take_step", lambda group, job, state: (stop(job, state), real(group, job, state))[1])
        with pytest.raises(MemoryError):
            run(config)
    least = min(found.total(number) for found in [_predicted(tiny_base, tiny_tree)] for number in range(len(found.rungs)))
    run(configured(tiny_base, tiny_tree, **QUICK, fit=True, memory_limit=f"{least / 1e6 + 1e-4:.6f}MB"))
    assert [line["step"] for line in logged(config)] == [1, 2, 3, 4]
