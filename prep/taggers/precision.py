"""Precision: a tagger's model in half floats or 8-bit integers, with a report of the tags that flip against the original."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from prep.options import UserError, atomic_write
from prep.processor import multiplies_bytes
from prep.taggers import Located
from prep.taggers.hub import sha256_of
from prep.taggers.onnx_tagger import OnnxTagger

SAMPLE = 32  # pictures to calibrate with, and as many others to report on
LISTED = 5  # tags named in the report
PRECISIONS = ("fp32", "fp16", "int8")
MATRICES = ("Conv", "MatMul", "Gemm")  # where the time goes


@dataclass(frozen=True)
class Flips:
    """How a model of less precision differs from the original on some pictures."""

    pictures: int
    tags: int  # at or above their threshold in the original
    flipped: int  # above in one and below in the other
    largest: float  # difference of a score
    names: tuple[str, ...]  # those that flip most often

    def sentence(self, precision: str) -> str:
        share = self.flipped / max(1, self.tags)
        most = f", most often {', '.join(self.names)}" if self.names else ""
        flipped = f"{self.flipped} of {self.tags} tags ({share:.1%}) flip on {self.pictures} pictures{most}"
        return f"{precision}: {flipped}; scores differ by {self.largest:.3f} at most"


def lighter(located: Located, precision: str, folder: Path, samples: Iterator[Any]) -> tuple[Located, str]:
    """Return the tagger in that precision, and a sentence on the tags that flip; the model is made once and kept in `folder`.

    `samples` are RGB pictures of the data set, drawn from only if the model is still to be made; raises UserError if it cannot be.
    """
    if precision == "fp32":
        return located, ""
    made = folder / f"{located.identity.replace('/', '--').replace('@', '-')}-{precision}.onnx"
    report = made.with_suffix(".json")
    if not made.exists() or not report.exists():
        original = OnnxTagger(located.row, located.files, "cpu")
        prepared = [original.prepare(image) for image in samples]
        if not prepared:
            raise UserError(f"{precision} needs pictures that can be read, to compare it with the original; give --precision fp32")
        folder.mkdir(parents=True, exist_ok=True)
        _make(original, precision, prepared[::2], made)
        held_out = prepared[1::2] or prepared
        flips = compared(original, OnnxTagger(located.row, (made, located.files[1]), "cpu"), held_out)
        atomic_write(report, json.dumps(asdict(flips), indent=1, ensure_ascii=False) + "\n")
    flips = Flips(**json.loads(report.read_text(encoding="utf-8")))
    # What int8 gives depends on the pictures it was calibrated with, so its scores are told apart by the file itself.
    identity = f"{located.identity}+{precision}-{sha256_of(made)[:16]}"
    return replace(located, files=(made, located.files[1]), identity=identity), flips.sentence(precision)


def compared(original: OnnxTagger, other: OnnxTagger, prepared: Sequence[np.ndarray]) -> Flips:
    """Score pictures with both and count the tags that flip at their thresholds; ratings have none."""
    labels = original.labels
    limits = np.array([original.row.threshold(category) for category in labels.categories])
    limits[[category == "rating" for category in labels.categories]] = np.inf
    before, after = original.score(prepared), other.score(prepared)
    flipped = (before >= limits) != (after >= limits)
    often = Counter({labels.names[place]: int(count) for place, count in enumerate(flipped.sum(axis=0)) if count})
    largest = round(float(np.abs(before - after).max()), 4)
    return Flips(len(prepared), int((before >= limits).sum()), int(flipped.sum()), largest, tuple(name for name, _ in often.most_common(LISTED)))


def _make(original: OnnxTagger, precision: str, prepared: Sequence[np.ndarray], path: Path) -> None:
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise UserError(f"--precision {precision} needs the package onnx; run `pip install onnx`, or give --precision fp32") from None
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-", suffix=".onnx")
    os.close(handle)
    try:
        MAKERS[precision](original, prepared, Path(name))
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _half(original: OnnxTagger, prepared: Sequence[np.ndarray], path: Path) -> None:
    """Write the model with half floats inside and floats at its ends."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(str(original.path))
    onnx.save(convert_float_to_float16(model, keep_io_types=True), str(path))


def _bytes(original: OnnxTagger, prepared: Sequence[np.ndarray], path: Path) -> None:
    """Write the model with 8-bit weights and activations, the ranges of these taken from the prepared pictures.

    Ranges are fixed here and not found anew in every pass, because those would depend on which pictures share a batch.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = original.sessions.input

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(prepared)

        def get_next(self) -> dict[str, np.ndarray] | None:
            pixels = next(self.left, None)
            return None if pixels is None else {name: original.contract.tensor(pixels[None])}

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tmp-") as folder:
        simple = Path(folder) / "simple.onnx"
        quant_pre_process(str(original.path), str(simple), skip_symbolic_shape=True)
        graph = onnx.load(str(simple), load_external_data=False).graph
        quantize_static(
            str(simple),
            str(path),
            Pictures(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(MATRICES),
            nodes_to_exclude=_kept_whole(graph),
            per_channel=True,
            reduce_range=not multiplies_bytes(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
        )


def _kept_whole(graph: Any) -> list[str]:
    """Name the nodes that keep their floats, because it costs no time: the first convolution (pixels), the last matrix (tags), and attention.

    Measured on ViT-B, two cores with AVX-512 VNNI: 0.78 s a picture with attention in bytes and without, 2.27 s in floats.
    """
    weights = {tensor.name for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type in MATRICES]
    ends = [next((n for n in nodes if n.op_type == "Conv"), None), next((n for n in reversed(nodes) if n.op_type != "Conv"), None)]
    return [node.name for node in nodes if node in ends or not weights.intersection(node.input)]


MAKERS = {"fp16": _half, "int8": _bytes}
