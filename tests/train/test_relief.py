"""A shortage while a run is judged, drawn or shown: a rung lower under `fit`, else saved and told, and never a step or a line twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import train.milestones
import train.result
from tests.train.test_ladder import PLENTY, QUICK
from tests.train.test_run import configured, logged, same
from tests.train.test_shortage import Short
from tests.train.test_validate import configured as judged_each_epoch
from tests.train.test_validate import wide_tree  # noqa: F401 (a fixture)
from train.ladder import RUNGS
from train.run import run
from train.shortage import ShortError

pytestmark = pytest.mark.usefixtures("one_thread")
DRAWN: dict[str, Any] = {**QUICK, "sample_steps": 1, "sample_every_n_steps": 2}


def lines(config: Any) -> list[dict[str, Any]]:
    """Return the log without what a clock says."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in logged(config)]


@pytest.mark.parametrize("calls", [{1}, {2}, {2, 3}, {4}])
def test_a_judgement_without_memory_is_made_on_a_lower_rung(
    tiny_base: Path,
    wide_tree: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calls: set[int],
) -> None:
    plain = judged_each_epoch(tiny_base, wide_tree, report_pictures=False, output_dir="plain")
    run(plain)
    config, made, real = judged_each_epoch(tiny_base, wide_tree, report_pictures=False, **PLENTY), [], train.milestones.Panel.judge

    def judge(panel: Any, state: Any) -> Any:
        made.append(state.step)
        if len(made) in calls:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(panel, state)

    with monkeypatch.context() as patch:
        patch.setattr(train.milestones.Panel, "judge", judge)
        run(config)
    said = capsys.readouterr().out
    assert said.count("out of memory while step") == said.count("going on with: ") == len(calls)
    assert len(made) == len(set(made)) + len(calls)
    found, wanted = lines(config), lines(plain)
    assert [line["step"] for line in found] == [line["step"] for line in wanted]
    assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in wanted], rel=1e-3)
    for one, other in zip(found, wanted, strict=True):
        assert ("validation" in one) == ("validation" in other)
        if "validation" in one:
            assert one["validation"]["loss"] == pytest.approx(other["validation"]["loss"], rel=1e-3)


def test_samples_without_memory_are_drawn_on_a_lower_rung(
    tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, config = configured(tiny_base, tiny_tree, **DRAWN, output_dir="plain"), configured(tiny_base, tiny_tree, **DRAWN, **PLENTY)
    run(plain)
    with monkeypatch.context() as patch:
        patch.setattr(train.milestones, "draw_samples", Short(train.milestones.draw_samples, 1))
        run(config)
    said = capsys.readouterr().out
    assert "out of memory while samples were drawn after step 2\n" in said and f"going on with: {RUNGS[1].words}" in said
    assert config.output.file("-samples-00000002.png").exists()
    assert [line["loss"] for line in lines(config)] == pytest.approx([line["loss"] for line in lines(plain)], rel=1e-4)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("train.milestones.Panel.judge", r"while step \d was judged; set fit = true, or lower train_batch_size"),
        ("train.milestones.draw_samples", "while samples were drawn after step 2; set fit = true, or set smaller sizes in sample_prompts"),
        ("train.run.training_step", "at step 1; set fit = true, or lower train_batch_size"),
    ],
)
def test_without_fit_the_run_is_saved_and_goes_on(
    tiny_base: Path,
    wide_tree: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    words: str,
) -> None:
    settings: dict[str, Any] = {"report_pictures": False, "sample_steps": 1, "sample_every_n_steps": 2, "save_state_every_n_steps": 0}
    whole = judged_each_epoch(tiny_base, wide_tree, **settings, output_dir="whole")
    expected = run(whole)
    config = judged_each_epoch(tiny_base, wide_tree, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(place, Short(None, 9))
        with pytest.raises(ShortError, match=words):
            run(config)
    assert config.output.file("-state.pt").exists()
    assert same(run(config).path, expected.path) and lines(config) == lines(whole)
    assert config.output.file("-samples-00000002.png").exists()


def test_the_last_step_is_judged_when_the_run_goes_on(tiny_base: Path, wide_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    settings: dict[str, Any] = {"report_pictures": False, "num_epochs": 1}
    whole = judged_each_epoch(tiny_base, wide_tree, **settings, output_dir="whole")
    expected = run(whole)
    config = judged_each_epoch(tiny_base, wide_tree, **settings)
    with monkeypatch.context() as patch:
        patch.setattr("train.milestones.Panel.judge", Short(None, 9))
        with pytest.raises(ShortError, match=f"while step {expected.steps} was judged"):
            run(config)
    assert same(run(config).path, expected.path) and lines(config) == lines(whole) and "validation" in lines(config)[-1]


@pytest.mark.parametrize("fit", [True, False])
def test_a_result_that_finds_no_memory_is_shown_later(
    tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fit: bool
) -> None:
    config = configured(tiny_base, tiny_tree, **QUICK, **(PLENTY if fit else {}))
    with monkeypatch.context() as patch:
        patch.setattr(train.result, "draw_samples", Short(train.result.draw_samples, 1))
        if fit:
            result = run(config)
        else:
            with pytest.raises(ShortError, match="while the result was shown; set fit = true, or set report_pictures = false"):
                run(config)
            result = run(config)
    assert result.path.exists() and result.steps == 4 and not config.output.file("-state.pt").exists()
    assert ("out of memory while the result was shown\n" in capsys.readouterr().out) == fit
    assert [line["step"] for line in lines(config)] == [1, 2, 3, 4]


def test_a_base_that_finds_no_place_is_held_lower(
    tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = train.memory.make_room
    monkeypatch.setattr("train.memory.make_room", Short(real, 2))
    run(configured(tiny_base, tiny_tree, **QUICK, **PLENTY))
    assert capsys.readouterr().out.count("going on with: ") == 1
    monkeypatch.setattr("train.memory.make_room", Short(real, 99))
    for settings, words in (({}, "set fit = true, or close"), (PLENTY, "close what else")):
        with pytest.raises(ShortError, match=f"while the base was moved to the device; {words}"):
            run(configured(tiny_base, tiny_tree, **QUICK, **settings, output_dir=f"none-{len(settings)}"))
