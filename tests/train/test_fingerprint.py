"""What counts as the same run, and what does not."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from prep.tree import read_tree
from train.config import FREE, DataConfig, TrainConfig
from train.fingerprint import fingerprint_of, finished_run, tree_digest, weights_digest
from train.runtime import Runtime
from train.subsets import read_subsets


def test_a_moved_tree_is_the_same_tree(tiny_tree: Path, tmp_path: Path) -> None:
    digest = tree_digest(read_tree(tiny_tree))
    moved = tmp_path / "elsewhere" / "tree"
    shutil.copytree(tiny_tree, moved)
    assert tree_digest(read_tree(moved)) == digest


@pytest.mark.parametrize("change", ["caption", "pixels", "gone", "repeats"])
def test_a_changed_tree_is_another(tiny_tree: Path, change: str) -> None:
    digest = tree_digest(read_tree(tiny_tree))
    picture = sorted(tiny_tree.glob("img/*/*.png"))[0]
    if change == "caption":
        picture.with_suffix(".txt").write_text("tok", encoding="utf-8")
    elif change == "pixels":
        shutil.copy(sorted(tiny_tree.glob("img/*/*.png"))[1], picture)
    elif change == "gone":
        picture.unlink()
    else:
        picture.parent.rename(picture.parent.with_name("5_tok"))
    assert tree_digest(read_tree(tiny_tree)) != digest


def test_a_base_is_the_same_once_it_is_placed_in_bf16() -> None:
    module = nn.Linear(40, 40)
    digest = weights_digest([module])
    Runtime.choose("bf16").place(module)
    assert module.weight.dtype == torch.bfloat16 and weights_digest([module]) == digest


def test_another_base_has_another_digest() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(30, 30), nn.Linear(30, 30)
    digest = weights_digest([first])
    assert digest != weights_digest([second])
    assert digest == weights_digest([first])
    second.load_state_dict(first.state_dict())
    assert digest == weights_digest([second])


def test_free_settings_do_not_matter_and_all_others_do(tiny_tree: Path) -> None:
    folders, module = read_tree(tiny_tree), nn.Linear(2, 2)

    def of(config: TrainConfig) -> dict[str, object]:
        return fingerprint_of(config, folders, [module])

    plain = TrainConfig()
    assert not FREE & of(plain).keys()
    assert of(dataclasses.replace(plain, output=dataclasses.replace(plain.output, sample_steps=1, output_name="x"))) == of(plain)
    assert of(dataclasses.replace(plain, output=dataclasses.replace(plain.output, seed=1))) != of(plain)


def test_subsets_of_tree_and_project_matter(tiny_tree: Path) -> None:
    folders, module, seen = read_tree(tiny_tree), nn.Linear(2, 2), []
    config = dataclasses.replace(TrainConfig(), data=DataConfig(tree=tiny_tree))
    own = read_subsets([{"image_dir": "2_tok", "num_repeats": 4}], DataConfig)
    for text in ("", '[[subset]]\nimage_dir = "img/2_tok"\nkeep_tokens = 3\n'):
        (tiny_tree / "dataset.toml").write_text(text, encoding="utf-8")
        seen += [fingerprint_of(config, folders, [module])]
        seen += [fingerprint_of(dataclasses.replace(config, data=dataclasses.replace(config.data, subsets=own)), folders, [module])]
    assert all(seen.count(one) == 1 for one in seen)


def test_a_foreign_or_broken_file_is_no_finished_run(tmp_path: Path) -> None:
    output = dataclasses.replace(TrainConfig().output, output_dir=tmp_path, output_name="x")
    assert finished_run(output, {}) is None
    output.file(".safetensors").write_bytes(b"broken")
    assert finished_run(output, {}) is None
