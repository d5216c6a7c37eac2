"""Presets: all 24 load, each setting has its reason, and writing one keeps what else the file says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from prep.options import UserError
from train.cli import main
from train.config import TrainConfig, known_keys
from train.preset_command import lines_of, put
from train.presets import FAMILIES, MEMORY, PRESETS, SUBJECTS, find_preset


def test_there_is_one_for_each_subject_family_and_memory() -> None:
    assert set(PRESETS) == {f"{subject}-{family}-{memory}gb" for subject in SUBJECTS for family in FAMILIES for memory in MEMORY}
    assert len(PRESETS) == 24


@pytest.mark.parametrize("name", PRESETS)
def test_each_loads_with_a_sentence_beside_every_value(name: str) -> None:
    preset = PRESETS[name]
    table = tomllib.loads(lines_of(preset))["train"]
    assert table == preset.settings() and set(table) <= set(known_keys())
    assert len(table) == len(preset.choices)  # no setting twice
    config = TrainConfig.load({"train": table}, {})
    assert all(choice.reason.endswith(".") and len(choice.reason.split()) >= 4 and "\n" not in choice.reason for choice in preset.choices)
    assert config.data.train_batch_size * config.optimizer.gradient_accumulation_steps == 4


@pytest.mark.parametrize("name", PRESETS)
def test_less_memory_never_asks_for_more(name: str) -> None:
    subject, family, memory = name.split("-")
    larger = [m for m in MEMORY if m > int(memory.removesuffix("gb"))]
    mine = PRESETS[name].settings()
    for more in larger:
        other = PRESETS[f"{subject}-{family}-{more}gb"].settings()
        assert (mine["resolution"], mine["train_batch_size"]) <= (other["resolution"], other["train_batch_size"])
        assert mine["train_text_encoder"] <= other["train_text_encoder"]
    if larger:
        assert "not run on such a card" in " ".join(choice.reason for choice in PRESETS[name].choices)


@pytest.mark.parametrize("written", ["Style SDXL 12 GB", "style_sdxl_12gb", "style-sdxl-12", "STYLE-SDXL-12GB"])
def test_a_name_may_be_written_freely(written: str) -> None:
    assert find_preset(written).name == "style-sdxl-12gb"
    assert find_preset("object SD1.5 6gb").name == "object-sd15-6gb"


def test_a_wrong_name_is_told_what_there_is() -> None:
    with pytest.raises(UserError, match="character or style or object"):
        find_preset("cat-sdxl-12gb")


def test_writing_keeps_the_rest_and_says_what_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "dataset.toml"
    path.write_text('# mine\n[project]\nname = "a"\n\n[train]\nnetwork_dim = 64  # big\nseed = 3\n\n[tag]\nthreshold = 0.3\n')
    said = put(find_preset("object-sd15-8gb"), tmp_path)
    text = path.read_text()
    found = tomllib.loads(text)
    assert said[0] == "network_dim was 64" and "# mine" in text
    assert found["project"] == {"name": "a"} and found["tag"] == {"threshold": 0.3} and found["train"]["seed"] == 3
    assert {key: found["train"][key] for key in find_preset("object-sd15-8gb").settings()} == find_preset("object-sd15-8gb").settings()
    assert put(find_preset("object-sd15-8gb"), tmp_path)[:-1] == [] and path.read_text() == text


def test_what_cannot_stand_beside_it_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "dataset.toml"
    path.write_text("[train]\ndebiased_estimation_loss = true\n")
    before = path.read_text()
    with pytest.raises(UserError, match="min_snr_gamma and debiased_estimation_loss"):
        put(find_preset("object-sd15-8gb"), tmp_path)
    assert path.read_text() == before
    with pytest.raises(UserError, match="prep new"):
        put(find_preset("object-sd15-8gb"), tmp_path / "none")


def test_the_command_lists_and_prints() -> None:
    listed = CliRunner().invoke(main, ["preset"])
    assert listed.exit_code == 0 and len(listed.output.splitlines()) == 24
    shown = CliRunner().invoke(main, ["preset", "character sdxl 24gb"])
    assert shown.exit_code == 0 and "resolution = 1024  # " in shown.output
    assert CliRunner().invoke(main, ["preset", "nothing"]).exit_code == 1
