"""The train command: quick help without torch, settings from the file and the line, one sentence for a mistake."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import train.cli
from train.cli import COMMANDS, main
from train.config import TrainConfig, known_keys
from train.runtime import StoppedError


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "dataset.toml").write_text('[project]\nname = "mine"\nkeyword = "tok"\n[train]\nnum_epochs = 7\n', encoding="utf-8")
    return tmp_path


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Catch what the command would run."""
    caught: dict[str, Any] = {}
    monkeypatch.setattr(train.cli, "run", lambda config, restart: caught.update(config=config, restart=restart))
    return caught


def test_run_lists_every_setting() -> None:
    text = CliRunner().invoke(main, ["run", "--help"]).output
    assert all(f"--{key.replace('_', '-')}" in text for key in known_keys())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0


def test_what_is_typed_beats_the_file(project: Path, seen: dict[str, Any]) -> None:
    result = CliRunner().invoke(main, ["run", str(project), "--learning-rate", "0.002", "--no-shuffle-caption", "--restart"])
    assert result.exit_code == 0, result.output
    config: TrainConfig = seen["config"]
    assert (config.data.num_epochs, config.optimizer.learning_rate, config.data.shuffle_caption) == (7, 0.002, False)
    assert (config.data.tree, config.output.output_dir) == (project / "tree", project / "lora")
    assert seen["restart"]


def test_typed_paths_are_meant_from_here(project: Path, seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    here = project / "here"
    (here / "base").mkdir(parents=True)
    monkeypatch.chdir(here)
    assert CliRunner().invoke(main, ["run", "..", "--tree", "t", "--base", "base"]).exit_code == 0
    assert seen["config"].data.tree == here / "t"
    assert seen["config"].model.base == str(here / "base")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--network-dim", "0"], "--network-dim"),
        (["--lr-scheduler", "cosin"], "--lr-scheduler"),
        (["--num-epoch", "3"], "--num-epochs"),
    ],
)
def test_wrong_use_exits_2(project: Path, args: list[str], words: str) -> None:
    result = CliRunner().invoke(main, ["run", str(project), *args])
    assert result.exit_code == 2
    assert words in result.output


def test_a_mistake_in_the_file_exits_1_with_a_sentence(project: Path) -> None:
    with (project / "dataset.toml").open("a", encoding="utf-8") as file:
        file.write("learning_rte = 1\nnetwork_dim = -4\n")
    result = CliRunner().invoke(main, ["run", str(project)])
    assert result.exit_code == 1
    assert "did you mean learning_rate?" in result.output
    assert "network_dim" in result.output


def test_no_project_exits_1(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["run", str(tmp_path)])
    assert result.exit_code == 1
    assert "no dataset.toml" in result.output


def test_a_stopped_run_exits_with_the_signals_code(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(config: TrainConfig, restart: bool) -> None:
        raise StoppedError(15, "stopped at step 3")

    monkeypatch.setattr(train.cli, "run", stopped)
    result = CliRunner().invoke(main, ["run", str(project)])
    assert result.exit_code == 143
    assert "stopped at step 3" in result.output
