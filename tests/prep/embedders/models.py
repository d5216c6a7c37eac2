"""Small ONNX models for the tests with the inputs and outputs of the real ones: a tagger, CCIP, a face model."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Tag, category, and how much of the picture's mean blue, green and red its score is.
TAGS = [
    ("general", 9, (0.3, 0.3, 0.3)),
    ("1girl", 0, (1.0, 0.0, 1.0)),
    ("no_humans", 0, (0.0, 1.0, 0.0)),
    ("blue_hair", 0, (1.0, 0.0, 0.0)),
    ("red_hair", 0, (0.0, 0.0, 1.0)),
    ("smile", 0, (0.0, 0.0, 1.0)),
]


def _save(nodes: list, shapes: tuple[list, list], constants: dict[str, np.ndarray], path: Path) -> None:
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shapes[0])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shapes[1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))


def make_tagger(folder: Path) -> Path:
    """Write a tagger with the contract of WD: blue pictures are a girl with blue hair, red ones with red hair, green ones nobody."""
    weights = np.array([weight for _, _, weight in TAGS], np.float32).T / np.float32(255)
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["raw"]),
        helper.make_node("Min", ["raw", "one"], ["output"]),
    ]
    constants = {"axes": np.array([1, 2]), "weights": weights, "one": np.array(1, np.float32)}
    _save(nodes, (["batch", 32, 32, 3], ["batch", len(TAGS)]), constants, folder / "model.onnx")
    with (folder / "selected_tags.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows((i, name, category, 100) for i, (name, category, _) in enumerate(TAGS))
    return folder


def make_ccip(folder: Path, side: int = 384) -> Path:
    """Write model_feat.onnx and model_metrics.onnx: features are mean colours, differences 1 minus their cosine, halved."""
    weights = np.random.default_rng(0).normal(size=(3, 768)).astype(np.float32)
    features = [
        helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["output"]),
    ]
    _save(features, (["batch", 3, side, side], ["batch", 768]), {"axes": np.array([2, 3]), "weights": weights}, folder / "model_feat.onnx")
    metrics = [
        helper.make_node("ReduceL2", ["input", "axes"], ["length"], keepdims=1),
        helper.make_node("Div", ["input", "length"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["unit", "turned"], ["cosine"]),
        helper.make_node("Sub", ["one", "cosine"], ["double"]),
        helper.make_node("Mul", ["double", "half"], ["output"]),
    ]
    constants = {"axes": np.array([1]), "one": np.array(1, np.float32), "half": np.array(0.5, np.float32)}
    _save(metrics, (["batch", 768], ["batch", "batch"]), constants, folder / "model_metrics.onnx")
    return folder


def make_faces(path: Path, length: int = 512, side: int = 112, mean: float = 0.0, scale: float = 255.0) -> Path:
    """Write a face model: the picture in 7 x 7 fields, less its mean brightness, turned at random into `length` numbers.

    `mean` and `scale` bring the inputs of the model's kind to about -1..1.
    """
    fields = (side // 16) ** 2 * 3
    weights = np.random.default_rng(0).normal(size=(fields, length)).astype(np.float32)
    weights -= weights.mean(axis=0)
    nodes = [
        helper.make_node("AveragePool", ["input"], ["fields"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Flatten", ["fields"], ["flat"]),
        helper.make_node("Sub", ["flat", "mean"], ["moved"]),
        helper.make_node("Div", ["moved", "scale"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "weights"], ["output"]),
    ]
    constants = {"weights": weights, "mean": np.array(mean, np.float32), "scale": np.array(scale, np.float32)}
    _save(nodes, ([1, 3, side, side], [1, length]), constants, path)
    return path
