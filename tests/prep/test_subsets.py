"""Subsets: pictures with settings of their own, from the project's tables through the tree to check and exports."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prep.cli import main
from prep.subsets import Part, subset_text
from prep.tree import read_tree

HEAD = '[project]\nkeyword = "tk"\nclass = "1girl"\n[build]\nrepeats = 4\n'
SIDES = '[[build.subset]]\npictures = "side-*"\nname = "side"\nflip_aug = true\nkeep_tokens = 2\n'
REG = "[[build.subset]]\nis_reg = true\nnum_repeats = 3\nshuffle_caption = false\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder, names in (("work", ("a", "b", "side-a", "side-b", "side-c")), ("reg", ("x", "y"))):
        (tmp_path / folder).mkdir()
        for number, name in enumerate(names):
            Image.new("RGB", (16, 16), (40 * number, 0, 0)).save(tmp_path / folder / f"{name}.png")
            (tmp_path / folder / f"{name}.txt").write_text("tk, 1girl" if folder == "work" else "1girl", encoding="utf-8")
    return tmp_path


def run(command: str, root: Path, settings: str | None = None, *args: str) -> Result:
    if settings is not None:
        (root / "dataset.toml").write_text(HEAD + settings, encoding="utf-8")
    return CliRunner().invoke(main, [*command.split(), str(root), *args])


def tables(root: Path) -> list[dict[str, Any]]:
    return tomllib.loads((root / "tree/dataset.toml").read_text(encoding="utf-8"))["subset"]  # type: ignore[no-any-return]


def test_pictures_of_a_subset_get_a_folder_and_a_table(project: Path) -> None:
    result = run("build", project, SIDES + REG)
    assert result.exit_code == 0, result.output
    found = {folder.path.name: [path.stem for path in folder.pictures] for folder in read_tree(project / "tree")}
    assert found == {"4_tk 1girl": ["a", "b"], "4_tk 1girl side": ["side-a", "side-b", "side-c"], "3_1girl": ["x", "y"]}
    assert tables(project) == [
        {"image_dir": "img/4_tk 1girl side", "num_repeats": 4, "flip_aug": True, "keep_tokens": 2},
        {"image_dir": "reg/3_1girl", "num_repeats": 3, "is_reg": True, "shuffle_caption": False},
    ]
    assert "4_tk 1girl side 60%" in result.output.replace("\n", " ")


def test_without_subsets_the_tree_has_no_settings(project: Path) -> None:
    assert run("build", project, SIDES).exit_code == 0 and (project / "tree/dataset.toml").exists()
    assert run("build", project, "").exit_code == 0 and not (project / "tree/dataset.toml").exists()
    assert not list(project.glob("tree-edited*"))


def test_a_subset_of_all_pictures_keeps_the_name_of_the_folder(project: Path) -> None:
    assert run("build", project, "[[build.subset]]\nnum_repeats = 7\nflip_aug = true\n").exit_code == 0
    assert tables(project) == [{"image_dir": "img/7_tk 1girl", "num_repeats": 7, "flip_aug": True}]


def test_the_first_subset_that_fits_counts(project: Path) -> None:
    assert run("build", project, '[[build.subset]]\npictures = "side-a.png, b"\nnum_repeats = 1\n' + SIDES).exit_code == 0
    folders = {folder.path.name: len(folder.pictures) for folder in read_tree(project / "tree") if not folder.is_reg}
    assert folders == {"1_tk 1girl subset 1": 2, "4_tk 1girl": 1, "4_tk 1girl side": 2}


def test_settings_of_a_tree_edited_by_hand_are_kept_aside(project: Path) -> None:
    run("build", project, SIDES)
    (project / "tree/dataset.toml").write_text('[[subset]]\nimage_dir = "img/4_tk 1girl"\n', encoding="utf-8")
    result = run("build", project)
    assert "tree-edited-1" in result.output and (project / "tree-edited-1/dataset.toml").exists()
    assert tables(project)[0]["keep_tokens"] == 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("[[build.subset]]\nflip_augg = true\n", "did you mean flip_aug?"),
        ("[[build.subset]]\nkeep_tokens = -1\n", "[[build.subset]] 1 keep_tokens"),
        ('[[build.subset]]\nnum_repeats = "x"\n', "num_repeats: 'x' is not a whole number"),
        ("subset = 3\n", "write each as [[build.subset]]"),
        ("[[build.subset]]\nis_reg = 1\n[[build.subset]]\npicture = 'a'\n", "did you mean pictures?"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(project: Path, settings: str, says: str) -> None:
    result = run("build", project, settings)
    assert result.exit_code == 1 and says in result.output.replace("\n", " ") and not (project / "tree").exists()


@pytest.mark.parametrize("where", [".", "tree"])
def test_check_shows_the_settings(project: Path, where: str) -> None:
    run("build", project, SIDES + REG)
    result = run("check", project / where)
    assert result.exit_code == 0, result.output
    assert "flip_aug = true, keep_tokens = 2" in result.output
    rows = {row["folder"]: row for row in json.loads(run("check", project / where, None, "--json").stdout)["folders"]}
    assert rows["img/4_tk 1girl side"]["settings"] == {"flip_aug": True, "keep_tokens": 2} and "settings" not in rows["img/4_tk 1girl"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[subset]]\nimage_dir = "img/4_tk 1girl"\nflip = true\n', "unknown setting flip"),
        ('[[subset]]\nimage_dir = "img/9_tk"\n', "names no folder"),
        ("[[subset]\n", "is not valid TOML"),
        ("[[subsets]]\nimage_dir = 'img'\n", "did you mean subset?"),
    ],
)
def test_check_names_settings_that_the_trainer_would_refuse(project: Path, text: str, says: str) -> None:
    run("build", project, "")
    (project / "tree/dataset.toml").write_text(text, encoding="utf-8")
    result = run("check", project)
    assert result.exit_code == 1 and says in result.output.replace("\n", " ") and "dataset.toml" in result.output


def test_check_warns_if_the_name_says_other_repeats(project: Path) -> None:
    run("build", project, "")
    (project / "tree/dataset.toml").write_text('[[subset]]\nimage_dir = "img/4_tk 1girl"\nnum_repeats = 6\n', encoding="utf-8")
    found = json.loads(run("check", project, None, "--json").stdout)
    assert found["steps"]["ours"]["samples"] == 30 and found["steps"]["sd_scripts"]["samples"] == 20
    assert any("other trainers go by its name" in row["message"] for row in found["findings"])


def test_exports_carry_the_settings(project: Path) -> None:
    run("build", project, SIDES + REG)
    for kind in ("sd-scripts", "ai-toolkit", "onetrainer"):
        assert run(f"export {kind}", project).exit_code == 0
    folder = project / "export"
    (dataset,) = tomllib.loads((folder / "sd-scripts/dataset.toml").read_text(encoding="utf-8"))["datasets"]
    sides = {Path(row["image_dir"]).name: row for row in dataset["subsets"]}
    assert (sides["4_tk 1girl side"]["flip_aug"], sides["4_tk 1girl side"]["keep_tokens"]) == (True, 2)
    assert "flip_aug" not in sides["4_tk 1girl"] and sides["3_1girl"]["shuffle_caption"] is False
    (process,) = yaml.safe_load((folder / "ai-toolkit/tk.yaml").read_text(encoding="utf-8"))["config"]["process"]
    assert {Path(row["folder_path"]).name: row["flip_x"] for row in process["datasets"]}["4_tk 1girl side"] is True
    concepts = {Path(row["path"]).name: row for row in json.loads((folder / "onetrainer/concepts.json").read_text(encoding="utf-8"))}
    assert concepts["4_tk 1girl side"]["text"]["keep_tags_count"] == 2 and not concepts["4_tk 1girl"]["image"]["enable_random_flip"]


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=20), st.integers(1, 99), st.text(st.characters(blacklist_categories=["Cs"])))
def test_every_folder_and_text_comes_back_from_the_file(folder: str, repeats: int, prefix: str) -> None:
    table = Part(1, own=(("caption_prefix", prefix),)).table(folder, repeats)
    assert tomllib.loads(subset_text([table]))["subset"] == [table]
