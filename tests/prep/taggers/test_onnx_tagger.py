from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prep.images import load
from prep.options import UserError
from prep.taggers import locate, wd
from prep.taggers.wd import WDTagger, read_labels, white_square
from tests.prep.taggers.models import TAGS, make_tagger

RED = TAGS.index(("red_rose", 0, (0.0, 0.0, 1.0)))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def tagger_in(folder: Path, device: str = "cpu", batch: int = 4, **model: object) -> WDTagger:
    make_tagger(folder, **model)
    return WDTagger((folder / "model.onnx", folder / "selected_tags.csv"), device, batch)


def padded_then_resized(image: Image.Image, size: int) -> Image.Image:
    side = max(image.size)
    square = Image.new("RGB", (side, side), (255, 255, 255))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.resize((size, size), Image.Resampling.BICUBIC) if side != size else square


def test_a_picture_of_the_models_size_is_not_resampled() -> None:
    image = noise(448, 448)
    assert np.array_equal(np.asarray(white_square(image, 448)), np.asarray(image))


@pytest.mark.parametrize("shape", [(1, 1000), (1000, 1)])
def test_a_thin_line_lands_in_the_middle(shape: tuple[int, int]) -> None:
    square = np.asarray(white_square(Image.new("RGB", shape, "black"), 448)).astype(int)
    across = square[224] if shape[0] == 1 else square[:, 224]
    dark = np.flatnonzero(across[:, 0] < 255)
    # One dark pixel of 1000 at index 499 is spread by the bicubic filter around (499.5 / 1000) * 448 = 223.8, and keeps its weight.
    assert set(dark) <= {221, 222, 223, 224, 225, 226}
    assert 0.3 * 255 < (255 - across[:, 0]).sum() < 0.6 * 255
    assert (square[0, 0] == 255).all() and (square[-1, -1] == 255).all()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(8, 40), st.integers(1, 9))
def test_the_square_is_that_of_padding_and_resizing_at_once(width: int, height: int, size: int, band: int) -> None:
    image = noise(width, height, seed=width * 64 + height)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wd, "BAND", band)
        assert np.array_equal(np.asarray(white_square(image, size)), np.asarray(padded_then_resized(image, size)))


def test_channels_are_bgr_and_values_are_0_to_255(tmp_path: Path) -> None:
    tagger = tagger_in(tmp_path)
    prepared = tagger.prepare(Image.new("RGB", (32, 32), (255, 0, 0)))
    assert prepared.dtype == np.uint8 and prepared.shape == (32, 32, 3)
    assert (prepared == [0, 0, 255]).all()
    scores = tagger.score([prepared])
    assert scores.dtype == np.float32
    assert np.allclose(scores[0], [weight[2] for _, _, weight in TAGS], atol=1e-6)


def test_alpha_and_its_white_composite_score_alike(tmp_path: Path) -> None:
    tagger = tagger_in(tmp_path / "tagger")
    Image.new("RGBA", (20, 30), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    scores = tagger.score([tagger.prepare(load(tmp_path / "clear.png")), tagger.prepare(Image.new("RGB", (20, 30), "white"))])
    assert np.array_equal(scores[0], scores[1])


@pytest.mark.parametrize("fixed", ["batch", 1, 3])
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_batches_of_any_size_equal_one_by_one(tmp_path: Path, fixed: int | str, batch: int) -> None:
    tagger = tagger_in(tmp_path, batch=batch)
    make_tagger(tmp_path, batch=fixed)
    prepared = [tagger.prepare(noise(40, 30, seed)) for seed in range(7)]
    together = tagger.score(prepared)
    assert together.shape == (7, len(TAGS))
    assert np.abs(together - np.concatenate([tagger.score([one]) for one in prepared])).max() < 1e-6
    assert tagger.score([]).shape == (0, len(TAGS))


def test_a_model_that_does_not_fit_its_labels_is_named(tmp_path: Path) -> None:
    tagger = tagger_in(tmp_path, tags=TAGS[:-1])
    with pytest.raises(UserError, match=r"gives 8 scores but .* names 7 tags"):
        tagger.prepare(noise(8, 8))


def test_scores_that_are_no_probabilities_are_refused(tmp_path: Path) -> None:
    for name, scale in (("nan", float("nan")), ("logits", 1.0), ("minus", -1 / 255)):
        tagger = tagger_in(tmp_path / name, scale=scale)
        with pytest.raises(UserError, match="not between 0 and 1"):
            tagger.score([tagger.prepare(noise(8, 8))])


def test_cuda_that_was_asked_for_and_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = onnxruntime.InferenceSession(str(make_tagger(tmp_path) / "model.onnx"), providers=["CPUExecutionProvider"])
    # What onnxruntime-gpu does on a machine without a GPU: it lists CUDA, then makes a session on the CPU.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *args, **kwargs: session)
    with pytest.raises(UserError, match="cannot use CUDA"):
        tagger_in(tmp_path, "cuda").prepare(noise(8, 8))
    tagger = tagger_in(tmp_path, "auto")
    tagger.prepare(noise(8, 8))
    assert tagger.provider == "CPUExecutionProvider"


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    tagger = tagger_in(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"git-lfs pointer")
    with pytest.raises(UserError, match=r"model\.onnx cannot be loaded"):
        tagger.prepare(noise(8, 8))


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "tag_id,name,category,count\n", 'tag_id,name,category,count\n1,"a,b",0,3\n',
                                  "tag_id,name,category,count\n1,a,0,3\n2,a,0,3\n"])
def test_a_list_of_tags_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "selected_tags.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"selected_tags\.csv"):
        read_labels(path)


def test_odd_names_survive_the_list(tmp_path: Path) -> None:
    names = [":d", ";)", r"\m/", "don't", "a&b", 'say_"hi"', "!?", "||_||", "(o)_(o)"]
    make_tagger(tmp_path, tags=[(name, 0, None) for name in names])
    assert read_labels(tmp_path / "selected_tags.csv").names == tuple(names)


def test_the_located_folder_opens_and_is_known_by_its_content(tmp_path: Path) -> None:
    located = locate(str(make_tagger(tmp_path / "a")))
    assert located.open("cpu", 4).labels.names[RED] == "red_rose"
    assert located.identity == locate(str(make_tagger(tmp_path / "b"))).identity
    assert located.identity != locate(str(make_tagger(tmp_path / "c", scale=1 / 300))).identity
