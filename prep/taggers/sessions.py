"""Sessions: load an ONNX model on the device that was asked for, make sure that it runs there, and share batches among several."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from prep.options import UserError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def open_session(model: Path | bytes, device: str, gpu: int = 0, name: str = "") -> Any:
    """Load an ONNX model on "cpu", "cuda" or "auto" (CUDA if it works); raises UserError if it must and does not run on CUDA.

    `model` is a file, or the bytes of one, which errors then call `name`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # warnings are for those who make models
    # Threads that wait would burn the cores on which pictures are decoded. Measured on two busy cores, ViT-B: 1.7 seconds of the
    # processor a picture against 2.1, and no slower on the clock.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = [CPU]
    if device != "cpu" and CUDA in onnxruntime.get_available_providers():
        providers.insert(0, (CUDA, {"device_id": gpu, "cudnn_conv_algo_search": "HEURISTIC"}))
        if device == "auto":
            onnxruntime.set_default_logger_severity(4)  # that CUDA cannot be loaded is no error then
    try:
        session = onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=providers)
    except Exception as error:  # onnxruntime raises a class of its own for each kind of fault, all straight from Exception
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"{name if isinstance(model, bytes) else model} cannot be loaded ({reason}); fetch the file again") from None
    # The list of available providers also names CUDA where there is no GPU; only the live session tells the truth.
    if device == "cuda" and session.get_providers()[0] != CUDA:
        raise UserError("onnxruntime cannot use CUDA here (no GPU, no CUDA libraries, or no onnxruntime-gpu); mend that, or give --device auto")
    return session


def gpus_of(asked: str, count: int) -> list[int]:
    """Return the GPUs to use of `count`: those that "0,2" names, or all for ""; raises UserError for one that is not there."""
    try:
        chosen = [int(word) for word in asked.split(",")] if asked.strip() else list(range(count))
    except ValueError:
        raise UserError(f"--gpu-ids {asked!r} is no list of numbers such as 0,1") from None
    absent = [number for number in chosen if not 0 <= number < count]
    if absent:
        raise UserError(f"there is no GPU {absent[0]}; this machine has {count}, counted from 0")
    return list(dict.fromkeys(chosen))


class Sessions:
    """Sessions of one model, on several GPUs or several on one, that share the batches given to `run`."""

    def __init__(self, sessions: Sequence[Any], output: str) -> None:
        self.sessions, self.output = list(sessions), output
        self.input = sessions[0].get_inputs()[0].name

    def run(self, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the output for every batch, in their order, whichever session it came from."""
        if len(self.sessions) == 1 or len(batches) == 1:
            return [self._run(self.sessions[0], batch) for batch in batches]
        free: SimpleQueue[Any] = SimpleQueue()
        for session in self.sessions:
            free.put(session)

        def take(batch: np.ndarray) -> np.ndarray:
            session = free.get()
            try:
                return self._run(session, batch)
            finally:
                free.put(session)

        with ThreadPoolExecutor(len(self.sessions)) as pool:
            return list(pool.map(take, batches))

    def _run(self, session: Any, batch: np.ndarray) -> np.ndarray:
        return session.run([self.output], {self.input: batch})[0]
