"""Inpainters: what is outside of the hole stays, what is inside is made from what is around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prep.inpainters import inpainter
from prep.inpainters.lama import Lama, _window
from prep.options import UserError


def slope(width: int = 96, height: int = 64) -> Image.Image:
    row = np.linspace(0, 255, width)
    return Image.fromarray(np.repeat(np.repeat(row[None, :, None], height, 0), 3, 2).astype(np.uint8))


def hole(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    image = Image.new("L", size)
    image.paste(255, box)
    return image


def network(folder: Path, side: int | None, scale: float) -> Path:
    """Make a model with LaMa's contract that fills the hole with half grey."""
    import onnx
    from onnx import TensorProto, helper

    def value(name: str, channels: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, side or "height", side or "width"])

    nodes = [
        helper.make_node("Sub", ["one", "mask"], ["rest"]),
        helper.make_node("Mul", ["image", "rest"], ["seen"]),
        helper.make_node("Mul", ["mask", "grey"], ["fill"]),
        helper.make_node("Add", ["seen", "fill"], ["sum"]),
        helper.make_node("Mul", ["sum", "scale"], ["output"]),
    ]
    numbers = [helper.make_tensor(name, TensorProto.FLOAT, [], [number]) for name, number in (("one", 1.0), ("grey", 0.5), ("scale", scale))]
    graph = helper.make_graph(nodes, "inpainter", [value("image", 3), value("mask", 1)], [value("output", 3)], numbers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("name", ["telea", "ns"])
def test_the_hole_is_filled_from_around_it(name: str) -> None:
    clean = slope()
    dirty = clean.copy()
    gap = hole(clean.size, (40, 20, 50, 26))
    dirty.paste((255, 0, 255), (40, 20, 50, 26))
    mended = np.asarray(inpainter(name)(dirty, gap)).astype(int)
    inside = np.asarray(gap) > 0
    assert np.abs(mended - np.asarray(clean).astype(int))[inside].max() < 16
    assert (mended[~inside] == np.asarray(clean)[~inside]).all()


@pytest.mark.parametrize("side", [None, 64])
@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_a_network_fills_the_hole_and_nothing_else(tmp_path: Path, side: int | None, scale: float) -> None:
    clean, gap = slope(700, 300), hole((700, 300), (400, 200, 440, 220))
    network(tmp_path, side, scale)
    mended = np.asarray(inpainter(str(tmp_path), "cpu")(clean, gap)).astype(int)
    inside = np.asarray(gap) > 0
    assert np.abs(mended[inside] - 128).max() <= 8  # resizing mixes in some of what is around
    assert (mended[~inside] == np.asarray(clean)[~inside]).all()


def test_a_picture_without_a_hole_needs_no_network(tmp_path: Path) -> None:
    assert Lama(tmp_path / "none.onnx")(slope(), Image.new("L", (96, 64))) == slope()


@settings(max_examples=100)
@given(st.data(), st.integers(1, 2000), st.integers(1, 2000))
def test_the_window_holds_the_hole_and_lies_in_the_picture(data: st.DataObject, width: int, height: int) -> None:
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = x0, y0, data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    window = _window(box, (width, height))
    assert 0 <= window[0] <= box[0] and box[2] <= window[2] <= width
    assert 0 <= window[1] <= box[1] and box[3] <= window[3] <= height


def test_what_is_no_inpainter_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither an inpainter nor a model file"):
        inpainter(str(tmp_path / "x.onnx"))
    data = Path(__file__).parents[3] / "prep/detectors/data/ppocr_v6_tiny_det.onnx"
    with pytest.raises(UserError, match="no inpainter"):
        inpainter(str(data))(slope(), hole((96, 64), (1, 1, 5, 5)))
