"""Text: lines are found at their place and read, also pale ones, and nothing is read where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from prep.detectors.faint import faint_layer
from prep.detectors.text import Line, find_text, reader
from prep.options import UserError


def written(text: str, at: tuple[int, int], size: int = 28, level: int = 0, ground: int = 235) -> Image.Image:
    image = Image.new("RGB", (512, 320), (ground, ground, ground))
    ImageDraw.Draw(image).text(at, text, fill=(level, level, level), font=ImageFont.load_default(size))
    return image


@pytest.mark.parametrize("at", [(20, 20), (180, 140), (200, 280)])
def test_a_line_is_read_at_its_place(at: tuple[int, int]) -> None:
    (line,) = [line for line in reader().lines(written("www.mira-art.com", at)) if line.letters > 3]
    assert line.text == "www.mira-art.com" and line.read > 0.9
    box = line.box("text", (512, 320))
    assert at[0] - 12 <= box.x0 <= at[0] + 8 and at[1] - 12 <= box.y0 <= at[1] + 14
    assert box.y1 - box.y0 < 60 and 180 < box.x1 - box.x0 < 300


def test_a_tilted_line_is_read_and_its_height_is_that_of_the_letters() -> None:
    image = written("haruka studio", (150, 140)).rotate(20, Image.Resampling.BICUBIC, fillcolor=(235, 235, 235))
    line = max(reader().lines(image), key=lambda line: line.read * line.letters)
    assert line.text.replace(" ", "") == "harukastudio"
    assert line.height < 60 < line.box("", image.size).y1 - line.box("", image.size).y0


def test_pale_letters_over_strong_lines_are_seen_in_the_faint_layer_only() -> None:
    rng = np.random.default_rng(1)
    ground = np.kron(rng.integers(0, 2, (8, 16)), np.ones((40, 40))) * 200 + 20  # strong edges everywhere
    cover = np.asarray(written("PREVIEW", (120, 120), 64, 255, 0).convert("L").resize((640, 320))) / 255
    mixed = ground + (255 - ground) * cover * 0.3
    layer = faint_layer(np.repeat(mixed.round().astype(np.uint8)[..., None], 3, axis=2), 40)
    ink, grid = cover > 0.5, np.abs(np.diff(ground, axis=1, append=ground[:, -1:])) > 0
    assert layer.shape == (320, 640, 3)
    assert np.abs(np.diff(layer[..., 0].astype(int), axis=1, append=0))[grid & ~ink].mean() < 20  # 200 levels before
    assert layer[ink].mean() > layer[~ink].mean() + 20


def test_nothing_is_read_in_flat_and_noisy_pictures() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8))
    flat = Image.new("RGB", (200, 200), "white")
    assert find_text([flat]) == [[]]
    assert [line for line in reader().lines(noise) if line.read > 0.6 and line.letters > 2] == []


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (33, 31)])
def test_extreme_sizes(size: tuple[int, int]) -> None:
    assert find_text([Image.new("RGB", size)]) == [[]]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(-50, 250), st.floats(-50, 250)), min_size=4, max_size=4), st.integers(1, 200), st.integers(1, 200))
def test_a_box_is_never_empty_and_its_start_is_in_the_picture(points: list[tuple[float, float]], width: int, height: int) -> None:
    box = Line(tuple(points), 1.0).box("text", (width, height))
    assert 0 <= box.x0 < box.x1 and 0 <= box.y0 < box.y1


def test_a_folder_without_models_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder with a \*det\*\.onnx"):
        reader(str(tmp_path))


def test_heavy_packages_are_imported_on_use_only() -> None:
    heavy = "{'cv2', 'torch', 'onnxruntime', 'rapidocr'} & set(sys.modules)"
    code = f"import sys, prep.detectors.text, prep.marks, prep.recheck, prep.inpainters.lama, prep.inpainters.classic; sys.exit(str({heavy} or ''))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stderr.strip() == ""
