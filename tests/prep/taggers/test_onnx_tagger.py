import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from prep.images import load
from prep.options import UserError
from prep.taggers import LOCAL, TAGGERS, graph, locate
from prep.taggers.onnx_tagger import OnnxTagger
from prep.taggers.precision import compared
from tests.prep.taggers.models import TAGS, make_row, make_tagger

RED = TAGS.index(("red_rose", 0, (0.0, 0.0, 1.0)))
CONTRACTS = ("wd-vit-v3", "wd-vit-v2", "pixai-v0.9", "cl-tagger", "camie-v2", "joytag", "deepdanbooru")
ODD = ((40, 30), (1, 1000), (1000, 1), (64, 64), (90, 17), (3, 5), (64, 63))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def tagger_in(folder: Path, device: str = "cpu", batch: int = 4, **model: object) -> OnnxTagger:
    make_tagger(folder, **model)
    return OnnxTagger(LOCAL, (folder / "model.onnx", folder / "selected_tags.csv"), device, batch)


def row_tagger(folder: Path, name: str, batch: int | str = "batch") -> OnnxTagger:
    return OnnxTagger(TAGGERS[name], make_row(folder, TAGGERS[name], batch=batch), "cpu", 4)


def in_graph(tagger: OnnxTagger, folder: Path, single: bool) -> OnnxTagger:
    """Return the tagger as a GPU would run it."""
    model = tagger.in_graph(single)
    assert model is not None
    (folder / "changed.onnx").write_bytes(model)
    made = OnnxTagger(tagger.row, (folder / "changed.onnx", tagger.labels_path), "cpu", 4)
    made._sessions = type(tagger.sessions)([onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])], tagger.sessions.output)
    made.provider = "CUDAExecutionProvider"  # so that passes are whole batches, filled up
    return made


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_scores_of_every_row_are_those_of_its_own_input_and_activation(tmp_path: Path, name: str) -> None:
    tagger = row_tagger(tmp_path, name)
    image = noise(70, 50)
    scores = tagger.score([tagger.prepare(image)])
    session = onnxruntime.InferenceSession(str(tagger.path), providers=["CPUExecutionProvider"])
    wanted = {"pixai-v0.9": "prediction", "camie-v2": "refined_predictions"}.get(name, "output")
    raw = session.run([wanted], {"input": tagger.contract.tensor(tagger.contract.pixels(image, 64)[None])})[0]
    expected = 1 / (1 + np.exp(-raw)) if name in ("cl-tagger", "camie-v2", "joytag") else raw
    assert scores.dtype == np.float32 and scores.shape == (1, len(TAGS)) and scores.std() > 0.01
    assert np.abs(scores - expected).max() < 1e-6


@pytest.mark.parametrize("fixed", ["batch", 1])
@pytest.mark.parametrize("name", CONTRACTS)
def test_batches_filled_batches_and_other_orders_score_as_one_by_one(tmp_path: Path, name: str, fixed: int | str) -> None:
    tagger = row_tagger(tmp_path, name, fixed)
    prepared = [tagger.prepare(noise(*shape, seed)) for seed, shape in enumerate(ODD)]
    alone = np.concatenate([tagger.score([one]) for one in prepared])
    order = np.random.default_rng(0).permutation(len(prepared))
    for runs in (tagger, in_graph(tagger, tmp_path, fixed == 1)):
        assert np.array_equal([runs.prepare(noise(*ODD[0], 0))], [prepared[0]])
        assert np.abs(runs.score(prepared) - alone).max() < 1e-4
        assert np.abs(runs.score([prepared[i] for i in order]) - alone[order]).max() < 1e-4
    assert np.array_equal(tagger.score([prepared[i] for i in order]), alone[order])  # on a CPU in the last bit
    assert tagger.score([]).shape == (0, len(TAGS))


def test_a_batch_of_pixels_is_a_quarter_of_the_bytes_and_short_ones_are_filled(tmp_path: Path) -> None:
    tagger = in_graph(row_tagger(tmp_path, "joytag"), tmp_path, False)
    node = tagger.sessions.sessions[0].get_inputs()[0]
    assert node.type == "tensor(uint8)" and node.shape[1:] == [64, 64, 3] and tagger.pass_size == 4 and tagger.size == 64
    assert tagger._filled([tagger.prepare(noise(5, 5))], 4).nbytes == 4 * 64 * 64 * 3


