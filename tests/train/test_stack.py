"""Stacked runs: each learns what it learns alone, whatever its neighbours do, and one that breaks leaves the others whole."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.test_diagnose import ready
from tests.train.test_sweep import made
from tests.train.test_validate import wide_tree  # noqa: F401 (a fixture)
from train import stack
from train.export import read_lora
from train.shortage import ShortError
from train.stack import Run, stacked
from train.sweep import sweep

pytestmark = pytest.mark.usefixtures("one_thread")


def close(one: Path, other: Path) -> bool:
    """Compare two files but for the rounding of a step, which Adam may turn into a share of the rate where a gradient is next to nothing."""
    a, b = read_lora(one)[0], read_lora(other)[0]
    assert a.keys() == b.keys()
    apart = sum(float((a[key] - b[key]).square().sum()) for key in a)
    return apart <= 1e-6 * sum(float(a[key].square().sum()) for key in a)


AXES = ["learning_rate=1e-3,3e-3"]


@pytest.mark.parametrize("settings", [{}, {"train_text_encoder": False, "noise_offset": 0.1, "network_dropout": 0.3}], ids=["plain", "dropout"])
def test_settings_learn_together_what_they_learn_alone(tiny_base: Path, wide_tree: Path, settings: dict[str, Any]) -> None:  # noqa: F811
    alone = sweep(made(tiny_base, wide_tree, *AXES, max_train_steps=4, output_dir="alone", **settings), "grid", 1)
    together = sweep(made(tiny_base, wide_tree, *AXES, max_train_steps=4, **settings), "grid", 4)
    first, second = ({entry.setting.number: entry for entry in entries} for entries in (alone, together))
    for number, entry in first.items():
        assert second[number].steps == entry.steps and second[number].score == pytest.approx(entry.score, rel=1e-4)
        assert close(second[number].path, entry.path)
    assert not close(first[1].path, first[2].path)


def test_a_setting_that_breaks_is_last_and_the_others_go_on(tiny_base: Path, wide_tree: Path) -> None:  # noqa: F811
    for at_once in (1, 3):
        settings = made(tiny_base, wide_tree, "learning_rate=1e-3,1e30,2e-3", max_train_steps=4, output_dir=f"together{at_once}")
        entries = sweep(settings, "grid", at_once)
        assert [bool(entry.broken) for entry in entries] == [False, False, True]
        assert entries[-1].setting.values["learning_rate"] == 1e30 and entries[-1].score == math.inf
        assert entries[-1].record()["score"] is None and "not a number" in entries[-1].record()["broken"]
        assert all(entry.steps == entry.whole for entry in entries[:2])


def test_what_does_not_fit_the_memory_goes_on_in_halves(tiny_base: Path, wide_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    seen: list[int] = []
    whole = stack.take_steps

    def short_of_memory(group: Any, runs: Any) -> Any:
        seen.append(len(runs))
        if len(runs) > 2:
            raise torch.OutOfMemoryError
        return whole(group, runs)

    monkeypatch.setattr(stack, "take_steps", short_of_memory)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    entries = sweep(made(tiny_base, wide_tree, "learning_rate=1e-3,2e-3,3e-3,4e-3", max_train_steps=4), "grid", 4)
    assert seen[0] == 4 and set(seen[1:]) == {2}
    assert all(entry.steps == entry.whole for entry in entries)


@pytest.mark.parametrize("place", ["_update", "judged"])
def test_a_shortage_after_the_pass_repeats_no_step(
    tiny_base: Path,
    wide_tree: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    axes = "learning_rate=1e-3,2e-3"
    whole = sweep(made(tiny_base, wide_tree, axes, max_train_steps=4, output_dir="whole"), "grid", 2)
    real, calls = getattr(stack, place), []

    def short_of_memory(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:  # of the second setting in the second step
            raise torch.OutOfMemoryError
        return real(*args)

    monkeypatch.setattr(stack, place, short_of_memory)
    settings = made(tiny_base, wide_tree, axes, max_train_steps=4)
    entries = sweep(settings, "grid", 2)
    for one, other in zip(entries, whole, strict=True):
        assert one.setting.number == other.setting.number and close(one.path, other.path)
    for setting in settings:
        log = setting.config.output.file(".jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["step"] for line in log] == [1, 2, 3, 4]


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_single_setting_without_memory_is_told(
    tiny_base: Path,
    wide_tree: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
) -> None:
    def short_of_memory(*_: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("train.families.sd.Model.denoise", short_of_memory)
    with pytest.raises(ShortError, match="lower train_batch_size or resolution"):
        sweep(made(tiny_base, wide_tree, "learning_rate=1e-3,2e-3", max_train_steps=2), "grid", at_once)


def test_a_picture_without_memory_ends_no_sweep(
    tiny_base: Path,
    wide_tree: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def short_of_memory(*_: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("train.families.sd.Model.decode_latents", short_of_memory)
    entries = sweep(made(tiny_base, wide_tree, "learning_rate=1e-3,2e-3", max_train_steps=2, sample_steps=1), "grid", 1)
    assert "no picture of the settings, since it was out of memory while a picture of" in capsys.readouterr().out
    assert len(entries) == 2 and (entries[0].path.parent / "sweep.json").exists()


def test_a_share_without_an_adapter_is_what_the_base_gives(tiny_base: Path, tiny_tree: Path) -> None:
    (job, state), (_, other) = ready(tiny_base, tiny_tree), ready(tiny_base, tiny_tree, train_text_encoder=False)
    model, ids = job.model, job.model.tokenize(["tok, a cat", "tok, a cat"])
    plain = model.conditioning(ids[:1]).states
    for run in (state, other):
        run.network.remove()
        with torch.no_grad():
            for parameter in run.network.parameters():
                parameter.add_(0.1)
    assert torch.allclose(model.conditioning(ids[:1]).states, state_of(model, ids, [other.network, other.network])[0], atol=1e-6)
    changed, same = state_of(model, ids, [state.network, other.network])
    assert torch.allclose(same, plain[0], atol=1e-5) and not torch.allclose(changed, plain[0], atol=1e-2)


def state_of(model: Any, ids: torch.Tensor, networks: list[Any]) -> Any:
    with torch.no_grad(), stacked(networks):
        return model.conditioning(ids).states


def test_runs_that_end_by_themselves_are_not_stacked(tiny_base: Path, tiny_tree: Path) -> None:
    runs = [Run(*ready(tiny_base, tiny_tree, **settings)) for settings in ({}, {"network_dim": 2}, {"patience": 2}, {"train_batch_size": 1})]
    plain, faster, patient, smaller = (run.alike for run in runs)
    assert plain == faster and len({plain, patient, smaller}) == 3


def test_a_signal_saves_all_of_them(tiny_base: Path, wide_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    from train.runtime import StoppedError

    axes = "learning_rate=1e-3,2e-3"
    whole = sweep(made(tiny_base, wide_tree, axes, max_train_steps=4, output_dir="whole"), "grid", 2)
    real, steps = stack.take_steps, 0

    def interrupted(group: Any, runs: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 3:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)
        return real(group, runs)

    with monkeypatch.context() as patch:
        patch.setattr(stack, "take_steps", interrupted)
        with pytest.raises(StoppedError):
            sweep(made(tiny_base, wide_tree, axes, max_train_steps=4), "grid", 2)
    again = sweep(made(tiny_base, wide_tree, axes, max_train_steps=4), "grid", 2)
    assert [entry.setting.number for entry in again] == [entry.setting.number for entry in whole]
    assert all(close(one.path, other.path) for one, other in zip(again, whole, strict=True))
