"""sample and grid: several LoRAs act at once as their sum does, columns are what was asked for, and mistakes are one sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tests.train.tools.test_base_merge import lora_for
from train.cli import main
from train.export import read_lora, save_lora
from train.tools.grid import columns

pytestmark = pytest.mark.usefixtures("one_thread")


def run(*args: Any) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def pixels(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path), dtype=int) for path in sorted(folder.glob("*.png"))])


@pytest.fixture
def loras(tiny_base: Path, tmp_path: Path) -> list[Path]:
    found = [lora_for(tiny_base, tmp_path / f"{name}.safetensors", 0.3, seed) for seed, name in enumerate(("a", "b"), 1)]
    state, _ = read_lora(found[0])
    save_lora(found[0], state, {"ss_steps": "40", "ss_sd_model_name": str(tiny_base)}, "fp32")
    return found


def test_stacked_loras_draw_what_their_sum_draws(loras: list[Path], tiny_base: Path, tmp_path: Path) -> None:
    same = ("--prompt", "a cat", "--prompt", "a dog", "--count", 2, "--steps", 3, "--seed", 5, "--size", "64x48")
    result = run("sample", loras[0], "--lora", f"{loras[1]}:0.5", *same, "--out", tmp_path / "stack")
    assert result.exit_code == 0 and "4 pictures with a + b × 0.5" in result.output, result.output
    assert run("merge", *loras, "-s", "1,0.5", "-o", tmp_path / "sum.safetensors").exit_code == 0
    assert run("sample", tmp_path / "sum.safetensors", *same, "--base", tiny_base, "--out", tmp_path / "sum").exit_code == 0
    assert run("sample", loras[0], "--weight", 0, *same, "--out", tmp_path / "none").exit_code == 0
    assert run("sample", *same, "--base", tiny_base, "--out", tmp_path / "base").exit_code == 0
    stack, summed, none, base = (pixels(tmp_path / name) for name in ("stack", "sum", "none", "base"))
    assert stack.shape == (4, 48, 64, 3)
    assert np.abs(stack - summed).max() <= 1 and np.abs(none - base).max() <= 1 and np.abs(stack - base).max() > 3
    told = Image.open(tmp_path / "stack" / "01-6.png").text["parameters"]
    assert told.startswith("a dog\nSteps: 3, Sampler: DDIM, CFG scale: 5, Seed: 6") and "Lora: b × 0.5" in told


def test_the_columns_of_a_grid(loras: list[Path], tmp_path: Path) -> None:
    found = columns([str(loras[0]), f"{loras[1]}:0.25"], "0.5,1", True)
    assert [label for label, _ in found] == ["base alone", "a × 0.5\n40 steps", "a\n40 steps", "b × 0.25"]
    assert [[lora.weight for lora in acting] for _, acting in found] == [[], [0.5], [1.0], [0.25]]
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / "b.safetensors"
    twin.write_bytes(loras[1].read_bytes())
    assert [label for label, _ in columns([str(loras[1]), str(twin)], "", False)] == [f"{tmp_path.name}/b", "other/b"]
    further = tmp_path / "more" / "other" / "b.safetensors"
    further.parent.mkdir(parents=True)
    further.write_bytes(twin.read_bytes())
    assert [label for label, _ in columns([str(twin), str(further)], "", False)] == [f"{tmp_path.name}/other/b", "more/other/b"]


def test_grid_draws_columns_and_rows(loras: list[Path], tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("# two prompts\na cat --d 3 --l 1\na dog\n", encoding="utf-8")
    result = run("grid", *loras, "--prompts", tmp_path / "p.txt", "--steps", 2, "--out", tmp_path / "out" / "grid.png")
    assert result.exit_code == 0 and "show 3 rows of 3" in result.output, result.output
    text = (tmp_path / "out" / "grid.html").read_text(encoding="utf-8")
    assert text.count("<img") == 9 and "a cat\nseed 3" in text and "a dog\nseed 1" in text
    width, height = Image.open(tmp_path / "out" / "grid.png").size
    assert width > 3 * 192 and height > 3 * 192


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("grid", "{1}", "--prompts", "x"), "a base that it does not name"),
        (("grid", "{0}", "--prompts", " | "), "holds no prompt"),
        (("grid", "{0}", "--prompts", "x", "--weights", "much"), "is no list of numbers"),
        (("grid", "{0}", "--prompts", "x", "--out", "x.jpg"), "does not end in .png"),
        (("grid", "{0}", "--prompts", "nothing.txt"), "cannot be read"),
        (("sample", "nothing.safetensors:2", "--prompt", "x"), "there is no file"),
        (("sample", "{0}", "--prompt", "x", "--size", "wide"), "is no size"),
        (("sample", "{0}", "--prompt", "x", "--size", "63"), "is not a multiple of"),
    ],
)
def test_mistakes_are_one_sentence(loras: list[Path], args: tuple[str, ...], words: str) -> None:
    result = run(*(arg.format(*loras) for arg in args))
    assert result.exit_code == 1 and words in result.output and "Traceback" not in result.output, result.output
