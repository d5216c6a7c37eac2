"""Check: the command over a tree, its exit code, and the sum of steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from prep.check import epoch
from prep.cli import main
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


@pytest.mark.parametrize(("reg", "sd_scripts", "ours", "unused"), [(0, 100, 100, 0), (60, 200, 200, 0), (200, 200, 200, 0), (300, 200, 200, 100)])
def test_the_sum_of_steps(reg: int, sd_scripts: int, ours: int, unused: int) -> None:
    folders = [Folder(Path("i"), 10, "tk", False, (Path("a"),) * 20), Folder(Path("r"), 1, "girl", True, (Path("b"),) * reg)]
    sums = epoch(folders, batch_size=2, epochs=5)
    assert (sums["sd_scripts"]["steps_per_epoch"], sums["ours"]["steps_per_epoch"]) == (sd_scripts, ours)
    assert (sums["sd_scripts"]["reg_unused"], sums["ours"]["steps"]) == (unused, ours * 5)
