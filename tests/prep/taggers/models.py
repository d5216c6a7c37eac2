"""Small ONNX taggers for the tests: one whose scores are mean colours, and one for every row, with that row's exact input and output."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from prep.options import load_object
from prep.taggers import CONTRACTS, TaggerRow
from prep.taggers.contract import Contract

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
CELLS = 4  # a row's model sees means of 4 x 4 cells


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
    _save(graph, folder / "model.onnx")
    write_csv(folder / "selected_tags.csv", [(name, category) for name, category, _ in tags])
    return folder


def make_row(folder: Path, row: TaggerRow, size: int = 64, batch: int | str = "batch") -> tuple[Path, Path]:
    """Write a model and labels that a row would find, with its names of files, layout, outputs and activation, and return both paths.

    Scores are the sigmoid of random weights on the means of cells of the input, through a Reshape; so geometry, order of channels and
    scale all tell. A fixed batch stands in the constant shape of the Reshape, as tf2onnx leaves it in WD v2.
    """
    contract: Contract = load_object(f"{CONTRACTS}:{row.contract}")
    planes = contract.layout == "NCHW"
    cell, rng = size // CELLS, np.random.default_rng(7)
    weights = rng.normal(0, 1, (CELLS * CELLS * 3, len(TAGS))).astype(np.float32) / (contract.affine[0].mean() * 255)
    shape = [batch, 3, size, size] if planes else [batch, size, size, 3]
    flat = [batch, CELLS * CELLS * 3] if isinstance(batch, int) else [-1, CELLS * CELLS * 3]
    nodes = [] if planes else [helper.make_node("Transpose", ["input"], ["planes"], perm=[0, 3, 1, 2])]
    nodes += [
        helper.make_node("AveragePool", ["input" if planes else "planes"], ["cells"], kernel_shape=[cell, cell], strides=[cell, cell]),
        helper.make_node("Reshape", ["cells", "flat"], ["features"]),
        helper.make_node("MatMul", ["features", "weights"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
        helper.make_node("Sub", ["logits", "one"], ["first"]),
    ]
    scores, outputs = ("logits" if contract.logits else "probabilities"), [output for output in contract.outputs if isinstance(output, str)]
    name = outputs[0] if outputs else "output"
    nodes.append(helper.make_node("Identity", [scores], [name]))
    # What the contract names comes behind another output, as in PixAI's and Camie's files.
    given = ["first", name] if outputs else [name]
    constants = {"flat": np.array(flat, np.int64), "weights": weights, "one": np.float32(1)}
    graph = helper.make_graph(
        nodes,
        "tagger",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, [batch, len(TAGS)]) for each in given],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model, labels = folder / Path(row.files[0]).name, folder / Path(row.files[1]).name
    folder.mkdir(parents=True, exist_ok=True)
    _save(graph, model)
    write_labels(labels)
    return model, labels


def write_labels(path: Path) -> None:
    """Write TAGS in the form that a file of that name has."""
    words = {0: "general", 4: "character", 9: "rating"}
    if path.name == "tag_mapping.json":
        rows = {str(place): {"tag": name, "category": words[category].title()} for place, (name, category, _) in enumerate(TAGS)}
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".json":
        mapping = {"idx_to_tag": {str(i): tag[0] for i, tag in enumerate(TAGS)}, "tag_to_category": {tag[0]: words[tag[1]] for tag in TAGS}}
        path.write_text(json.dumps({"dataset_info": {"total_tags": len(TAGS), "tag_mapping": mapping}}), encoding="utf-8")
    elif path.suffix == ".txt":
        path.write_text("\n".join(name for name, _, _ in TAGS) + "\n", encoding="utf-8")
    else:
        write_csv(path, [(name, category) for name, category, _ in TAGS])


def write_csv(path: Path, tags: list) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows((i, name, category, 100) for i, (name, category) in enumerate(tags))


def _save(graph: onnx.GraphProto, path: Path) -> None:
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
