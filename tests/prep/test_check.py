"""Check: the command over a tree, its exit code, and the sum of steps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prep.cli import main
from prep.loaders import read_as_sd_scripts, registered
from prep.tree import Folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "dataset.toml").write_text('[project]\nkeyword = "tk"\n[train]\ntrain_batch_size = 2\nnum_epochs = 3\n', encoding="utf-8")
    for name in ("img/2_tk man", "reg/1_man"):
        path = tmp_path / "tree" / name / "a.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(path)
        path.with_suffix(".txt").write_text("tk, man" if name.startswith("img") else "man", encoding="utf-8")
    return tmp_path


def check(root: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["check", str(root), *args])


def test_a_good_tree(project: Path) -> None:
    result = check(project)
    assert result.exit_code == 0 and "in order" in result.output


@pytest.mark.parametrize("where", [".", "tree"])
def test_a_keyword_missing_is_an_error(project: Path, where: str) -> None:
    (project / "tree/img/2_tk man/a.txt").write_text("man", encoding="utf-8")
    result = check(project / where, "--keyword", "tk")
    assert result.exit_code == 1 and "the keyword is missing" in result.output and "img/2_tk man/a.txt" in result.output


def test_json_holds_findings_and_steps(project: Path) -> None:
    (project / "tree/reg/1_man/a.txt").write_text("tk", encoding="utf-8")
    result = check(project, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [(row["level"], row["path"]) for row in found["findings"]] == [("error", "reg/1_man/a.txt")]
    assert found["steps"]["ours"]["steps"] == found["steps"]["sd_scripts"]["steps"] == 6


def test_a_caption_longer_than_the_setting_is_a_warning(project: Path) -> None:
    (project / "tree/img/2_tk man/a.txt").write_text("tk" + ", smile" * 50, encoding="utf-8")
    result = check(project)
    assert result.exit_code == 0 and "set it to 150" in result.output.replace("\n", " ")


def test_no_tree_and_no_pictures(tmp_path: Path) -> None:
    assert check(tmp_path).exit_code == 1
    (tmp_path / "img").mkdir()
    result = check(tmp_path)
    assert result.exit_code == 1 and "nothing to train on" in result.output and "Traceback" not in result.output


@pytest.mark.parametrize(("reg", "sd_scripts", "ours", "unused"), [(0, 20, 20, 0), (6, 40, 40, 0), (40, 40, 40, 0), (41, 40, 40, 1), (39, 40, 40, 0)])
def test_the_sum_of_steps(tmp_path: Path, reg: int, sd_scripts: int, ours: int, unused: int) -> None:
    many(tmp_path / "img/10_tk", 4, "tk")
    many(tmp_path / "reg/1_girl", reg, "girl")
    (tmp_path / "train").mkdir()
    sums = steps(tmp_path, 2)
    assert (sums["sd_scripts"]["steps_per_epoch"], sums["ours"]["steps_per_epoch"]) == (sd_scripts, ours)
    assert (sums["sd_scripts"]["reg_unused"], sums["ours"]["steps"]) == (unused, ours * 10)
    assert sums["sd_dreambooth"]["steps_per_epoch"] == (4 if reg else 2), "repeats mean nothing there"


def many(folder: Path, number: int, text: str, size: tuple[int, int] = (8, 8)) -> None:
    if number:
        folder.mkdir(parents=True, exist_ok=True)
    for n in range(number):
        Image.new("RGB", size).save(folder / f"{n:03d}-{size[0]}.png")
        (folder / f"{n:03d}-{size[0]}.txt").write_text(text, encoding="utf-8")


def steps(root: Path, batch_size: int) -> Any:
    """Check the folder as the tree of a project with this batch size and return the sums."""
    project = root / "project"
    project.mkdir()
    (project / "dataset.toml").write_text(f'[project]\ntree = ".."\n[train]\ntrain_batch_size = {batch_size}\n', encoding="utf-8")
    return json.loads(check(project, "--json").stdout)["steps"]


def test_the_arithmetic_is_printed(tmp_path: Path) -> None:
    many(tmp_path / "img/2_tk a", 20, "tk, a")
    many(tmp_path / "img/1_tk b", 10, "tk, b")
    many(tmp_path / "reg/1_a", 50, "a")
    sums = steps(tmp_path, 2)
    assert sums["sd_scripts"]["sum"] == "(1 x 10 + 2 x 20) + 50 of the class = 100"
    result = check(tmp_path)
    assert "(1 x 10 + 2 x 20) + 50 of the class = 100 samples an epoch" in result.output
    assert "40.0%" in result.output and "512 x 512" in result.output


def test_every_bucket_ends_in_a_short_batch(tmp_path: Path) -> None:
    many(tmp_path / "img/1_tk", 3, "tk", (512, 512))
    many(tmp_path / "img/1_tk", 3, "tk", (800, 400))
    sums = steps(tmp_path, 4)
    assert sums["sd_scripts"]["steps_per_epoch"] == sums["ours"]["steps_per_epoch"] == 2
    assert sums["sd_dreambooth"]["steps_per_epoch"] == 1, "whole batches only"


def test_too_few_class_pictures_are_repeated_from_the_first_on(tmp_path: Path) -> None:
    many(tmp_path / "img/10_tk", 1, "tk")
    many(tmp_path / "reg/2_girl", 4, "girl")
    reading = read_as_sd_scripts(tmp_path, lambda picture: (8, 8), 1)
    assert [times for path, times in sorted(reading.shown.items()) if "reg" in path.parts] == [3, 3, 2, 2]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), min_size=1, max_size=3), st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9))))
def test_sd_scripts_ends_with_as_many_class_samples_as_others(img: list[tuple[int, int]], reg: list[tuple[int, int]]) -> None:
    """Repeat the loop of its DreamBoothDataset step by step and compare."""
    folders = [Folder(Path(f"r{i}"), n, "x", True, tuple(Path(f"r{i}/{k}") for k in range(size))) for i, (n, size) in enumerate(reg)]
    wanted = sum(n * size for n, size in img)
    infos = [[picture, folder.repeats, False] for folder in folders for picture in folder.pictures]
    done, first = 0, True
    while infos and done < wanted:
        for info in infos:
            if first:
                info[2] = True
                done += info[1]
            else:
                info[1] += 1
                done += 1
            if done >= wanted:
                break
        first = False
    assert dict(registered(folders, wanted)) == {picture: times for picture, times, used in infos if used}


def base(img: Path) -> Path:
    return img.parent


# A rule of sd-scripts -> how the tree breaks it, the file that is named, and what is said of it.
RULES: dict[str, tuple[Callable[[Path, Path], Any], str, str]] = {
    "a name without a number is passed over": (lambda img, reg: img.rename(img.with_name("tk man")), "img/tk man", "is passed over"),
    "10 tk is no name": (lambda img, reg: img.rename(img.with_name("10 tk")), "img/10 tk", "is passed over"),
    "no repeats": (lambda img, reg: img.rename(img.with_name("0_tk")), "img/0_tk", "0 is not a number of repeats"),
    "less than none": (lambda img, reg: img.rename(img.with_name("-3_tk")), "img/-3_tk", "-3 is not a number of repeats"),
    "no concept": (lambda img, reg: img.rename(img.with_name("3_")), "img/3_", "not named N_concept"),
    "pictures in the root": (lambda img, reg: shutil.copy(img / "a.png", base(img) / "z.png"), "img", "z.png lie directly in it"),
    "no recursion": (lambda img, reg: shutil.copytree(img, img / "deep"), "img/2_tk man/deep", "not read by any trainer"),
    "not UTF-8": (lambda img, reg: (img / "a.txt").write_bytes("tk, caf\xe9".encode("latin-1")), "img/2_tk man/a.txt", "not UTF-8"),
    "UTF-16": (lambda img, reg: (img / "a.txt").write_bytes("tk".encode("utf-16")), "img/2_tk man/a.txt", "not UTF-8"),
    "a byte order mark": (lambda img, reg: (img / "a.txt").write_bytes(b"\xef\xbb\xbftk, man"), "img/2_tk man/a.txt", "byte order mark"),
    "an empty caption": (lambda img, reg: (img / "a.txt").write_bytes(b""), "img/2_tk man/a.txt", "caption is empty"),
    "the first line alone": (lambda img, reg: (img / "a.txt").write_text("tk\nman"), "img/2_tk man/a.txt", "several lines"),
    "no caption": (lambda img, reg: (img / "a.txt").unlink(), "img/2_tk man/a.png", "'tk man' would be used"),
    "no class caption": (lambda img, reg: (reg / "a.txt").unlink(), "reg/1_man/a.png", "'man' would be used"),
    "a face's caption": (lambda img, reg: (img / "a.png").rename(img / "a_1_2_3_4.png"), "img/2_tk man/a_1_2_3_4.png", "sd-scripts takes a.txt"),
    "one stem, two pictures": (lambda img, reg: Image.new("RGB", (8, 8)).save(img / "a.jpg"), "img/2_tk man/a.png", "share one caption"),
    "other endings": (lambda img, reg: (img / "a.png").rename(img / "a.gif"), "img/2_tk man/a.gif", ".gif is not read"),
    "mixed capitals": (lambda img, reg: (img / "a.png").rename(img / "a.Png"), "img/2_tk man/a.Png", "capital letters"),
    "surplus of the class": (lambda img, reg: many(reg, 3, "man"), "reg", "never use the last"),
    "the keyword in a class caption": (lambda img, reg: (reg / "a.txt").write_text("tk, man"), "reg/1_man/a.txt", "holds the keyword"),
    "the keyword in a class folder": (lambda img, reg: reg.rename(reg.with_name("1_tk man")), "reg/1_tk man", "named after the keyword"),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_tree_that_breaks_a_rule_has_the_file_named(project: Path, rule: str) -> None:
    spoil, path, says = RULES[rule]
    spoil(project / "tree/img/2_tk man", project / "tree/reg/1_man")
    found = json.loads(check(project, "--json").stdout)["findings"]
    assert (path, True) in [(row["path"], says in row["message"]) for row in found], found


def test_the_leaf_folder_is_no_tree(project: Path) -> None:
    for folder in ("tree/img", "tree/img/2_tk man"):
        result = check(project / folder)
        assert result.exit_code == 1 and "give the folder that holds img" in result.output.replace("\n", " ")


PASSED = {
    "3_": {"ours"},  # sd-scripts reads it, with no words to go with the pictures
    "+3_x": {"ours"},
    "٣_x": {"ours"},
    "0_x": {"ours", "sd_scripts"},
    "x": {"ours", "sd_scripts"},
    "-3_x": {"ours", "sd_scripts"},
    "10_a b": set(),
    "10_a_b": set(),
}


@pytest.mark.parametrize("name", PASSED)
def test_each_trainer_passes_over_what_its_rules_say(project: Path, name: str) -> None:
    shutil.copytree(project / "tree/img/2_tk man", project / "tree/img" / name)
    sums = json.loads(check(project, "--json").stdout)["steps"]
    assert {trainer for trainer, row in sums.items() if f"img/{name}" in [gone["path"] for gone in row["ignored"]]} == PASSED[name]


def test_shares_and_buckets_are_in_the_json(project: Path) -> None:
    found = json.loads(check(project, "--json").stdout)
    assert [(row["folder"], row["samples"], row["share"]) for row in found["folders"]] == [("img/2_tk man", 2, 0.5), ("reg/1_man", 2, 0.5)]
    assert found["buckets"] == [{"size": [64, 64], "pictures": 2, "samples": 4}], "the pocket base is trained at 64"


def test_bad_settings_of_the_run_do_not_stop_the_check(project: Path) -> None:
    (project / "dataset.toml").write_text('[project]\nkeyword = "tk"\n[train]\ntrain_batch_size = "many"\n', encoding="utf-8")
    assert check(project).exit_code == 0
