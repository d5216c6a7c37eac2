"""The `prep` command: every row answers, mistakes are one sentence, and --debug shows where."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from prep.cli import COMMANDS, main
from prep.options import load_object, settings_of
from prep.project import TABLES, Command

ROOT = Path(__file__).parents[2]
FIRST = {"export": ["imagefolder"]}  # what must stand before the folder


def test_the_group_lists_every_command_with_a_line_of_help() -> None:
    result = CliRunner().invoke(main, ["--help"])
    lines = {line.split()[0]: line.split()[1:] for line in result.output.partition("Commands:")[2].splitlines() if line.strip()}
    assert result.exit_code == 0 and set(COMMANDS) <= set(lines) and all(lines[name] for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0 and result.output.startswith(f"Usage: main {name} [OPTIONS] {'FORMAT ' * (name in FIRST)}[")


@pytest.mark.parametrize("name", [name for name, spec in COMMANDS.items() if spec.startswith("prep.")])
def test_every_setting_is_an_option_with_help_and_its_table_is_known(name: str) -> None:
    command = load_object(COMMANDS[name])
    assert issubclass(command, Command) and command.table() == name
    assert name in TABLES or name in ("new", "run")
    text = " ".join(CliRunner().invoke(main, [name, "--help"], terminal_width=400).output.split())
    for setting in settings_of(command):
        assert f"--{setting.key.replace('_', '-')}" in text and setting.meta["help"].endswith(".")


@pytest.mark.parametrize(("typed", "meant"), [("tagg", "tag"), ("regularise", "regularize"), ("chek", "check"), ("xyzzy", "")])
def test_an_unknown_command_is_asked_back(typed: str, meant: str) -> None:
    result = CliRunner().invoke(main, [typed])
    assert result.exit_code == 2 and f"No such command '{typed}'." in result.output
    assert (f"Did you mean '{meant}'?" in result.output) == bool(meant)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("demo", "new", "regularize", "stock")])
def test_a_folder_that_is_not_there_is_one_sentence_for_every_command(name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [name, *FIRST.get(name, []), str(tmp_path / "nowhere")])
    assert result.exit_code == 1 and result.output.count("\n") == 1
    assert result.output.startswith("Error: ") and "nowhere" in result.output


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "prep", *args], cwd=ROOT, capture_output=True, text=True)


def test_only_with_debug_there_is_a_traceback(tmp_path: Path) -> None:
    plain, debug = run("clean", str(tmp_path)), run("--debug", "clean", str(tmp_path))
    assert plain.returncode == 1 and plain.stdout == ""
    assert plain.stderr == f"Error: there are no pictures in {tmp_path}; put yours there\n"
    assert debug.returncode == 1 and "Traceback" in debug.stderr and debug.stderr.rstrip().endswith("put yours there")


def test_it_says_its_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0 and result.output.strip()[-1].isdigit()
