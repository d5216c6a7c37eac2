"""Preprocessing of every row against what the model's own code does, written here in numpy and whole-picture PIL."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prep.images import load
from prep.options import load_object
from prep.taggers import CONTRACTS, TAGGERS
from prep.taggers import contract as contracts
from prep.taggers.contract import Contract

Filter = Image.Resampling
ROWS = {
    name: load_object(f"{CONTRACTS}:{TAGGERS[name].contract}")
    for name in ("wd-vit-v3", "pixai-v0.9", "cl-tagger", "camie-v2", "joytag", "deepdanbooru")
}


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def square(image: Image.Image, size: int, resample: Filter = Filter.BICUBIC) -> np.ndarray:
    side = max(image.size)
    canvas = Image.new("RGB", (side, side), (255, 255, 255))
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(canvas.resize((size, size), resample) if side != size else canvas, np.float32)


def fit(image: Image.Image, size: int, colour: float | tuple[int, int, int], resample: Filter, whole: type[int] | type[round]) -> np.ndarray:
    scale = size / max(image.size)
    width, height = max(1, whole(image.width * scale)), max(1, whole(image.height * scale))
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = colour
    left, top = (size - width) // 2, (size - height) // 2
    canvas[top : top + height, left : left + width] = np.asarray(image.resize((width, height), resample))
    return canvas


def planes(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(2, 0, 1)


# Row -> what the model's author feeds it, at a given size.
REFERENCE = {
    "wd-vit-v3": lambda image, size: square(image, size)[:, :, ::-1],
    "pixai-v0.9": lambda image, size: planes(np.asarray(image.resize((size, size), Filter.BILINEAR), np.float32) / 255 * 2 - 1),
    "cl-tagger": lambda image, size: planes(square(image, size)[:, :, ::-1] / 127.5 - 1),
    "camie-v2": lambda image, size: planes(
        (fit(image, size, (124, 116, 104), Filter.LANCZOS, round) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    ),
    "joytag": lambda image, size: planes((square(image, size) / 255 - (0.48145466, 0.4578275, 0.40821073)) / (0.26862954, 0.26130258, 0.27577711)),
    "deepdanbooru": lambda image, size: fit(image, size, 0, Filter.BICUBIC, int) / 255,
}


def test_every_contract_of_the_table_is_compared() -> None:
    assert set(REFERENCE) == set(ROWS)
    assert {row.contract for row in TAGGERS.values()} == {TAGGERS[name].contract for name in ROWS}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("shape", [(1, 1000), (1000, 1), (448, 448), (512, 512), (300, 700), (701, 333), (5, 4), (64, 64)])
def test_the_input_is_that_of_the_models_own_code(name: str, shape: tuple[int, int]) -> None:
    contract, image = ROWS[name], noise(*shape)
    size = contract.size or 448
    found = contract.tensor(contract.pixels(image, size)[None])
    assert found.dtype == np.float32 and found.shape == ((1, size, size, 3) if contract.layout == "NHWC" else (1, 3, size, size))
    assert np.abs(found[0] - REFERENCE[name](image, size)).max() < 1e-5 * max(1, np.abs(found).max())


@pytest.mark.parametrize("name", ROWS)
def test_a_picture_of_the_models_size_is_not_resampled(name: str) -> None:
    contract = ROWS[name]
    size = contract.size or 448
    image = noise(size, size)
    pixels = contract.pixels(image, size)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels[:, :, ::-1] if contract.channels == "BGR" else pixels, np.asarray(image))


@pytest.mark.parametrize("shape", [(1, 1000), (1000, 1)])
def test_a_thin_line_lands_in_the_middle(shape: tuple[int, int]) -> None:
    seen = contracts.WD.pixels(Image.new("RGB", shape, "black"), 448).astype(int)
    across = seen[224] if shape[0] == 1 else seen[:, 224]
    dark = np.flatnonzero(across[:, 0] < 255)
    # One dark pixel of 1000 at index 499 is spread by the bicubic filter around (499.5 / 1000) * 448 = 223.8, and keeps its weight.
    assert set(dark) <= {221, 222, 223, 224, 225, 226}
    assert 0.3 * 255 < (255 - across[:, 0]).sum() < 0.6 * 255
    assert (seen[0, 0] == 255).all() and (seen[-1, -1] == 255).all()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(8, 40), st.integers(1, 9))
def test_bands_change_no_pixel(width: int, height: int, size: int, band: int) -> None:
    image = noise(width, height, seed=width * 64 + height)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contracts, "BAND", band)
        assert np.array_equal(contracts.WD.pixels(image, size)[:, :, ::-1], square(image, size))


@given(st.integers(1, 2000), st.integers(1, 2000), st.sampled_from(sorted(contracts.SHAPES)))
def test_every_shape_gives_a_square_of_the_size(width: int, height: int, shape: str) -> None:
    assert contracts.SHAPES[shape](Image.new("RGB", (width, height)), 32, Contract()).size == (32, 32)


def test_what_the_file_holds_is_seen_upright_and_on_white(tmp_path: Path) -> None:
    image = noise(30, 20).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    image.info["transparency"] = 0
    image.save(tmp_path / "palette.png", transparency=0)
    clear = np.asarray(image) == 0
    expected = np.where(clear[:, :, None], 255, np.asarray(image.convert("RGB"))).astype(np.uint8)
    assert clear.any()
    assert np.array_equal(contracts.WD.pixels(load(tmp_path / "palette.png"), 448), contracts.WD.pixels(Image.fromarray(expected), 448))
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(30, 20).save(tmp_path / "turned.png", exif=exif)
    upright = noise(30, 20).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(contracts.WD.pixels(load(tmp_path / "turned.png"), 448), contracts.WD.pixels(upright, 448))


def test_a_shape_that_is_none_of_the_contracts_has_no_side() -> None:
    assert contracts.WD.side(["batch", 448, 448, 3]) == 448 and contracts.JOYTAG.side([1, 3, 448, 448]) == 448
    assert contracts.CAMIE.side(["batch", 3, "height", "width"]) == 512
    for shape in ([1, 3, 448, 448], [1, 448, 224, 3], [448, 448, 3], ["n", "h", "w", 3]):
        assert contracts.WD.side(shape) == 0
