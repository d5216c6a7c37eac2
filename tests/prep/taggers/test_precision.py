from pathlib import Path

import onnx
import pytest
from PIL import Image

from pipelines.pocket import drawings
from prep.options import UserError
from prep.processor import multiplies_bytes
from prep.taggers import locate
from prep.taggers.precision import lighter


def test_the_pocket_tagger_in_bytes_flips_hardly_a_tag(tmp_path: Path) -> None:
    fresh = [Image.fromarray(pixels) for pixels in drawings.make(64, 77, marks=True).pixels]
    located = locate("pocket")
    made, sentence = lighter(located, "int8", tmp_path, iter(fresh))
    assert made.identity.startswith(f"{located.identity}+int8-") and made.files[1] == located.files[1] and made.row is located.row
    share = float(sentence.split("(")[1].split("%")[0])
    assert share <= 1 and "on 32 pictures" in sentence
    nodes = onnx.load(str(made.files[0])).graph.node
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    dequantized = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    assert sum(node.input[0] in dequantized for node in convolutions) == len(convolutions) - 1
    assert not any(node.input[0] in dequantized for node in nodes if node.op_type == "Gemm")
    again, same = lighter(located, "int8", tmp_path, iter(()))
    assert again == made and same == sentence
    assert not list(tmp_path.glob(".tmp-*"))


def test_without_pictures_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="int8 needs pictures"):
        lighter(locate("pocket"), "int8", tmp_path, iter(()))
    assert lighter(locate("pocket"), "fp32", tmp_path, iter(())) == (locate("pocket"), "")


def test_what_the_processor_can_do_is_read_from_its_flags(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("flags : fpu sse2 avx2\n")
    (tmp_path / "new").write_text("flags : fpu avx512_vnni\n")
    assert not multiplies_bytes(tmp_path / "old") and multiplies_bytes(tmp_path / "new") and not multiplies_bytes(tmp_path / "none")
