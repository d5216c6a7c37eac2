"""Sweeps: all combinations, the better half goes on, what is stopped goes on to the same end, and the winner is told."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from prep.options import UserError
from tests.train.test_run import TRAIN, fail_at, power_cut, same
from tests.train.test_validate import wide_tree  # noqa: F401 (a fixture)
from train.cli import main
from train.sweep import Setting, points, settings_of_sweep, sweep

pytestmark = pytest.mark.usefixtures("one_thread")


def made(base: Path, tree: Path, *axes: str, **train: Any) -> list[Setting]:
    project = {"base": str(base), "keyword": "tok", "class": "cls", "name": "mine"}
    return settings_of_sweep({"project": project, "train": {**TRAIN, "num_epochs": 4, **train}}, {}, tree.parent, axes)


def test_axes_make_all_combinations_in_their_own_types() -> None:
    found = points(["learning_rate=1e-4,3e-4", "network-dim=4,8", "lr_scheduler=cosine,constant"])
    assert len(found) == 8 and found[0] == {"learning_rate": 1e-4, "network_dim": 4, "lr_scheduler": "cosine"}
    assert all(isinstance(point["network_dim"], int) for point in found)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (["base=a,b"], "cannot be swept"),
        (["seed=1,2"], "judged alike"),
        (["learnin_rate=1"], "is no setting"),
        (["learning_rate"], "KEY=VALUE"),
        ([], "nothing to sweep"),
    ],
)
def test_wrong_axes_are_told(axes: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        points(axes)


def test_a_value_that_cannot_be_is_told_before_anything_runs(tiny_base: Path, tiny_tree: Path) -> None:
    with pytest.raises(UserError, match="network_dim = 0"):
        made(tiny_base, tiny_tree, "network_dim=4,0")


def test_only_the_better_half_goes_on_and_the_best_comes_first(tiny_base: Path, tiny_tree: Path) -> None:
    entries = sweep(made(tiny_base, tiny_tree, "learning_rate=0,1e-3,3e-3,1e-2"))
    whole = entries[0].whole
    assert sorted(entry.steps for entry in entries) == [-(-whole // 4), -(-whole // 4), -(-whole // 2), whole]
    assert entries[0].steps == whole and entries[-1].steps < whole
    still = next(entry for entry in entries if entry.setting.values["learning_rate"] == 0)
    assert still.best.loss == 1.0, "what learns nothing has the base's loss"
    assert all(entry.path.exists() for entry in entries)
    table = json.loads((entries[0].path.parent / "sweep.json").read_text())
    assert [row["number"] for row in table] == [entry.setting.number for entry in entries]


def test_a_setting_of_a_sweep_trains_as_a_run_of_its_own(tiny_base: Path, wide_tree: Path) -> None:  # noqa: F811
    alone = sweep(made(tiny_base, wide_tree, "learning_rate=1e-3", num_epochs=2, output_dir="alone"), "grid")
    among = sweep(made(tiny_base, wide_tree, "learning_rate=1e-2,1e-3", num_epochs=2), "grid")
    assert same(next(entry.path for entry in among if entry.setting.values["learning_rate"] == 1e-3), alone[0].path)


def test_a_stopped_sweep_goes_on_to_the_same_end(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sweep(made(tiny_base, tiny_tree, "learning_rate=1e-3,1e-2", output_dir="whole"))
    for step in (2, 7):
        with monkeypatch.context() as patch:
            fail_at(patch, step, power_cut)
            with pytest.raises(MemoryError):
                sweep(made(tiny_base, tiny_tree, "learning_rate=1e-3,1e-2"))
    again = sweep(made(tiny_base, tiny_tree, "learning_rate=1e-3,1e-2"))
    assert [entry.setting.number for entry in again] == [entry.setting.number for entry in whole]
    assert all(same(one.path, other.path) for one, other in zip(again, whole, strict=True))


def test_the_command_tells_the_lines_to_write(tiny_base: Path, tiny_tree: Path) -> None:
    table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in {**TRAIN, "num_epochs": 2}.items())
    (tiny_tree.parent / "dataset.toml").write_text(
        f'[project]\nbase = {json.dumps(str(tiny_base))}\nkeyword = "tok"\nname = "mine"\n[train]\n{table}\n'
    )
    result = CliRunner().invoke(main, ["sweep", str(tiny_tree.parent), "--vary", "learning_rate=0.0,0.01"])
    assert result.exit_code == 0, result.output
    assert result.output.rstrip().splitlines()[-1].startswith("learning_rate = ")
    wrong = CliRunner().invoke(main, ["sweep", str(tiny_tree.parent), "--vary", "learning_rte=1"])
    assert wrong.exit_code == 1 and "is no setting" in wrong.output


def test_the_picture_shows_the_base_and_every_setting(tiny_base: Path, tiny_tree: Path) -> None:
    settings = made(tiny_base, tiny_tree, "learning_rate=1e-3,1e-2", num_epochs=1, sample_steps=1)
    sweep(settings, "grid")
    sheet = Image.open(settings[0].config.output.output_dir / "sweep.png")
    assert sheet.width >= 3 * 160 and sheet.height >= 2 * 160
    page = (settings[0].config.output.output_dir / "sweep.html").read_text(encoding="utf-8")
    assert page.count("<img") == 3 * 2 and "learning_rate = 0.01" in page
