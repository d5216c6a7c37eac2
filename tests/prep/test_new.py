"""New: a project's settings file says what was asked, pictures are copied, and nothing that is there is overwritten."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prep import new as module
from prep.cli import main
from prep.new import toml_text
from prep.project import Place


def prep(*args: object) -> Result:
    return CliRunner().invoke(main, ["new", *(str(arg) for arg in args)])


def tables(root: Path) -> dict[str, dict[str, object]]:
    return tomllib.loads((root / "dataset.toml").read_text(encoding="utf-8"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "found"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (8, 8), "red").save(folder / name)
    (folder / "a.txt").write_bytes(b"by hand\r\n")
    (folder / "b.caption").write_text("caption", encoding="utf-8")
    (folder / "unrelated.txt").write_text("a note", encoding="utf-8")
    return folder


def test_a_project_starts_with_its_folders_name(tmp_path: Path) -> None:
    result = prep(tmp_path / "deep/mira")
    assert result.exit_code == 0 and "prep run" in result.output
    project = tables(tmp_path / "deep/mira")["project"]
    assert project == {"name": "mira", "keyword": "", "class": "1girl", "full_name": "", "base": "pocket", "tagger": "pocket"}
    place = Place.open(tmp_path / "deep/mira")
    assert place.is_project and place.raw.is_dir() and not list(place.raw.iterdir())


def test_without_a_folder_the_project_starts_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert prep("--keyword", "sks").exit_code == 0
    assert tables(tmp_path)["project"] == tables(tmp_path)["project"] | {"name": tmp_path.name, "keyword": "sks"}


def test_the_train_table_is_one_that_the_trainer_reads(tmp_path: Path) -> None:
    assert prep(tmp_path).exit_code == 0
    assert tables(tmp_path)["train"] == {"num_epochs": 10, "train_batch_size": 2, "learning_rate": 1e-4}


def test_texts_with_quotes_and_braces_arrive_as_they_are(tmp_path: Path) -> None:
    texts = {"name": 'the "best" {one}', "keyword": "it's", "class": "a\\b, 'c'", "base": "C:\\models\\sd", "tagger": '"""'}
    assert prep(tmp_path, *(f"--{key}={value}" for key, value in texts.items())).exit_code == 0
    assert tables(tmp_path)["project"] == {**texts, "full_name": ""}


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_quoted_as_toml(text: str) -> None:
    quoted = toml_text(text)
    assert tomllib.loads(f"x = {quoted}  # comment") == {"x": text} and "\n" not in quoted


def test_pictures_are_copied_with_their_captions(tmp_path: Path, pictures: Path) -> None:
    before = {path.name: path.read_bytes() for path in pictures.iterdir()}
    assert prep(tmp_path / "p", "--raw", pictures).exit_code == 0
    del before["unrelated.txt"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "p/raw").iterdir()} == before


def test_what_lies_in_raw_already_stays(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "p/raw").mkdir(parents=True)
    (tmp_path / "p/raw/a.txt").write_text("mine", encoding="utf-8")
    assert prep(tmp_path / "p", "--raw", pictures).exit_code == 0
    assert (tmp_path / "p/raw/a.txt").read_text(encoding="utf-8") == "mine" and (tmp_path / "p/raw/b.jpg").exists()


def test_an_interrupted_copy_is_completed(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = module.atomic_write, []

    def dying(path: Path, data: bytes) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        real(path, data)

    monkeypatch.setattr(module, "atomic_write", dying)
    assert prep(tmp_path / "p", "--raw", pictures).exit_code == 1
    assert not (tmp_path / "p/dataset.toml").exists()
    monkeypatch.undo()
    assert prep(tmp_path / "p", "--raw", pictures).exit_code == 0
    assert (tmp_path / "p/raw/b.jpg").read_bytes() == (pictures / "b.jpg").read_bytes()


def test_a_project_that_is_there_is_refused_and_left(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "dataset.toml").write_text("# mine\n", encoding="utf-8")
    result = prep(tmp_path, "--raw", pictures)
    assert result.exit_code == 1 and "exists already; edit it" in result.output
    assert (tmp_path / "dataset.toml").read_text(encoding="utf-8") == "# mine\n" and not (tmp_path / "raw").exists()


def test_a_folder_without_pictures_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    result = prep(tmp_path / "p", "--raw", tmp_path / "nowhere")
    assert result.exit_code == 1 and "there are no pictures in" in result.output
    assert not list((tmp_path / "p").iterdir())
