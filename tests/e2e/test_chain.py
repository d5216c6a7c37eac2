"""The whole chain as a user runs it: `prep run`, `train run`, on drawings and on photographs; and every wrong turn ends in a sentence."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file


def hashes(folder: Path) -> dict[str, str]:
    """Return relative path -> sha256 of every file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_chain_ends_in_a_lora(command, project):
    raw = hashes(project / "raw")
    prepared = command("prep", "run", project)
    assert prepared.returncode == 0, prepared.stderr
    trained = command("train", "run", project)
    assert trained.returncode == 0, trained.stderr
    assert hashes(project / "raw") == raw, "raw pictures are sacred"
    images = sorted((project / "tree" / "img" / "1_mira 1girl, solo").glob("*.png"))
    assert images and all(path.with_suffix(".txt").read_text("utf-8").startswith("mira, ") for path in images)
    assert len(list((project / "tree" / "reg").glob("1_*/*.png"))) == 6
    with safe_open(project / "lora" / "mira.safetensors", "pt") as file:
        metadata = file.metadata()
        assert metadata["ss_output_name"] == "mira" and metadata["ss_base_model_version"] == "sd_v1"
        assert json.loads(metadata["ss_tag_frequency"])["1_mira 1girl, solo"]["mira"] == len(images)
    assert (project / "lora" / "mira-samples.png").exists()
    again = command("prep", "run", project)
    assert again.returncode == 0, again.stderr


def test_tag_writes_beside_and_keeps_hand_captions(command, project):
    raw = project / "raw"
    picture = sorted(raw.glob("*.png"))[0]
    picture.with_suffix(".txt").write_text("my own words\n", encoding="utf-8")
    before = {name: digest for name, digest in hashes(raw).items() if not name.endswith(".txt")}
    result = command("prep", "tag", raw)
    assert result.returncode == 0, result.stderr
    after = {name: digest for name, digest in hashes(raw).items() if not name.endswith(".txt") and ".atelier" not in name}
    assert after == before
    assert picture.with_suffix(".txt").read_text("utf-8") == "my own words\n"
    tagged = [p for p in raw.glob("*.png") if p != picture and p.with_suffix(".txt").exists()]
    assert tagged and all("1girl" in p.with_suffix(".txt").read_text("utf-8") for p in tagged if "thumbnail" not in p.name)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("prep", "tag", "{empty}"), "there are no pictures in"),
        (("prep", "clean", "{empty}"), "there are no pictures in"),
        (("prep", "tag", "{empty}/nowhere"), "there is no folder"),
        (("prep", "tag", "{raw}", "--tagger", "wd-none"), "neither a tagger nor a folder"),
        (("prep", "run", "{raw}"), "holds no dataset.toml"),
        (("prep", "regularize", "{project}", "-n", "1", "--base", "/nowhere/model"), "no base model at"),
        (("prep", "build", "{project}"), ""),
        (("train", "run", "{project}"), "tree"),
        (("train", "run", "{project}", "--num-epochs", "0"), "num-epochs"),
        (("train", "info", "{project}/dataset.toml"), "dataset.toml"),
    ],
)
def test_wrong_use_ends_in_one_sentence(command, project, tmp_path, arguments, sentence):
    (tmp_path / "empty").mkdir(exist_ok=True)
    places = {"empty": tmp_path / "empty", "raw": project / "raw", "project": project}
    result = command(*(argument.format(**places) for argument in arguments))
    assert result.returncode in (1, 2)
    assert sentence in result.stderr and "Traceback" not in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("Error:")]) == 1


def test_all_faults_of_a_settings_file_at_once(command, project):
    text = (project / "dataset.toml").read_text("utf-8").replace("num_epochs = 3", "num_epoch = 3\nlearning_rate = -1")
    (project / "dataset.toml").write_text(text, encoding="utf-8")
    result = command("train", "run", project)
    assert result.returncode == 1
    assert "did you mean num_epochs?" in result.stderr and "learning_rate" in result.stderr


def test_tree_that_fails_the_check_is_not_trained(command, project):
    assert command("prep", "run", project, "--no-regularize").returncode == 0
    caption = next((project / "tree" / "img").glob("*/*.txt"))
    caption.write_text("", encoding="utf-8")
    check, train = command("prep", "check", project), command("train", "run", project)
    assert check.returncode == train.returncode == 1
    assert caption.stem in check.stdout + check.stderr and caption.stem in train.stderr
    assert not (project / "lora" / "mira.safetensors").exists()


def kill_after(seconds: float, *args: str | Path) -> None:
    process = subprocess.Popen([sys.executable, "-m", *map(str, args)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_at_any_moment_ends_in_the_same_tree_and_weights(command, project, tmp_path_factory):
    import shutil

    calm = tmp_path_factory.mktemp("calm") / "project"
    shutil.copytree(project, calm)
    for step in ("prep", "train"):
        assert command(step, "run", calm).returncode == 0
    for seconds in (1.0, 1.5, 2.2, 3.0, 4.0, 5.5, 7.0):
        kill_after(seconds, "prep", "run", project)
    assert command("prep", "run", project).returncode == 0
    assert hashes(project / "tree") == hashes(calm / "tree")
    for seconds in (5, 8, 11):
        kill_after(seconds, "train", "run", project)
    assert command("train", "run", project).returncode == 0
    ours, theirs = (load_file(folder / "lora" / "mira.safetensors") for folder in (project, calm))
    assert ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in ours)


@pytest.mark.slow
def test_photographs_become_a_lora(command, photographs, tmp_path):
    started = command("prep", "new", tmp_path / "photos", "--raw", photographs, "--keyword", "ohwx", "--class", "photo", "--name", "photos")
    assert started.returncode == 0, started.stderr
    root = tmp_path / "photos"
    with (root / "dataset.toml").open("a", encoding="utf-8") as file:
        file.write("\n[build]\ntarget = 16\n")  # two repeats, sixteen regularization pictures
    prepared = command("prep", "run", root)
    assert prepared.returncode == 0, prepared.stderr
    report = json.loads((root / "work" / ".atelier" / "report.json").read_text("utf-8"))
    assert report["kept"] == 8, report
    trained = command("train", "run", root, "--max-train-steps", "4", "--sample-steps", "2")
    assert trained.returncode == 0, trained.stderr
    assert (root / "lora" / "photos.safetensors").exists()