def test_a_fixed_batch_is_freed_with_the_shapes_that_are_constant(tmp_path: Path) -> None:
    model, _ = make_row(tmp_path, TAGGERS["wd-moat-v2"], batch=1)
    read = graph.read(model)
    assert graph.proven(graph.free_batch(read), model, (64, 64, 3))
    onnx.save(graph.free_batch(read), str(tmp_path / "free.onnx"))
    shape = onnxruntime.InferenceSession(str(tmp_path / "free.onnx"), providers=["CPUExecutionProvider"]).get_inputs()[0].shape
    assert shape == ["batch", 64, 64, 3]
    only_named = onnx.ModelProto()  # what editing the input alone gives, as peers did
    only_named.CopyFrom(read)
    for value in [only_named.graph.input[0], *only_named.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    assert not graph.proven(only_named, model, (64, 64, 3))


def test_a_model_that_mixes_its_pictures_is_not_freed_but_shared_by_sessions(tmp_path: Path) -> None:
    folder = make_tagger(tmp_path, batch=1)
    model = onnx.load(str(folder / "model.onnx"))
    # The mean over all axes but the last is that of the picture only as long as there is one.
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([0, 1, 2]), "axes"))
    model.graph.node[0].attribute[0].i = 0
    model.graph.node[0].output[0] = "flat_mean"
    model.graph.node.insert(1, helper.make_node("Reshape", ["flat_mean", "row"], ["mean"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 3], np.int64), "row"))
    onnx.save(model, str(folder / "model.onnx"))
    tagger = OnnxTagger(LOCAL, (folder / "model.onnx", folder / "selected_tags.csv"), "cpu", 4)
    assert tagger.in_graph(True) is None
    prepared = [tagger.prepare(noise(20, 20, seed)) for seed in range(5)]
    alone = tagger.score(prepared)
    tagger.sessions.sessions.append(onnxruntime.InferenceSession(str(tagger.path), providers=["CPUExecutionProvider"]))
    assert np.array_equal(tagger.score(prepared), alone)


def test_a_model_in_several_files_or_without_the_package_onnx_is_run_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tagger = row_tagger(tmp_path, "joytag")
    alone = tagger.score([tagger.prepare(noise(9, 9))])
    onnx.save(onnx.load(str(tagger.path)), str(tagger.path), save_as_external_data=True, location="weights.bin", size_threshold=1024)
    split = OnnxTagger(tagger.row, (tagger.path, tagger.labels_path), "cpu")
    assert split.in_graph(False) is None
    assert np.array_equal(split.score([split.prepare(noise(9, 9))]), alone)
    whole = row_tagger(tmp_path / "whole", "joytag")
    assert whole.in_graph(False) is not None
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert whole.in_graph(False) is None


def test_alpha_and_its_white_composite_score_alike(tmp_path: Path) -> None:
    tagger = tagger_in(tmp_path / "tagger")
    Image.new("RGBA", (20, 30), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    scores = tagger.score([tagger.prepare(load(tmp_path / "clear.png")), tagger.prepare(Image.new("RGB", (20, 30), "white"))])
    assert np.array_equal(scores[0], scores[1])


@pytest.mark.parametrize("fixed", [1, 3])
def test_a_model_that_insists_on_its_batch_gets_it(tmp_path: Path, fixed: int) -> None:
    tagger = tagger_in(tmp_path, batch=7)
    free = tagger.score([tagger.prepare(noise(40, 30, seed)) for seed in range(7)])
    make_tagger(tmp_path, batch=fixed)
    again = OnnxTagger(LOCAL, (tmp_path / "model.onnx", tmp_path / "selected_tags.csv"), "cpu", 7)
    assert np.abs(again.score([again.prepare(noise(40, 30, seed)) for seed in range(7)]) - free).max() < 1e-6
    assert again.pass_size == fixed


def test_a_model_that_does_not_fit_its_labels_is_named(tmp_path: Path) -> None:
    tagger = tagger_in(tmp_path, tags=TAGS[:-1])
    with pytest.raises(UserError, match=r"gives 8 scores but selected_tags\.csv beside it names 7 tags"):
        tagger.prepare(noise(8, 8))


def test_a_model_of_another_layout_is_named(tmp_path: Path) -> None:
    model, labels = make_row(tmp_path, TAGGERS["joytag"])
    with pytest.raises(UserError, match=r"takes input of shape \['batch', 3, 64, 64\], not \(pictures, size, size, 3\)"):
        OnnxTagger(LOCAL, (model, labels), "cpu").prepare(noise(8, 8))


def test_a_model_without_the_output_of_its_kind_is_named(tmp_path: Path) -> None:
    files = make_row(tmp_path, TAGGERS["wd-vit-v3"])
    make_tagger(tmp_path)
    model = onnx.load(str(tmp_path / "model.onnx"))
    nodes = [*model.graph.node, helper.make_node("Transpose", ["input"], ["nhwc"], perm=[0, 2, 3, 1])]
    nodes[0].input[0] = "nhwc"
    made = helper.make_graph(
        [nodes[2], *nodes[:2]],
        "x",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 32, 32])],
        list(model.graph.output),
        list(model.graph.initializer),
    )
    made.output[0].name = made.node[-1].output[0] = "embedding"
    onnx.save(helper.make_model(made, opset_imports=model.opset_import, ir_version=9), str(tmp_path / "model.onnx"))
    with pytest.raises(UserError, match="has the outputs embedding and none that holds scores"):
        OnnxTagger(TAGGERS["pixai-v0.9"], files, "cpu").prepare(noise(8, 8))


