"""The conduct that the design asks for: style, types, the direction of imports, and commands that answer at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], cwd=ROOT, capture_output=True, text=True)


def test_ruff_finds_nothing():
    result = run("-m", "ruff", "check", "prep", "train", "pipelines", "tests", "benchmarks", "bootstrap.py")
    assert result.returncode == 0, result.stdout


def test_imports_go_one_way():
    result = run("-c", "from importlinter.cli import lint_imports_command as main; main()", "--config", "pyproject.toml")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_types():
    result = run("-m", "mypy")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("command", ["prep", "train"])
def test_help_answers_without_torch(command):
    code = (
        f"import sys; from {command}.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'onnxruntime', 'cv2', 'pydantic'} & set(sys.modules); assert not heavy, heavy"
    )
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
    assert "Commands:" in result.stdout


@pytest.mark.parametrize("command", ["prep", "train"])
def test_help_is_fast(command):
    # Asked are 0.4 s on a calm machine; a busy one takes twice that, and a heavy import would add a second.
    assert min(_seconds("-m", command, "--help") for _ in range(3)) < 0.8


def _seconds(*args: str) -> float:
    """Return a command's seconds of processor time, which other work beside it hardly changes."""
    before = os.times()
    run(*args)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system
