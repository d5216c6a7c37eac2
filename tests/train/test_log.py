"""The step log: whole lines, no step twice after a resume, quiet off a terminal."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prep.options import UserError
from train.config import OutputConfig, TrainConfig
from train.log import BOARDS, StepLog, kept_lines, open_board, track


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


FAKE = """
import json, os
from pathlib import Path

class Error(Exception): pass

class Run:
    def __init__(self, **given): self.given, self.lines, self.metrics = given, [], []
    def define_metric(self, name, step_metric=None): self.metrics.append([name, step_metric])
    def log(self, record): self.lines.append(record)
    def finish(self):
        path = Path(self.given["dir"]) / "wandb" / "seen.json"
        before = json.loads(path.read_text()) if path.exists() else []
        path.write_text(json.dumps([*before, {"given": self.given, "lines": self.lines, "metrics": self.metrics}]))

def init(**given):
    if os.environ.get("WANDB_MODE") != "offline":
        raise Error("api_key not configured (no-tty).\\nmore")
    return Run(**given)
"""


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of that name that writes down what it is told; the real one is not installed with the tests."""
    (tmp_path / "packages" / "wandb").mkdir(parents=True)
    (tmp_path / "packages" / "wandb" / "__init__.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    yield tmp_path
    sys.modules.pop("wandb", None)


def logged_to(folder: Path, done: int = 0) -> dict[str, Any]:
    config = TrainConfig.load({"train": {"log_with": "wandb", "output_name": "mine", "log_tracker_name": "p"}}, {}).at(folder)
    with StepLog(config.output.file(".jsonl"), 4, done, open_board(config, done)) as log:
        log.write({"step": done + 1, "loss": 0.5, "grad_norm": None}, 0.5)
    seen: list[dict[str, Any]] = json.loads((config.output.output_dir / "wandb" / "seen.json").read_text())
    return seen[-1]


def test_wandb_is_told_of_each_step_and_a_resumed_run_goes_on_in_its_run(wandb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    first, resumed, anew = logged_to(wandb), logged_to(wandb, 2), logged_to(wandb)
    assert (first["given"]["project"], first["given"]["name"], first["given"]["resume"]) == ("p", "mine", "allow")
    assert first["given"]["config"]["network_dim"] == 16 and "tree" not in first["given"]["config"]
    assert first["lines"] == [{"step": 1, "loss": 0.5}] and ["*", "step"] in first["metrics"]
    assert first["given"]["id"] == resumed["given"]["id"] != anew["given"]["id"]


def test_wandb_that_does_not_start_is_one_sentence(wandb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(UserError, match=r"W&B did not start \(api_key not configured \(no-tty\)\); run `wandb login`"):
        logged_to(wandb)


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_that_is_not_installed_is_said_before_anything_is_loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=f"run `pip install {name}`, or leave log_with away"):
        TrainConfig.load({"train": {"log_with": name}}, {})


def test_the_setting_lists_every_board() -> None:
    assert set(OutputConfig.__dataclass_fields__["log_with"].metadata["choices"]) == {"", *BOARDS}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*x.jsonl \(No space left on device\)"), StepLog(tmp_path / "x.jsonl", 2) as log:
        log.file.close()
        log.file = Path("/dev/full").open("a")  # noqa: SIM115 (StepLog closes it)
        log.write({"step": 1}, 0.5)