def test_scores_that_are_no_probabilities_are_refused(tmp_path: Path) -> None:
    for name, scale in (("nan", float("nan")), ("logits", 1.0), ("minus", -1 / 255)):
        tagger = tagger_in(tmp_path / name, scale=scale)
        with pytest.raises(UserError, match="not between 0 and 1"):
            tagger.score([tagger.prepare(noise(8, 8))])


def test_an_infinite_logit_is_no_score(tmp_path: Path) -> None:
    tagger = OnnxTagger(TAGGERS["joytag"], make_row(tmp_path, TAGGERS["joytag"]), "cpu")
    tagger.prepare(noise(8, 8))  # loads it
    with pytest.raises(UserError, match="not between 0 and 1"):
        tagger._checked(np.full((1, len(TAGS)), np.inf, np.float32))


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    tagger = tagger_in(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"git-lfs pointer")
    with pytest.raises(UserError, match=r"model\.onnx cannot be loaded"):
        tagger.prepare(noise(8, 8))


def test_the_located_folder_opens_and_is_known_by_its_content(tmp_path: Path) -> None:
    located = locate(str(make_tagger(tmp_path / "a")))
    assert located.open("cpu", 4).labels.names[RED] == "red_rose"
    assert located.identity == locate(str(make_tagger(tmp_path / "b"))).identity
    assert located.identity != locate(str(make_tagger(tmp_path / "c", scale=1 / 300))).identity


@pytest.mark.parametrize("name", ["pixai-v0.9", "cl-tagger", "camie-v2", "joytag", "deepdanbooru", "wd-vit-v3"])
def test_a_local_folder_is_run_as_the_list_of_tags_in_it_says(tmp_path: Path, name: str) -> None:
    row = TAGGERS[name]
    _, labels = make_row(tmp_path, row)
    if name == "pixai-v0.9":
        lines = labels.read_text(encoding="utf-8").splitlines()
        labels.write_text("\n".join([lines[0] + ",ips", *[line + ",[]" for line in lines[1:]]]), encoding="utf-8")
    located = locate(str(tmp_path))
    assert located.row.contract == row.contract and not located.row.repo
    assert name == "wd-vit-v3" or located.row.general == row.general
    by_row, by_folder = row_tagger(tmp_path / "row", name), located.open("cpu", 4)
    image = noise(33, 44)
    assert np.array_equal(by_row.score([by_row.prepare(image)]), by_folder.score([by_folder.prepare(image)]))


def test_flips_are_counted_at_each_tags_threshold(tmp_path: Path) -> None:
    one, other = tagger_in(tmp_path / "a"), tagger_in(tmp_path / "b", scale=0.9 / 255)
    # blue_sky: 0.38 -> 0.34 crosses 0.35; hatsune_miku: half of that stays below 0.85; ratings have no threshold.
    flips = compared(one, other, [one.prepare(Image.new("RGB", (32, 32), (0, 0, 97)))])
    assert (flips.pictures, flips.tags, flips.flipped, flips.names) == (1, 1, 1, ("blue_sky",))
    assert "1 of 1 tags (100.0%) flip on 1 pictures, most often blue_sky" in flips.sentence("int8")
