"""Presets: twenty-four of them, each loads, each value has its reason, and small cards get the settings that spare memory."""

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from train.cli import main
from train.config import TrainConfig
from train.moving_in.preset_command import lines_of, table_of
from train.moving_in.presets import names


def loaded(name: str) -> TrainConfig:
    return TrainConfig.load(tomllib.loads("[train]\n" + "\n".join(lines_of(table_of(name)))), {})


def test_there_is_one_for_each_purpose_family_and_card() -> None:
    assert len(set(names())) == 24


@pytest.mark.parametrize("name", list(names()))
def test_a_preset_loads_and_says_why(name: str) -> None:
    choices = table_of(name)
    assert len({choice.key for choice in choices}) == len(choices) and all(len(choice.why.split()) >= 4 for choice in choices)
    config = loaded(name)
    assert config.data.train_batch_size * config.optimizer.gradient_accumulation_steps >= 4


def test_smaller_cards_get_less_to_hold() -> None:
    for kind in ("character", "style", "object"):
        for family in ("sd15", "sdxl"):
            configs = [loaded(f"{kind}-{family}-{memory}gb") for memory in (6, 8, 12, 24)]
            held = [config.data.train_batch_size * (config.data.resolution or 0) ** 2 for config in configs]
            assert held == sorted(held) and configs[0].optimizer.optimizer == "adamw8bit"
    assert not loaded("style-sdxl-12gb").network.train_text_encoder and loaded("style-sdxl-24gb").network.train_text_encoder


def test_it_is_written_into_the_project_and_keeps_what_else_is_there(tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text('[project]\nname = "mine"\n\n[train]\nseed = 7  # mine\nnetwork_dim = 4\n')
    result = CliRunner().invoke(main, ["preset", "style-sd15-8gb", str(tmp_path), "--write"])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "dataset.toml").read_text()
    found = tomllib.loads(text)
    assert found["train"]["network_dim"] == 64 and found["train"]["seed"] == 7 and "# mine" in text and found["project"] == {"name": "mine"}
    assert "# a style changes every layer a little" in text


def test_names_are_listed_and_a_wrong_one_is_told() -> None:
    assert CliRunner().invoke(main, ["preset"]).output.split() == list(names())
    wrong = CliRunner().invoke(main, ["preset", "style"])
    assert wrong.exit_code == 1 and "lists all" in wrong.output
