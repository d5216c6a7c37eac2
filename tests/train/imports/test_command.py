"""`train import`: what it writes, what it refuses, and the tree that it makes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from prep.options import read_settings
from prep.tree import read_tree
from train.cli import main
from train.config import TrainConfig
from train.subsets import folders_of

SET = """
[general]
shuffle_caption = true
[[datasets]]
resolution = 512
[[datasets.subsets]]
image_dir = "faces"
class_tokens = "sks girl"
num_repeats = 5
flip_aug = true
[[datasets.subsets]]
image_dir = "class"
is_reg = true
"""


@pytest.fixture
def place(tmp_path: Path, tiny_tree: Path) -> Path:
    """Make a folder with a data set's configuration and the pictures that it names."""
    (tmp_path / "theirs").mkdir()
    for name, source in (("faces", "img/2_tok"), ("class", "reg/1_cls")):
        found = tiny_tree / source if (tiny_tree / source).exists() else next(iter((tiny_tree / "img").iterdir()))
        (tmp_path / "theirs" / name).mkdir()
        for file in found.iterdir():
            (tmp_path / "theirs" / name / file.name).write_bytes(file.read_bytes())
    (tmp_path / "theirs/set.toml").write_text(SET)
    return tmp_path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["import", *map(str, arguments)])


def test_pictures_from_elsewhere_become_a_tree_that_trains(place: Path) -> None:
    (place / "new").mkdir()
    result = call(place / "theirs/set.toml", "--out", place / "new", "--tree", place / "new/tree")
    assert result.exit_code == 0, result.output
    assert "import again" not in result.output + (place / "new/dataset.toml").read_text()
    config = TrainConfig.load(read_settings(place / "new"), {}).at(place / "new")
    folders = {folder.path.name: (folder, own) for folder, own in folders_of(config.data)}
    folder, own = folders["5_sks girl"]
    assert folder.repeats == 5 and folder.concept == "sks girl" and own.flip_aug and own.shuffle_caption
    assert folders["1_class"][0].is_reg and not folders["1_class"][1].flip_aug
    assert config.data.keyword == "sks" and config.data.class_ == "girl"
    assert len(read_tree(config.data.tree)) == 2
    again = call(place / "theirs/set.toml", "--out", place / "other.toml", "--tree", place / "new/tree")
    assert again.exit_code == 1 and "exists already" in again.output and not (place / "other.toml").exists()


def test_a_file_that_is_there_stays_unless_forced(place: Path) -> None:
    out = place / "dataset.toml"
    out.write_text("mine")
    result = call(place / "theirs/set.toml", "--out", out)
    assert result.exit_code == 1 and "--force" in result.output and out.read_text() == "mine"
    printed = call(place / "theirs/set.toml", "--out", out, "--print")
    assert printed.exit_code == 0 and "[train]" in printed.output and out.read_text() == "mine"
    assert call(place / "theirs/set.toml", "--out", out, "--force").exit_code == 0 and "[train]" in out.read_text()


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.toml", "a = = 1", "not valid TOML"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[1]", "holds no settings"),
        ("a.json", '{"LoRA_type": "Flux1"}', "not trained here"),
        ("a.toml", 'dataset_config = "gone.toml"', "there is no file gone.toml"),
        ("a.toml", "datasets = 3", "list of tables"),
        ("a.toml", "[[datasets]]\nsubsets = 3", "list of tables"),
        ("a.toml", '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "x"\nnum_repeats = "y"', "whole number over 0"),
        ("a.toml", "[[datasets]]\n[[datasets.subsets]]\nnum_repeats = 2", "no image_dir"),
        ("a.sh", "echo hello", "holds no arguments"),
        ("a.sh", "python train_network.py --a 'b", "quotes close"),
        ("a.toml", "min_timestep = 800\nmax_timestep = 200", "mend that"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_a_sentence(name: str, text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    result = call(tmp_path / name, "--out", tmp_path / "dataset.toml")
    assert result.exit_code == 1 and sentence in result.output and not (tmp_path / "dataset.toml").exists()
    assert "Traceback" not in result.output and "unexpected" not in result.output


def test_a_secret_is_neither_shown_nor_written(tmp_path: Path) -> None:
    result = call("--wandb_api_key=TOPSECRET --huggingface_token=TOPSECRET --seed=3", "--out", tmp_path / "dataset.toml", "--all")
    assert result.exit_code == 0 and "TOPSECRET" not in result.output + (tmp_path / "dataset.toml").read_text()


def test_all_lists_what_is_needless_too(tmp_path: Path) -> None:
    assert "xformers" not in call("--xformers --seed=3", "--out", tmp_path / "a.toml").output
    assert "xformers" in call("--xformers --seed=3", "--out", tmp_path / "b.toml", "--all").output
