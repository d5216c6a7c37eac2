"""ONNX detectors for the tests: whatever picture they see, they give the numbers that were written into them, and note its size in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def make_detector(path: Path, output: np.ndarray, names: list[str], size: tuple[int | str, int | str] = (64, 64), imgsz: str = "") -> Path:
    """Write a model with input images (1, 3, *size) that gives `output` with a first axis; `size` is height and width, a text for dynamic."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["values", "nothing"], ["output0"]),
    ]
    values = output[None].astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, *size])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, list(values.shape))],
        [numpy_helper.from_array(values, "values"), numpy_helper.from_array(np.zeros((), np.float32), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    meta = {"names": str(dict(enumerate(names)))} | ({"imgsz": imgsz} if imgsz else {})
    helper.set_model_props(model, meta)
    onnx.save(model, str(path))
    return path


def make_size_teller(path: Path, imgsz: str = "[640, 640]") -> Path:
    """Write a dynamic end-to-end model that finds one box as large as the picture it is handed, and its mean as the score."""
    nodes = [
        helper.make_node("Shape", ["images"], ["shape"], start=2, end=4),
        helper.make_node("Cast", ["shape"], ["sides"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["sides", "swap"], ["corner"]),
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "one"], ["score"]),
        helper.make_node("Concat", ["origin", "corner", "score", "kind"], ["row"], axis=0),
        helper.make_node("Reshape", ["row", "whole"], ["output0"]),
    ]
    constants = {
        "swap": np.array([1, 0]),
        "one": np.array([1]),
        "whole": np.array([1, 1, 6]),
        "origin": np.zeros(2, np.float32),
        "kind": np.zeros(1, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "teller",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, "height", "width"])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 1, 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"names": "{0: 'all'}", "imgsz": imgsz})
    onnx.save(model, str(path))
    return path
