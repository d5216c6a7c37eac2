"""Subsets: what [[subset]] tables may say, which folder is meant, and sentences for all that is wrong."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from prep.options import UserError
from prep.tree import Folder, read_tree
from train.config import DataConfig
from train.subsets import OWN, Subset, folders_of, read_subsets, read_tree_subsets, with_subsets


def applied(tree: Path, *tables: dict[str, Any]) -> dict[str, tuple[Folder, DataConfig]]:
    data = DataConfig(subsets=read_subsets(list(tables), DataConfig))
    return {folder.path.name: (folder, own) for folder, own in with_subsets(read_tree(tree), data)}


def test_all_settings_of_a_subset_are_settings_of_the_run() -> None:
    assert set(OWN) <= {field.name for field in dataclasses.fields(DataConfig)}


def test_a_subset_overrides_its_folder_alone(tiny_tree: Path) -> None:
    table = {"image_dir": "img/2_tok", "num_repeats": 7, "keep_tokens": 3, "flip_aug": True, "caption_prefix": "x", "class_tokens": "tik"}
    found = applied(tiny_tree, table)
    folder, data = found["2_tok"]
    assert (folder.repeats, folder.concept, data.keep_tokens, data.flip_aug, data.caption_prefix) == (7, "tik", 3, True, "x")
    assert found["1_cls"][0].repeats == 1 and found["1_cls"][1].keep_tokens == 1 and not found["1_cls"][1].flip_aug
    assert applied(tiny_tree, {"image_dir": "1_cls", "is_reg": False})["1_cls"][0].is_reg is False


@pytest.mark.parametrize("form", ["img/2_tok", "./img/2_tok", "tree/img/2_tok", "2_tok", "img/2_tok/", "{}"])
def test_a_folder_can_be_named_in_many_ways(tiny_tree: Path, form: str) -> None:
    name = form.format((tiny_tree / "img/2_tok").resolve())
    assert applied(tiny_tree, {"image_dir": name, "num_repeats": 9})["2_tok"][0].repeats == 9


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"image_dir": "x"}, "not a list of tables"),
        ([3], "not a list of tables"),
        ([{}], "names no folder"),
        ([{"image_dir": "x", "keep_token": 1}], "did you mean keep_tokens"),
        ([{"image_dir": "x", "caption_extension": ".txt"}], "unknown setting caption_extension"),
        ([{"image_dir": "x", "keep_tokens": "1"}], r"keep_tokens: '1' is not a whole number"),
        ([{"image_dir": "x", "num_repeats": 0}], "num_repeats"),
        ([{"image_dir": 3}], "image_dir: 3 is not a text"),
        ([{}, {"image_dir": "x", "flip_aug": 1}], r"1 names no folder.*; \[\[subset\]\] 2 flip_aug"),
    ],
)
def test_faults_are_told_all_at_once(tables: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_subsets(tables, DataConfig)


def test_a_folder_that_is_not_there_or_meant_twice_is_said(tiny_tree: Path) -> None:
    with pytest.raises(UserError, match=r"names no folder of the tree; give one of img/2_tok, reg/1_cls"):
        applied(tiny_tree, {"image_dir": "img/3_tok"})
    with pytest.raises(UserError, match="put their settings together"):
        applied(tiny_tree, {"image_dir": "img/2_tok"}, {"image_dir": "2_tok"})
    (tiny_tree / "reg/1_cls").rename(tiny_tree / "reg/2_tok")
    with pytest.raises(UserError, match="several folders"):
        applied(tiny_tree, {"image_dir": "2_tok"})


def test_no_subsets_change_nothing(tiny_tree: Path) -> None:
    data = DataConfig()
    assert with_subsets(read_tree(tiny_tree), data) == [(folder, data) for folder in read_tree(tiny_tree)]
    assert Subset("x").own == ()


def test_the_trees_own_subsets_hold_and_the_projects_lie_over_them(tiny_tree: Path) -> None:
    text = '[[subset]]\nimage_dir = "img/2_tok"\nnum_repeats = 5\nkeep_tokens = 3\n[[subset]]\nimage_dir = "reg/1_cls"\nflip_aug = true\n'
    (tiny_tree / "dataset.toml").write_text(text, encoding="utf-8")
    own = read_subsets([{"image_dir": "2_tok", "num_repeats": 4, "color_aug": True}], DataConfig)
    found = {folder.path.name: (folder, data) for folder, data in folders_of(DataConfig(tree=tiny_tree, subsets=own))}
    folder, data = found["2_tok"]
    assert (folder.repeats, data.keep_tokens, data.color_aug, data.flip_aug) == (4, 3, True, False)
    assert found["1_cls"][1].flip_aug and not found["1_cls"][1].color_aug


@pytest.mark.parametrize(
    ("text", "sentence"), [("[[subset", "is not valid TOML"), ("[train]", "unknown setting train"), ("[[subset]]", "names no folder")]
)
def test_a_broken_file_of_a_tree_is_a_sentence(tiny_tree: Path, text: str, sentence: str) -> None:
    (tiny_tree / "dataset.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=sentence):
        read_tree_subsets(tiny_tree, DataConfig)
