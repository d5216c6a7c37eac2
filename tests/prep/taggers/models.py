"""Small ONNX taggers for the tests: each label's score is a fixed function of the picture's mean blue, green and red."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TAGS = [
    ("general", 9, (0.2, 0.1, 0.1)),
    ("sensitive", 9, (0.1, 0.1, 0.2)),
    ("1girl", 0, (0.3, 0.3, 0.3)),
    ("blue_sky", 0, (1.0, 0.0, 0.0)),
    ("green_grass", 0, (0.0, 1.0, 0.0)),
    ("red_rose", 0, (0.0, 0.0, 1.0)),
    ("^_^", 0, (0.5, 0.5, 0.0)),
    ("hatsune_miku", 4, (0.0, 0.5, 0.5)),
]


def make_tagger(folder: Path, size: int = 32, batch: int | str = "batch", tags: list = TAGS, scale: float = 1 / 255) -> Path:
    """Write model.onnx and selected_tags.csv with the WD contract; `batch` an int makes it fixed, as in WD v2."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = np.array([weight for _, _, weight in TAGS], np.float32).T * np.float32(scale)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["output"]),
        ],
        "tagger",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, size, size, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, len(TAGS)])],
        [numpy_helper.from_array(np.array([1, 2]), "axes"), numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(folder / "model.onnx"))
    with (folder / "selected_tags.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows((i, name, category, 100) for i, (name, category, _) in enumerate(tags))
    return folder
