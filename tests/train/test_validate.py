"""Validation: the same numbers every time, the keyword taken out of captions, the best epoch kept, patience, and resume."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

import train.milestones
from tests.train.test_diagnose import ready
from tests.train.test_run import fail_at, logged, power_cut, same
from train.config import TrainConfig
from train.run import run
from train.validate import STRATA, Judgement, Panel, half_width, without_keyword
from train.verdict import best_of, exhausted

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def wide_tree(tmp_path: Path) -> Path:
    """20 training pictures and 20 of the class, all different."""
    for folder, count in (("img/1_tok cls", 20), ("reg/1_cls", 20)):
        place = tmp_path / "tree" / folder
        place.mkdir(parents=True)
        for index in range(count):
            colour = ((index * 37) % 256, (index * 91) % 256, 255 * (folder[0] == "r"))
            Image.new("RGB", (64, 64), colour).save(place / f"{index}.png")
            (place / f"{index}.txt").write_text("tok, a, b\n" if folder[0] == "i" else "cls, a\n")
    return tmp_path / "tree"


def configured(base: Path, tree: Path, **train: Any) -> TrainConfig:
    table = {
        "train_batch_size": 6, "num_epochs": 4, "learning_rate": 1e-2, "save_precision": "fp32", "sample_steps": 0, "min_bucket_reso": 64,
        "network_dim": 2, "save_state_every_n_steps": 3, "validate_every_n_epochs": 1, "lr_scheduler": "constant",
    }  # fmt: skip
    project = {"base": str(base), "keyword": "tok", "class": "cls", "name": "mine"}
    return TrainConfig.load({"project": project, "train": {**table, **train}}, {}).at(tree.parent)


def judgements(config: TrainConfig) -> list[dict[str, Any]]:
    return [{"step": line["step"], **line["validation"]} for line in logged(config) if "validation" in line]


def scored(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Let the validations of a run find these losses, one after another."""

    def judge(panel: Any, state: Any) -> Judgement:
        return Judgement(state.step, state.epoch, losses[len(state.judgements)], 0.1, 0.0, 0.0, 0.0)

    monkeypatch.setattr(train.milestones.Panel, "judge", judge)


def test_a_run_is_judged_each_epoch_by_pictures_it_does_not_train(tiny_base: Path, wide_tree: Path) -> None:
    config = configured(tiny_base, wide_tree)
    result = run(config)
    found = judgements(config)
    assert [entry["epoch"] for entry in found] == [1, 2, 3, 4] and found[-1]["step"] == result.steps
    assert len({entry["loss"] for entry in found}) == 4
    for entry in found:
        assert math.isclose(entry["difference"], entry["loss"] - 1) and entry["band"] > 0 and entry["bleed"] > 0
        assert entry["learned"] != 0 and entry["needs_keyword"] != 0
    assert sum(entry["best"] for entry in found) >= 1


def test_a_run_that_steps_end_is_judged_as_often_as_one_of_its_epochs(tiny_base: Path, wide_tree: Path) -> None:
    by_epochs, by_steps = ({"num_epochs": 2}, {"num_epochs": 1600, "max_train_steps": 40})
    panels = [Panel.of(ready(tiny_base, wide_tree, **settings)[0]) for settings in (by_epochs, by_steps)]
    assert panels[0] and panels[1] and panels[0].every() == panels[1].every() < 10


def test_a_rate_of_0_changes_no_number(tiny_base: Path, wide_tree: Path) -> None:
    config = configured(tiny_base, wide_tree, learning_rate=0.0, num_epochs=2)
    run(config)
    assert all((entry["loss"], entry["learned"], entry["needs_keyword"], entry["bleed"]) == (1, 0, 0, 0) for entry in judgements(config))


def test_judging_changes_nothing_of_the_training(tiny_base: Path, wide_tree: Path) -> None:
    often = configured(tiny_base, wide_tree, keep_best=False)
    seldom = configured(tiny_base, wide_tree, keep_best=False, validate_every_n_epochs=4, output_name="seldom")
    assert same(run(often).path, run(seldom).path)


def test_the_best_epoch_is_the_result_and_the_last_is_kept(tiny_base: Path, wide_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, [0.9, 0.5, 0.7, 0.8])
    config = configured(tiny_base, wide_tree, save_every_n_epochs=1)
    run(config)
    folder = config.output.output_dir
    assert same(folder / "mine.safetensors", folder / "mine-000002.safetensors")
    assert not same(folder / "mine-last.safetensors", folder / "mine.safetensors")
    assert not (folder / "mine-best.safetensors").exists()
    assert run(config).steps == [entry["step"] for entry in judgements(config)][1], "a finished run is found finished"


