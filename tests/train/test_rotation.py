"""Few pictures: every one is held out once, the last run trains all of them, as long as was best, and a stopped run goes on."""

import json
from pathlib import Path
from typing import Any

import pytest

import train.milestones
from prep.options import UserError
from tests.train.test_run import configured, fail_at, logged, power_cut, same
from train.config import TrainConfig
from train.rotation import Rotation, averaged
from train.run import run
from train.validate import Judgement

pytestmark = pytest.mark.usefixtures("one_thread")
FOLDS = {"validation_folds": 3, "num_epochs": 4, "validate_every_n_epochs": 1}


def scored(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> list[list[str]]:
    """Let the validations of each part find these losses; returns the names of the pictures that each part held out."""
    held: list[list[str]] = []

    def judge(panel: Any, state: Any) -> Judgement:
        if not state.judgements:
            held.append([picture.path.name for picture in panel.concept])
        return Judgement(state.step, state.epoch, losses[len(state.judgements)], 0.1, 0.0, 0.0, 0.0)

    monkeypatch.setattr(train.milestones.Panel, "judge", judge)
    return held


def test_all_pictures_are_trained_as_long_as_was_best(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = scored(monkeypatch, [0.9, 0.7, 0.8, 0.9])
    config = configured(tiny_base, tiny_tree, **FOLDS)
    result = run(config)
    assert sorted(name for part in held for name in part) == sorted(path.name for path in (tiny_tree / "img").rglob("*.png"))
    plain = configured(tiny_base, tiny_tree, num_epochs=4, output_name="plain", save_every_n_epochs=1)
    steps = run(plain).steps
    assert result.steps == steps // 2 and [line["step"] for line in logged(config)] == list(range(1, steps // 2 + 1))
    assert same(result.path, plain.output.file("-000002.safetensors")), "the schedule is that of the whole run"
    assert not list(config.output.output_dir.rglob("*-state.pt"))
    told = json.loads(config.output.file(".json").read_text(encoding="utf-8"))
    assert [entry["loss"] for entry in told["validation"]] == pytest.approx([0.9, 0.7, 0.8, 0.9]) and told["verdict"]["epoch"] == 2
    assert run(config).steps == result.steps


def test_stopped_in_any_part_it_goes_on(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(configured(tiny_base, tiny_tree, **FOLDS, output_dir="whole")).path
    config = configured(tiny_base, tiny_tree, **FOLDS)
    for step in (5, 11):
        with monkeypatch.context() as patch:
            fail_at(patch, step, power_cut)
            with pytest.raises(MemoryError):
                run(config)
    assert same(run(config).path, whole)


def test_one_picture_cannot_be_rotated(tiny_base: Path, tiny_tree: Path) -> None:
    for path in list((tiny_tree / "img").rglob("*.png"))[1:]:
        path.unlink()
        path.with_suffix(".txt").unlink()
    with pytest.raises(UserError, match="validation_folds"):
        run(configured(tiny_base, tiny_tree, **FOLDS))


def test_one_part_is_refused() -> None:
    with pytest.raises(UserError, match="2 or more"):
        TrainConfig.load({"project": {}, "train": {"validation_folds": 1}}, {})


def test_the_course_is_the_mean_of_the_parts() -> None:
    runs = [[(0.5, Judgement(2, 1, a, 0.2, 1 - a, 0.0, 0.0)), (1.0, Judgement(4, 2, b, 0.2, 1 - b, 0.0, 0.0))] for a, b in ((0.6, 0.8), (0.8, 0.4))]
    course = averaged(runs)
    assert [round(judgement.loss, 9) for _, judgement in course] == [0.7, 0.6] and course[0][1].band < 0.2
    assert Rotation(course).best[0] == 1.0
