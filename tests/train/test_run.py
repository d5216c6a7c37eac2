"""Whole runs on a tiny base of random weights: what they leave behind, and that stopping them changes nothing."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import train.run
import train.state
from prep.options import UserError
from train.config import TrainConfig
from train.optimizers import OPTIMIZERS
from train.run import run
from train.runtime import StoppedError

# Everything that draws on chance is on, so that a resumed run has many ways to differ.
TRAIN = {
    "train_batch_size": 2,
    "num_epochs": 3,
    "learning_rate": 1e-2,
    "shuffle_caption": True,
    "caption_dropout_rate": 0.2,
    "flip_aug": True,
    "noise_offset": 0.05,
    "min_snr_gamma": 5.0,
    "save_precision": "fp32",
    "save_state_every_n_steps": 3,
    "sample_steps": 0,
    "min_bucket_reso": 64,
    "network_dim": 2,
    "network_alpha": 1.0,
}


@pytest.fixture
def config(tiny_base: Path, tiny_tree: Path) -> TrainConfig:
    return configured(tiny_base, tiny_tree)


def configured(base: Path, tree: Path, **train: Any) -> TrainConfig:
    project = {"base": str(base), "keyword": "tok", "class": "cls", "name": "mine"}
    return TrainConfig.load({"project": project, "train": {**TRAIN, **train}}, {}).at(tree.parent)


def logged(config: TrainConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in config.output.file(".jsonl").read_text(encoding="utf-8").splitlines()]


def fail_at(monkeypatch: pytest.MonkeyPatch, step: int, failure: Any) -> None:
    """Let the run come to `step` (counted from 1), then call `failure` before it is taken."""
    real = train.run.take_step

    def take_step(group: Any, job: Any, state: Any) -> Any:
        if state.step + 1 == step:
            failure()
        return real(group, job, state)

    monkeypatch.setattr(train.run, "take_step", take_step)


def power_cut() -> None:
    raise MemoryError("the power is gone")


def same(first: Path, second: Path) -> bool:
    a, b = load_file(first), load_file(second)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def elsewhere(config: TrainConfig, base: Path, tree: Path, **train: Any) -> TrainConfig:
    return configured(base, tree, output_dir=str(config.output.output_dir) + "-whole", **train)


def test_a_run_leaves_a_lora_a_log_and_samples(config: TrainConfig, tiny_base: Path, tiny_tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(tiny_base, tiny_tree, sample_steps=2, save_every_n_epochs=2)
    result = run(config)
    steps = [line["step"] for line in logged(config)]
    assert steps == list(range(1, result.steps + 1))
    assert sorted(path.name for path in config.output.output_dir.iterdir()) == [
        "mine-000002.safetensors",
        "mine-samples.png",
        "mine.html",
        "mine.json",
        "mine.jsonl",
        "mine.safetensors",
    ]
    weights = load_file(result.path)
    assert any(key.startswith("lora_te_") for key in weights)
    assert any(key.startswith("lora_unet_") and weights[key].abs().sum() > 0 for key in weights if "lora_up" in key)
    assert result.samples
    assert Image.open(result.samples).width > 4 * 64
    said = capsys.readouterr().out
    assert f"x 3 epochs = {result.steps} steps" in said
    assert "3 pictures x 2 repeats + 6 reg = 12 samples" in said
    assert "read back" in said


@pytest.mark.parametrize("step", [2, 5, 8])
def test_resumed_equals_never_stopped(config: TrainConfig, tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, step, power_cut)
        with pytest.raises(MemoryError):
            run(config)
    assert config.output.file("-state.pt").exists() == (step > 3)
    resumed, whole = run(config), run(elsewhere(config, tiny_base, tiny_tree))
    assert same(resumed.path, whole.path)
    assert [line["step"] for line in logged(config)] == list(range(1, whole.steps + 1))
    assert resumed.loss == whole.loss


@pytest.mark.parametrize("optimizer", ["adafactor", "lion"])
def test_other_optimizers_resume_too(config: TrainConfig, tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str) -> None:
    config = configured(tiny_base, tiny_tree, optimizer=optimizer, learning_rate=1e-3)
    with monkeypatch.context() as patch:
        fail_at(patch, 6, power_cut)
        with pytest.raises(MemoryError):
            run(config)
    assert same(run(config).path, run(elsewhere(config, tiny_base, tiny_tree, optimizer=optimizer, learning_rate=1e-3)).path)


def test_a_signal_saves_the_step_it_finds(config: TrainConfig, tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, 5, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(StoppedError, match="stopped at step 5") as stopped:
            run(config)
    assert stopped.value.exit_code == 143
    saved = torch.load(config.output.file("-state.pt"), weights_only=True)
    assert saved["counts"]["step"] == 5
    assert same(run(config).path, run(elsewhere(config, tiny_base, tiny_tree)).path)


def test_a_finished_run_is_not_repeated(config: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(config)
    written = first.path.stat().st_mtime_ns
    again = run(config)
    assert (again.path, again.steps, again.loss) == (first.path, first.steps, first.loss)
    assert first.path.stat().st_mtime_ns == written
    assert "--restart" in capsys.readouterr().out
    run(config, restart=True)
    assert first.path.stat().st_mtime_ns > written


def test_a_state_of_other_settings_is_not_mixed_in(config: TrainConfig, tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, 5, power_cut)
        with pytest.raises(MemoryError):
            run(config)
    with pytest.raises(UserError, match=r"learning_rate was 0.01, is 0.005.*--restart"):
        run(configured(tiny_base, tiny_tree, learning_rate=5e-3))
    caption = next(tiny_tree.glob("img/*/0.txt"))
    before = caption.read_text(encoding="utf-8")
    caption.write_text("tok, another, caption", encoding="utf-8")
    with pytest.raises(UserError, match="the tree was"):
        run(config)
    caption.write_text(before, encoding="utf-8")
    run(configured(tiny_base, tiny_tree, save_state_every_n_steps=1))  # what does not touch the weights may change


def test_a_broken_state_is_said(config: TrainConfig) -> None:
    state = config.output.file("-state.pt")
    state.parent.mkdir()
    state.write_bytes(b"not a state")
    with pytest.raises(UserError, match=r"mine-state\.pt is not a state of a run"):
        run(config)
    run(config, restart=True)


def test_nan_stops_the_run_and_names_the_captions(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.run, "training_step", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(UserError, match=r"not a number at step 1, in the batch captioned '.*(tok|cls)"):
        run(config)
    assert not config.output.file("-state.pt").exists()


def test_the_tree_is_checked_before_any_weight_is_loaded(config: TrainConfig, tiny_tree: Path) -> None:
    next(tiny_tree.glob("img/*/0.txt")).unlink()
    config = configured(Path("no/such/base/here"), tiny_tree)
    with pytest.raises(UserError, match=r"0.png"):
        run(config)


def test_a_missing_tree_is_said(config: TrainConfig, tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        run(configured(tiny_base, tmp_path / "nowhere" / "tree"))


def test_max_train_steps_caps_and_accumulation_counts_steps(tiny_base: Path, tiny_tree: Path) -> None:
    capped = run(configured(tiny_base, tiny_tree, max_train_steps=2))
    assert capped.steps == 2
    plain = configured(tiny_base, tiny_tree, num_epochs=1, output_name="plain")
    gathered = configured(tiny_base, tiny_tree, num_epochs=1, gradient_accumulation_steps=4, output_name="gathered")
    assert run(gathered).steps == -(-run(plain).steps // 4)


def test_a_part_that_is_not_trained_is_not_in_the_file(tiny_base: Path, tiny_tree: Path) -> None:
    weights = load_file(run(configured(tiny_base, tiny_tree, train_text_encoder=False, max_train_steps=2)).path)
    assert weights
    assert all(key.startswith("lora_unet_") for key in weights)


def test_a_full_disk_is_said_in_a_sentence(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(train.state, "atomic_write", full)
    with pytest.raises(UserError, match=r"mine-state.pt \(No space left on device\); make room"):
        run(config)


def test_half_precision_on_the_processor_trains(tiny_base: Path, tiny_tree: Path) -> None:
    result = run(configured(tiny_base, tiny_tree, mixed_precision="bf16", save_precision="fp16", max_train_steps=3))
    assert all(tensor.dtype == torch.float16 for tensor in load_file(result.path).values())


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(config: TrainConfig, tiny_base: Path, tiny_tree: Path) -> None:
    facts = {**TRAIN, "save_state_every_n_steps": 1, "num_epochs": 12}
    lines = [f"{key} = {json.dumps(value)}" for key, value in facts.items()]
    project = f'[project]\nbase = {json.dumps(str(tiny_base))}\nname = "mine"\nkeyword = "tok"\n[train]\n'
    (tiny_tree.parent / "dataset.toml").write_text(project + "\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "train", "run", str(tiny_tree.parent)]
    log, lora = config.output.file(".jsonl"), config.output.file(".safetensors")
    for wanted in (3, 11, 20):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None and not (log.exists() and f'"step": {wanted},' in log.read_text()):
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert not lora.exists()
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    whole = run(configured(tiny_base, tiny_tree, **{**facts, "output_dir": "whole"}))
    assert same(lora, whole.path)
    assert [line["step"] for line in logged(config)] == list(range(1, whole.steps + 1))


def killed_after(step: int, config: TrainConfig) -> None:
    """Run in a child that kills itself when the log has come to `step`."""
    child = os.fork()  # a new interpreter would spend most of the test on importing torch
    if not child:
        signal.alarm(100)  # rather an end than a wait without one
        reached = train.run.StepLog.write

        def write(log: Any, record: dict[str, Any], mean_loss: float) -> None:
            reached(log, record, mean_loss)
            if record["step"] == step:
                os.kill(os.getpid(), signal.SIGKILL)

        train.run.StepLog.write = write  # type: ignore[method-assign]
        try:
            run(config)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.usefixtures("one_thread")  # a child of a process with a pool of threads would wait for them for ever
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_optimizer_goes_on_after_kills(tiny_base: Path, tiny_tree: Path, optimizer: str) -> None:
    """One, two and three kills at random steps, states saved every third one."""
    row = OPTIMIZERS[optimizer]
    if row.extra:
        pytest.importorskip(row.optimizer_class.partition(".")[0].partition(":")[0])
    table = {
        "optimizer": optimizer,
        "learning_rate": 1.0 if row.finds_rate else 1e-3,
        "lr_scheduler": "constant" if row.schedule_free else "cosine",
        "num_epochs": 2,
    }
    whole = run(configured(tiny_base, tiny_tree, **table, output_dir="whole"))
    rng = random.Random(optimizer)
    for kills in (1, 2, 3):
        config = configured(tiny_base, tiny_tree, **table, output_dir=f"killed{kills}")
        for step in sorted(rng.sample(range(2, whole.steps), kills)):
            killed_after(step, config)
        assert same(run(config).path, whole.path), f"after {kills} kills"