def test_the_last_is_the_result_if_it_is_best(tiny_base: Path, wide_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, [0.9, 0.8, 0.7, 0.6])
    config = configured(tiny_base, wide_tree)
    run(config)
    assert sorted(path.name for path in config.output.output_dir.glob("*.safetensors")) == ["mine.safetensors"]


def test_patience_ends_the_run(tiny_base: Path, wide_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, [0.9, 0.5, 0.7, 0.8, 0.9, 0.9, 0.9, 0.9])
    config = configured(tiny_base, wide_tree, num_epochs=8, patience=2)
    run(config)
    assert [entry["epoch"] for entry in judgements(config)] == [1, 2, 3, 4]
    assert not config.output.file("-state.pt").exists() and config.output.file("-last.safetensors").exists()


@pytest.mark.parametrize("step", [14, 22])
def test_a_run_cut_short_comes_to_the_same_end(tiny_base: Path, wide_tree: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    whole = configured(tiny_base, wide_tree, output_dir="whole")
    run(whole)
    config = configured(tiny_base, wide_tree)
    with monkeypatch.context() as patch:
        fail_at(patch, step, power_cut)
        with pytest.raises(MemoryError):
            run(config)
    run(config)
    assert judgements(config) == judgements(whole)
    for name in ("mine.safetensors", "mine-last.safetensors"):
        assert (config.output.output_dir / name).exists() == (whole.output.output_dir / name).exists()
    assert same(config.output.file(".safetensors"), whole.output.file(".safetensors"))


def test_few_pictures_are_all_trained(tiny_base: Path, tiny_tree: Path) -> None:
    config = configured(tiny_base, tiny_tree, num_epochs=1)
    run(config)
    assert not judgements(config) and load_file(config.output.file(".safetensors"))


@pytest.mark.parametrize(
    ("caption", "bare"),
    [
        ("tok, 1girl, smile", "1girl, smile"),
        ("tok girl", "girl"),
        ("1girl, TOK", "1girl"),
        ("a photo of tok, smiling", "a photo of, smiling"),
        ("tok's dog", "dog"),
        ("token, tok", "token"),
        ("tok", ""),
    ],
)
def test_the_keyword_is_taken_out(caption: str, bare: str) -> None:
    assert without_keyword(caption, "tok") == bare


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=40))
def test_the_band_is_wider_for_fewer_and_for_wilder_values(values: list[float]) -> None:
    width = half_width(values)
    assert width >= 0 and math.isclose(half_width([2 * value for value in values]), 2 * width, abs_tol=1e-9)
    assert half_width(values * 3) <= width + 1e-9


def test_the_band_holds_the_mean_in_19_of_20_cases() -> None:
    draws = torch.randn(4000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inside = sum(abs(row.mean().item()) <= half_width(row.tolist()) for row in draws) / len(draws)
    assert 0.935 < inside < 0.965 and half_width([1.0]) == math.inf and STRATA > 1


def test_best_and_patience() -> None:
    found = [Judgement(step, step, loss, 0.1, 0, 0, 0) for step, loss in enumerate([0.9, 0.5, 0.5, 0.6])]
    assert best_of(found).step == 1
    assert exhausted(found, 2) and not exhausted(found, 3) and not exhausted(found, 0) and not exhausted([], 1)
    assert json.dumps(found[0].record(True))


def test_an_epoch_that_binds_the_keyword_beats_one_of_a_little_less_loss_and_one_that_bleeds_does_not() -> None:
    early, bound = Judgement(1, 1, 0.41, 0.1, 0.45, 0.07, 0.08), Judgement(2, 2, 0.46, 0.1, 0.4, 0.24, 0.12)
    assert best_of([early, bound]) == bound
    bled = dataclasses.replace(bound, bleed=0.3)
    assert best_of([early, bled]) == early
    assert best_of([early, dataclasses.replace(bound, loss=0.6)]) == early


def test_killed_after_the_best_took_its_place_the_best_stays(tiny_base: Path, wide_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(monkeypatch, [0.9, 0.5, 0.7, 0.8])
    config = configured(tiny_base, wide_tree, save_every_n_epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr("train.result.draw_samples", lambda *_: power_cut())
        with pytest.raises(MemoryError):
            run(config)
    run(config)
    assert same(config.output.file(".safetensors"), config.output.file("-000002.safetensors"))
    assert not same(config.output.file("-last.safetensors"), config.output.file(".safetensors"))
