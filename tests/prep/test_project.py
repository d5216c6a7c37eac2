"""Project: where a command works, and which value of a setting wins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from prep.options import UserError, option
from prep.project import Command, Place


@dataclass(frozen=True)
class Rare(Command):
    """A command for the tests, under a table's name that exists."""

    keyword: str = option("", "-k", help="The concept word.")
    class_: str = option("person", help="The class.")
    count: int = option(5, help="How many.", min=1)
    fast: bool = option(False, help="Fast.")

    def main(self, place: Place) -> None:
        print(self.keyword, self.class_, self.count, self.fast, place.is_project, sep="|")


def project(root: Path, text: str) -> Path:
    (root / "dataset.toml").write_text(text, encoding="utf-8")
    return root


def run(*args: object) -> str:
    result = CliRunner().invoke(Rare.command("rare"), [str(arg) for arg in args], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.output.strip()


def test_typed_beats_the_own_table_beats_the_project_beats_the_default(tmp_path: Path) -> None:
    root = project(tmp_path, '[project]\nkeyword = "mira"\nclass = "1girl"\n[rare]\nclass = "girl"\ncount = 7\nfast = true\n')
    assert run(root) == "mira|girl|7|True|True"
    assert run(root, "-k", "sks", "--count", 5, "--no-fast") == "sks|girl|5|False|True"  # 5 and no are the defaults too


def test_an_empty_text_in_the_project_is_no_value(tmp_path: Path) -> None:
    assert run(project(tmp_path, '[project]\nclass = ""\n')) == "|person|5|False|True"


def test_a_folder_without_a_project_has_defaults_only(tmp_path: Path) -> None:
    assert run(tmp_path, "-k", "sks") == "sks|person|5|False|False"
    place = Place.open(tmp_path)
    assert place.work == tmp_path and not place.is_project
    with pytest.raises(UserError, match=r"`prep build` works on a project.*prep new"):
        place.need_project("build")


def test_without_a_folder_the_project_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no dataset\.toml in"):
        Place.open(None)
    project(tmp_path, '[project]\nwork = "w"\nreg = "r"\ntree = "t"\nraw = "../pictures"\n')
    place = Place.open(None)
    place.need_project("build")
    assert (place.raw, place.work, place.reg, place.tree) == (Path("../pictures"), Path("w"), Path("r"), Path("t"))


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*nowhere; check the path"):
        Place.open(tmp_path / "nowhere")


def test_all_unknown_tables_and_project_keys_are_told_at_once(tmp_path: Path) -> None:
    project(tmp_path, 'tag = 1\n[projekt]\n[project]\nkeywrd = "x"\n')
    with pytest.raises(UserError) as caught:
        Place.open(tmp_path)
    told = str(caught.value)
    assert "unknown setting projekt, did you mean project?" in told and "tag must be a table [tag]" in told
    assert "[project]: unknown setting keywrd, did you mean keyword?" in told


def test_all_faults_of_a_commands_table_are_told_at_once(tmp_path: Path) -> None:
    root = project(tmp_path, "[project]\nkeyword = 1\n[rare]\ncuont = 3\ncount = true\nfast = 1\n")
    with pytest.raises(UserError) as caught:
        run(root)
    for words in ("unknown setting cuont, did you mean count?", "[rare] count: True is not a whole number", "[rare] fast: 1", "[project] keyword: 1"):
        assert words in str(caught.value)


def test_another_commands_table_is_not_read(tmp_path: Path) -> None:
    assert run(project(tmp_path, "[clean]\nnonsense = 1\n")) == "|person|5|False|True"


def test_help_is_the_docstring_and_the_options() -> None:
    told = run("--help")
    assert "A command for the tests" in told and "--class TEXT" in told and "-k, --keyword" in told and "--no-fast" in told


def test_the_class_of_all_commands_is_none_itself(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be run by itself"):
        Command().main(Place(tmp_path))
