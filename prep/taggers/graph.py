"""Graph: changes to a tagger's ONNX graph that make it faster and leave its scores: a free batch size, and pixels as input."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prep.taggers.sessions import open_session

if TYPE_CHECKING:
    from prep.taggers.contract import Contract

LARGEST = 2**31 - 2**20  # protobuf's limit for a model in one piece
EQUAL = 1e-4  # scores of a batch and one by one differ by less; measured on ViT-B, fp32: 1e-6
PIXELS = "pixels"


def read(path: Path) -> Any:
    """Return the model as onnx's ModelProto, or None if it cannot be changed: no package onnx, or a model in several files."""
    try:
        import onnx
    except ImportError:  # it is in the extra `onnx`; without it the model is run as it is
        return None
    if path.stat().st_size > LARGEST:
        return None
    model = onnx.load(str(path), load_external_data=False)
    split = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    return None if split else model


def free_batch(model: Any) -> Any:
    """Return a copy of a model of fixed batch 1 that takes batches of any size.

    The axis of input and outputs is given a name, and in every constant shape of a Reshape the first number is left open, because
    that is where the batch lies; the others are those that they are for one picture. That this was right is for `proven` to say.
    """
    import onnx
    from onnx import numpy_helper

    free = onnx.ModelProto()
    free.CopyFrom(onnx.shape_inference.infer_shapes(model))
    graph = free.graph
    shapes = {value.name: _shape(value) for value in [*graph.value_info, *graph.output]}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT64}
    constants |= {node.output[0]: _constant(node) for node in graph.node if node.op_type == "Constant" and _constant(node) is not None}
    for number, node in enumerate(graph.node):
        static = shapes.get(node.output[0]) if node.op_type == "Reshape" and node.input[1] in constants else None
        if static:
            name = f"{node.output[0]}_free_shape_{number}"
            graph.initializer.append(numpy_helper.from_array(np.array([-1, *static[1:]], np.int64), name))
            node.input[1] = name
    for value in [graph.input[0], *graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.value_info[:]  # they still say 1
    return free


def take_pixels(model: Any, contract: Contract) -> Any:
    """Return a copy of a model that takes uint8 (N, size, size, 3) and casts, scales and transposes them itself.

    A quarter of the bytes goes to the GPU, and no core spends time on floats.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph, old = made.graph, made.graph.input[0]
    factor, shift = contract.affine
    steps = [helper.make_node("Cast", [PIXELS], ["pixels_float"], to=TensorProto.FLOAT)]
    last = "pixels_float"
    if (factor != 1).any() or (shift != 0).any():
        graph.initializer.extend([numpy_helper.from_array(factor, "pixels_factor"), numpy_helper.from_array(shift, "pixels_shift")])
        steps += [
            helper.make_node("Mul", [last, "pixels_factor"], ["pixels_scaled"]),
            helper.make_node("Add", ["pixels_scaled", "pixels_shift"], ["pixels_in"]),
        ]
        last = "pixels_in"
    if contract.layout == "NCHW":
        steps.append(helper.make_node("Transpose", [last], ["pixels_planes"], perm=[0, 3, 1, 2]))
        last = "pixels_planes"
    for node in graph.node:
        node.input[:] = [last if name == old.name else name for name in node.input]
    nodes = [*steps, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    dims = old.type.tensor_type.shape.dim
    batch = dims[0].dim_param or dims[0].dim_value
    sides = [dim.dim_value or contract.size for dim in (dims[1:3] if contract.layout == "NHWC" else dims[2:])]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, [batch, *sides, 3]))
    return made


def proven(model: Any, original: Path, shape: tuple[int, int, int], pictures: int = 3) -> bool:
    """Say whether a model of free batch gives for several random pictures what the original gives for each alone; `shape` is one input's."""
    from prep.options import UserError

    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (pictures, *shape)).astype(np.float32)
    try:
        alone, together = open_session(original, "cpu"), open_session(model.SerializeToString(), "cpu", name=str(original))
        expected = [alone.run(None, {alone.get_inputs()[0].name: batch[i : i + 1]}) for i in range(pictures)]
        found = together.run(None, {together.get_inputs()[0].name: batch})
    except UserError:
        return False
    except Exception:  # onnxruntime's own classes: a shape that does not fit
        return False
    return all(
        values.shape[0] == pictures and np.abs(values[i] - single[place][0]).max() <= EQUAL
        for i, single in enumerate(expected)
        for place, values in enumerate(found)
    )


def _shape(value: Any) -> list[int] | None:
    """Return the shape of a value if every side of it is known."""
    dims = value.type.tensor_type.shape.dim
    sides = [dim.dim_value for dim in dims]
    return sides if sides and all(dim.HasField("dim_value") and dim.dim_value > 0 for dim in dims) else None


def _constant(node: Any) -> np.ndarray | None:
    from onnx import numpy_helper

    return next((numpy_helper.to_array(a.t) for a in node.attribute if a.name == "value"), None)
