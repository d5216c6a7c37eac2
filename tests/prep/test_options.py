"""Options: one declaration is the Click option, the TOML key and the Python argument, and faults are told all at once."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import tomlkit
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from prep import options
from prep.options import LazyGroup, UserError, atomic_write, build, given_values, load_object, option, parameters, read_settings, settings_of
from prep.options import unknown_keys as unknown


@dataclass(frozen=True)
class Knobs:
    """Every kind of setting."""

    steps: int = option(25, "-s", help="Steps.", min=1, max=100)
    rate: float | None = option(None, help="Rate.", min=0, max=1)
    class_: str = option("", help="Class.")
    flip: bool = option(False, help="Flip.")
    out: Path = option(Path("out"), help="Folder.")
    mode: str = option("none", help="Mode.", choices=("none", "square"))
    plain: int = 3  # not an option


@dataclass(frozen=True)
class Needy:
    """A setting without a default."""

    size: int = option(help="Size.")


def typed(cls: type, *args: str) -> dict[str, Any]:
    """Return the values that count as typed on the command line."""
    seen: list[dict[str, Any]] = []
    command = click.Command("x", params=list(parameters(cls)), callback=lambda **_: seen.append(given_values(click.get_current_context(), cls)))
    result = CliRunner().invoke(command, args)
    assert result.exit_code == 0, result.output
    return seen[0]


def test_only_fields_declared_as_options_are_settings() -> None:
    assert [(s.field, s.key, s.type, s.optional) for s in settings_of(Knobs)] == [
        ("steps", "steps", int, False),
        ("rate", "rate", float, True),
        ("class_", "class", str, False),
        ("flip", "flip", bool, False),
        ("out", "out", Path, False),
        ("mode", "mode", str, False),
    ]


def test_what_is_typed_beats_the_own_table_which_beats_the_project_which_beats_defaults() -> None:
    tables = [("[project]", {"class": "man", "steps": 2, "flip": True}), ("[knobs]", {"steps": 3, "flip": False})]
    assert build(Knobs, tables) == Knobs(steps=3, class_="man")
    given = typed(Knobs, "-s", "25", "--flip")  # 25 is the default too, and was typed all the same
    assert given == {"steps": 25, "flip": True}
    assert build(Knobs, tables, given) == Knobs(steps=25, class_="man", flip=True)
    assert typed(Knobs) == {}


def test_a_flag_of_every_kind_reaches_its_field() -> None:
    given = typed(Knobs, "--class", "1girl, solo", "--rate", "0.5", "--no-flip", "--out", "a/b", "--mode", "square")
    assert Knobs(**given) == Knobs(class_="1girl, solo", rate=0.5, out=Path("a/b"), mode="square")
    assert isinstance(given["out"], Path)


@pytest.mark.parametrize("args", [("--steps", "0"), ("--steps", "101"), ("--rate", "1.5"), ("--mode", "round"), ("--steps", "1.5")])
def test_a_flag_out_of_bounds_is_a_usage_error(args: tuple[str, ...]) -> None:
    result = CliRunner().invoke(click.Command("x", params=list(parameters(Knobs))), args)
    assert result.exit_code == 2 and args[1] in result.output


def test_a_setting_without_a_default_must_be_given() -> None:
    result = CliRunner().invoke(click.Command("x", params=list(parameters(Needy))), [])
    assert result.exit_code == 2 and "--size" in result.output
    assert settings_of(Needy)[0].required and typed(Needy, "--size", "4") == {"size": 4}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("steps", True, "True is not a whole number"),
        ("steps", 2.0, "2.0 is not a whole number"),
        ("steps", "2", "'2' is not a whole number"),
        ("steps", 0, "range"),
        ("rate", False, "False is not a number"),
        ("rate", 2, "range"),
        ("flip", 1, "1 is not true or false"),
        ("class", 5, "5 is not a text in quotes"),
        ("out", ["a"], "is not a path in quotes"),
        ("mode", "round", "'round' is not one of 'none', 'square'"),
    ],
)
def test_a_wrong_value_in_the_file_is_named_with_its_place(key: str, value: object, words: str) -> None:
    with pytest.raises(UserError, match=r"^\[knobs\] ") as caught:
        build(Knobs, [("[knobs]", {key: value})])
    assert f"{key}: " in str(caught.value) and words in str(caught.value) and not str(caught.value).endswith(".")


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        build(Knobs, [("[project]", {"class": 1}), ("[knobs]", {"steps": True, "mode": "round"})])
    assert all(words in str(caught.value) for words in ("[project] class", "[knobs] steps", "[knobs] mode"))


def test_an_unknown_key_is_asked_back() -> None:
    faults = unknown("[knobs]", {"step": 1, "qqqq": 2, "rate": 0}, ["steps", "rate"])
    assert faults == ["[knobs]: unknown setting step, did you mean steps?", "[knobs]: unknown setting qqqq"]


knobs = st.builds(
    Knobs,
    steps=st.integers(1, 100),
    rate=st.floats(0, 1),
    class_=st.text(st.characters(exclude_categories=["Cs"])),
    flip=st.booleans(),
    out=st.text("abc/ é", min_size=1).map(Path),
    mode=st.sampled_from(["none", "square"]),
)


@settings(deadline=None)
@given(knobs)
def test_settings_survive_the_way_through_a_toml_file(wanted: Knobs) -> None:
    table = {s.key: getattr(wanted, s.field) for s in settings_of(Knobs)} | {"out": str(wanted.out)}
    assert build(Knobs, [("[knobs]", tomllib.loads(tomlkit.dumps(table)))]) == wanted


@settings(deadline=None)
@given(knobs.filter(lambda k: "\0" not in k.class_))
def test_settings_survive_the_way_through_the_command_line(wanted: Knobs) -> None:
    args = ["--steps", f"{wanted.steps}", f"--rate={wanted.rate!r}", f"--class={wanted.class_}", "--flip" if wanted.flip else "--no-flip"]
    assert Knobs(**typed(Knobs, *args, f"--out={wanted.out}", "--mode", wanted.mode)) == wanted


def test_the_settings_file_may_begin_with_a_byte_order_mark_and_end_lines_as_windows_does(tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_bytes('\ufeff[project]\r\nkeyword = "é"\r\n'.encode())
    assert read_settings(tmp_path) == {"project": {"keyword": "é"}}


@pytest.mark.parametrize(("data", "words"), [(None, "prep new"), (b"[project\n", "not valid TOML"), (b'a = "\xff"', "not valid TOML")])
def test_a_missing_or_broken_settings_file_is_a_sentence(tmp_path: Path, data: bytes | None, words: str) -> None:
    if data is not None:
        (tmp_path / "dataset.toml").write_bytes(data)
    with pytest.raises(UserError, match=words) as caught:
        read_settings(tmp_path)
    assert "dataset.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_is_written_whole_and_in_folders_that_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "a/b/c.txt"
    atomic_write(path, "é\n")
    assert path.read_bytes() == b"\xc3\xa9\n"
    atomic_write(path, b"\0\r\n")
    assert path.read_bytes() == b"\0\r\n" and os.listdir(path.parent) == ["c.txt"]


@pytest.mark.parametrize("fails", ["fsync", "replace", "chmod"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    path = tmp_path / "c.txt"
    atomic_write(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(options.os, fails, full)
    with pytest.raises(OSError, match="No space"):
        atomic_write(path, "new")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["c.txt"] and path.read_text(encoding="utf-8") == "old"


def test_rows_are_imported_when_asked_for() -> None:
    assert load_object("pathlib:Path") is Path


def fail(kind: str) -> None:
    errors = {
        "user": UserError("the cat sits on it; chase it away"),
        "file": FileNotFoundError(2, "No such file or directory", "x.png"),
        "bug": ZeroDivisionError("by zero"),
    }
    raise errors[kind]


failing = click.Command("fail", params=[click.Argument(["kind"])], callback=fail)
group = LazyGroup("tool", table={"fail": f"{__name__}:failing"}, params=[click.Option(["--debug"], is_flag=True)])


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("user", "Error: the cat sits on it; chase it away\n"),
        ("file", "Error: x.png: No such file or directory\n"),
        ("bug", "Error: ZeroDivisionError: by zero (unexpected; --debug before the command shows where)\n"),
    ],
)
def test_an_error_is_one_sentence_and_with_debug_the_error_itself(kind: str, sentence: str) -> None:
    result = CliRunner().invoke(group, ["fail", kind])
    assert (result.exit_code, result.output) == (1, sentence)
    debugged = CliRunner().invoke(group, ["--debug", "fail", kind])
    assert isinstance(debugged.exception, UserError | FileNotFoundError | ZeroDivisionError)


def test_an_unknown_command_is_asked_back() -> None:
    result = CliRunner().invoke(group, ["fial"])
    assert result.exit_code == 2 and "Did you mean 'fail'?" in result.output
    assert "Did you mean" not in CliRunner().invoke(group, ["zzz"]).output
