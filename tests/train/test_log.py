"""The step log: whole lines, no step twice after a resume, quiet off a terminal."""

import json
from pathlib import Path

import pytest

from train.log import StepLog, kept_lines, track


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_resumed_run_writes_no_step_twice(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with StepLog(path, 10) as log:
        for step in range(1, 7):
            log.write({"step": step}, 0.5)
    with path.open("a") as file:
        file.write('{"step": 7, "lo')  # what a kill leaves
    with StepLog(path, 10, done=4) as log:
        log.write({"step": 5}, 0.5)
    assert steps(path) == [1, 2, 3, 4, 5]


def test_a_new_run_begins_an_empty_log(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"step": 1}\n')
    with StepLog(path, 10):
        pass
    assert steps(path) == []
    assert kept_lines(path, 5) == []


def test_it_is_quiet_off_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StepLog(tmp_path / "x.jsonl", 2) as log:
        log.write({"step": 1}, 0.5)
    assert list(track(range(3), "counting", 3)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
