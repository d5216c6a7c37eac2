"""Two processes train what one trains with as many samples a step: the same LoRA, rates and steps; and a stop stops both."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from train.config import TrainConfig
from train.processes import Processes
from train.run import run

TABLE: dict[str, Any] = {
    "train_batch_size": 2, "num_epochs": 2, "learning_rate": 1e-3, "scale_lr": True, "lr_scheduler": "cosine", "lr_warmup_ratio": 0.3,
    "shuffle_caption": True, "flip_aug": True, "rank_dropout": 0.2, "save_precision": "fp32", "sample_steps": 0, "min_bucket_reso": 64,
    "network_dim": 2, "network_alpha": 1.0, "save_state_every_n_steps": 2, "optimizer": "sgdnesterov",
}  # fmt: skip


def project(base: Path, folder: Path, tree: Path, **table: Any) -> Path:
    """Write a project of its own over the same tree."""
    folder.mkdir()
    (folder / "tree").symlink_to(tree)
    rows = {"project": {"base": str(base), "keyword": "tok", "class": "cls", "name": "mine"}, "train": {**TABLE, **table}}
    lines = [f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in row.items()) for name, row in rows.items()]
    (folder / "dataset.toml").write_text("\n".join(lines), encoding="utf-8")
    return folder


def launch(folder: Path, count: int = 2) -> list[subprocess.Popen[str]]:
    """Start `train run` in some processes as `torchrun` and `accelerate launch` do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = []
    for rank in range(count):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        variables = {**os.environ, **{key: str(value) for key, value in place.items()}, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "train", "run", str(folder)]
        found.append(subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    return found


def ended(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    outputs = [process.communicate(timeout=200) for process in processes]
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "lora" / "mine.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_process_alone_adds_nothing() -> None:
    alone = Processes.join()
    parameter = torch.nn.Parameter(torch.ones(2))
    alone.sum_gradients([parameter])
    assert (alone.first, alone.count, alone.share(5), alone.total(1.5, 2.0), alone.greatest(3)) == (True, 1, (5, 1), [1.5, 2.0], [3])
    assert parameter.grad is None


@pytest.mark.slow
def test_two_processes_equal_one_with_as_many_samples(tiny_base: Path, tiny_tree: Path, tmp_path: Path) -> None:
    both, alone = (
        project(tiny_base, tmp_path / name, tiny_tree, **table) for name, table in (("both", {}), ("alone", {"gradient_accumulation_steps": 2}))
    )
    results = ended(launch(both))
    assert [code for code, _, _ in results] == [0, 0], results
    assert "2 processes" in results[0][1] and not results[1][1], "one of them speaks"
    done = subprocess.run([sys.executable, "-m", "train", "run", str(alone)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (load_file(folder / "lora" / "mine.safetensors") for folder in (alone, both))
    assert one.keys() == two.keys()
    assert max((one[key] - two[key]).abs().max().item() for key in one) < 1e-6
    assert sum(bool(two[key].any()) for key in two if "lora_up" in key) > 0.9 * sum("lora_up" in key for key in two)
    keys = ("step", "epoch", "lr_unet", "lr_text_encoder")
    assert [[line[key] for key in keys] for line in log(alone)] == [[line[key] for key in keys] for line in log(both)]
    assert [line["loss"] for line in log(alone)] == pytest.approx([line["loss"] for line in log(both)], rel=1e-5)


@pytest.mark.slow
def test_a_signal_to_one_stops_both_and_they_go_on(tiny_base: Path, tiny_tree: Path, tmp_path: Path) -> None:
    stopped, whole = (project(tiny_base, tmp_path / name, tiny_tree, num_epochs=12) for name in ("stopped", "whole"))
    processes = launch(stopped)
    while not (stopped / "lora" / "mine.jsonl").exists() or len(log(stopped)) < 2:
        assert processes[0].poll() is None
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    results = ended(processes)
    assert [code for code, _, _ in results] == [143, 143], results
    assert [code for code, _, _ in ended(launch(stopped))] == [0, 0]
    assert [code for code, _, _ in ended(launch(whole))] == [0, 0]
    one, two = (load_file(folder / "lora" / "mine.safetensors") for folder in (stopped, whole))
    assert all(torch.equal(one[key], two[key]) for key in two)


def test_a_state_of_another_number_of_processes_is_not_gone_on_with(tiny_base: Path, tiny_tree: Path) -> None:
    from train.fingerprint import fingerprint_of

    config = TrainConfig.load({"project": {"base": str(tiny_base), "keyword": "tok"}, "train": TABLE}, {}).at(tiny_tree.parent)
    assert fingerprint_of(config, [], [], 2) != fingerprint_of(config, [], [])
    assert run(config).steps == 12
