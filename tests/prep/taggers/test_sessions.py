import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from prep.options import UserError
from prep.taggers import LOCAL
from prep.taggers import onnx_tagger as onnx_taggers
from prep.taggers.onnx_tagger import PER_GPU, OnnxTagger
from prep.taggers.sessions import CPU, CUDA, Sessions, gpus_of, open_session
from tests.prep.taggers.models import make_tagger


def test_gpus_are_those_asked_for_or_all() -> None:
    assert gpus_of("", 3) == [0, 1, 2] and gpus_of("2,0", 3) == [2, 0] and gpus_of("1, 1", 2) == [1] and gpus_of("", 0) == []
    with pytest.raises(UserError, match="there is no GPU 3; this machine has 3"):
        gpus_of("0,3", 3)
    with pytest.raises(UserError, match="no list of numbers"):
        gpus_of("first", 1)


class Slow:
    """A session that adds its number and takes its time, the longer the earlier."""

    def __init__(self, number: int, seconds: float) -> None:
        self.number, self.seconds, self.seen, self.busy = number, seconds, 0, threading.Lock()

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="input")]

    def run(self, outputs: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert self.busy.acquire(blocking=False), "a session got two batches at once"
        time.sleep(self.seconds)
        self.seen += 1
        self.busy.release()
        return [feed["input"] * 10]


def test_batches_are_shared_and_come_back_in_order() -> None:
    slow, fast = Slow(0, 0.02), Slow(1, 0.004)
    batches = [np.array([i]) for i in range(12)]
    assert [int(result[0]) for result in Sessions([slow, fast], "output").run(batches)] == [10 * i for i in range(12)]
    assert slow.seen and fast.seen > slow.seen and slow.seen + fast.seen == 12


def test_cuda_that_was_asked_for_and_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = onnxruntime.InferenceSession(str(make_tagger(tmp_path) / "model.onnx"), providers=[CPU])
    # What onnxruntime-gpu does on a machine without a GPU: it lists CUDA, then makes a session on the CPU.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *args, **kwargs: session)
    with pytest.raises(UserError, match="cannot use CUDA"):
        open_session(tmp_path / "model.onnx", "cuda")
    assert open_session(tmp_path / "model.onnx", "auto").get_providers() == [CPU]


@pytest.mark.parametrize(("batch", "expected"), [("batch", 2), (1, 2), ("mixed", 2 * PER_GPU)])
def test_every_gpu_gets_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int | str, expected: int) -> None:
    import torch

    opened: list[tuple[int, bool]] = []

    class OnGPU:
        """A session on the CPU that says it is on a GPU."""

        def __init__(self, model: Path | bytes) -> None:
            self.real = onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), providers=[CPU])

        def get_providers(self) -> list[str]:
            return [CUDA, CPU]

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    def fake(model: Path | bytes, device: str, gpu: int = 0, name: str = "") -> OnGPU:
        opened.append((gpu, isinstance(model, bytes)))
        return OnGPU(model)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(onnx_taggers, "open_session", fake)
    if batch == "mixed":
        monkeypatch.setattr(OnnxTagger, "in_graph", lambda self, single: None)
    make_tagger(tmp_path, batch=1 if batch == "mixed" else batch)
    tagger = OnnxTagger(LOCAL, (tmp_path / "model.onnx", tmp_path / "selected_tags.csv"), "cuda", 4, "1,3")
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    scores = tagger.score(list(pixels))
    assert tagger.provider == CUDA and len(opened) == 1 + expected
    assert {gpu for gpu, _ in opened[1:]} == {1, 3} and all(changed == (batch != "mixed") for _, changed in opened[1:])
    alone = OnnxTagger(LOCAL, (tmp_path / "model.onnx", tmp_path / "selected_tags.csv"), "cpu")
    assert np.abs(scores - alone.score(list(pixels))).max() < 1e-4
