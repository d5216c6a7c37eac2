import importlib.util
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from prep.cli import main


def test_the_command_prints_an_address_that_answers_and_ends_on_request(folder: Path) -> None:
    command = [sys.executable, "-m", "prep", "review", str(folder), "--no-browser"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr
        url = process.stderr.readline().strip()
        assert url.startswith("http://127.0.0.1:") and len(url.split("/")[3]) > 20
        with urllib.request.urlopen(url) as answer:
            assert answer.status == 200 and b"<title>" in answer.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, -signal.SIGINT, 1)


def test_a_folder_without_pictures_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["review", str(tmp_path), "--no-browser"])
    assert result.exit_code == 1 and "there are no pictures" in result.output


@pytest.mark.parametrize("command", [["review"], ["--help"]])
def test_what_is_missing_is_named_with_its_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "uvicorn" else found(name, *rest))
    result = CliRunner().invoke(main, [*command, *([str(folder), "--no-browser"] if command == ["review"] else [])])
    if command == ["review"]:
        assert result.exit_code == 1 and "pip install 'lora-atelier[review]'" in result.output
    else:
        assert result.exit_code == 0 and "review" in result.output
