"""Run: a folder's items stream through steps, the report says what became of them, and the chain goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from prep import run as module
from prep.item import Item
from prep.options import UserError, option
from prep.project import Command, Place
from prep.run import AFTER, STEPS, Report, Run, run_steps, track
from prep.step import Step
from prep.store import Store

NAMES = ("a", "[artist] b", "c")


@dataclass(frozen=True)
class Mark(Step):
    """Note that an item was here."""

    word: str = option("x", help="What is noted.")

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        for item in batch:
            item.notes.append(self.word)
            yield item

    def finish(self, place: Place, store: Store) -> None:
        print(f"finish {self.word}")


@dataclass(frozen=True)
class Refuse(Step):
    """Set aside all items whose key holds `letter`."""

    letter: str = option("b", help="Which.")

    def apply(self, batch: list[Item], store: Store) -> Iterable[Item]:
        for item in batch:
            if self.letter in item.key:
                item.drop("too_small", "8 x 8 [px]")
            yield item


class Gather(Step):
    """Read all items before it gives one on, as `dedup` does."""

    def __call__(self, items: Iterable[Item], store: Store) -> Iterator[Item]:
        yield from list(items)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in NAMES:
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{name}.png")
    return Place(tmp_path)


def test_items_pass_all_steps_and_then_every_step_finishes(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    report = run_steps(place, [Mark("one"), Refuse(), Mark("two")])
    assert (report.kept, report.aside) == (2, [("[artist] b", "too_small", "8 x 8 [px]")])
    assert {item.key: item.notes for item in Store(place.root).load()} == {"a": ["one", "two"], "[artist] b": ["one"], "c": ["one", "two"]}
    assert capsys.readouterr().out == "finish one\nfinish two\n"


def test_the_report_is_shown_and_kept(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    run_steps(place, [Refuse()])
    told = capsys.readouterr()
    assert "2 pictures kept, 1 set aside (1 too_small)" in told.err and told.out == ""
    assert "[artist] b" in told.err and "8 x 8 [px]" in told.err  # brackets are no markup
    assert json.loads((place.root / ".atelier/report.json").read_text(encoding="utf-8")) == {
        "kept": 2,
        "set_aside": [{"picture": "[artist] b", "reason": "too_small", "detail": "8 x 8 [px]"}],
    }


def test_a_report_counts_the_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    for key, reason in (("a", "duplicate"), ("b", ""), ("c", "truncated"), ("d", "duplicate")):
        report.add(Item(key, Path(key), dropped=reason))
    report.show()
    assert "1 pictures kept, 3 set aside (2 duplicate, 1 truncated)" in capsys.readouterr().err


def test_no_pictures_is_an_error_and_leaves_no_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no pictures"):
        run_steps(Place(tmp_path), [Mark()])
    assert not (tmp_path / ".atelier").exists()


def test_the_bar_moves_while_a_step_gathers_and_is_full_at_the_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[float] = []
    heads: list[tuple[str, int]] = []

    @contextmanager
    def bar(title: str, total: int) -> Iterator[object]:
        heads.append((title, total))
        yield moves.append

    class Late(Gather):
        def __call__(self, items: Iterable[Item], store: Store) -> Iterator[Item]:
            gathered = list(super().__call__(items, store))
            assert sum(moves) == 1.5, "half of the way when all have been read"
            yield from gathered

    monkeypatch.setattr(module, "bar", bar)
    run_steps(place, [Mark(), Late(), Mark()])
    assert heads == [("mark … mark", 3)] and sum(moves) == 3


def test_the_bar_is_drawn_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track("abc", "draw", 3)) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(force_terminal=True, width=100))
    assert list(track("abc", "draw", 3)) == ["a", "b", "c"]
    assert "draw" in capsys.readouterr().out


def test_a_bar_lets_an_error_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(force_terminal=True, width=100, quiet=True))
    with pytest.raises(ZeroDivisionError):
        list(track((1 // n for n in (1, 0)), "draw"))
    assert list(track([1], "again")) == [1]  # the terminal was given back


def test_the_chain_is_the_steps_of_the_design() -> None:
    names = [spec.partition(":")[2] for spec in (*STEPS, *AFTER)]
    pictures = ["Clean", "Dedup", "Marks", "Subject", "Identity", "Crop", "Tag", "Recheck", "Caption", "Keyword", "Tokens"]
    assert names == [*pictures, "Regularize", "Build", "Check"]


LOG: list[str] = []


@dataclass(frozen=True)
class Regularize(Command):
    """Stands for the command of that name."""

    def main(self, place: Place) -> None:
        LOG.append("regularize")


@dataclass(frozen=True)
class Build(Command):
    """Stands for the command of that name."""

    def main(self, place: Place) -> None:
        LOG.append("build")


@dataclass(frozen=True)
class Clean(Refuse):
    """Stands for the command of that name."""


@pytest.fixture
def project(place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    (place.root / "work").mkdir()
    for name in NAMES:
        (place.root / f"{name}.png").rename(place.root / "work" / f"{name}.png")
    (place.root / "dataset.toml").write_text("", encoding="utf-8")
    monkeypatch.setattr(module, "STEPS", (f"{__name__}:Clean",))
    monkeypatch.setattr(module, "AFTER", (f"{__name__}:Regularize", f"{__name__}:Build"))
    LOG.clear()
    return place.root


def test_after_the_pictures_come_the_commands_on_the_project(project: Path) -> None:
    Run().main(Place.open(project))
    assert LOG == ["regularize", "build"]
    LOG.clear()
    Run(regularize=False).main(Place.open(project))
    assert LOG == ["build"]


def test_without_a_kept_picture_nothing_is_built(project: Path) -> None:
    (project / "dataset.toml").write_text('[clean]\nletter = ""\n', encoding="utf-8")  # is in every name
    with pytest.raises(UserError, match="fit for training"):
        Run().main(Place.open(project))
    assert LOG == []


def test_faults_in_the_settings_are_told_before_any_work(project: Path) -> None:
    (project / "dataset.toml").write_text("[build]\nx = 1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"\[build\]: unknown setting x"):
        Run().main(Place.open(project))
    assert not (project / "work/.atelier").exists() and LOG == []


@pytest.mark.parametrize(("settings", "missing"), [("", "class"), ('[project]\nclass = "1girl"\n', "keyword")])
def test_what_a_later_command_misses_is_told_before_any_work(project: Path, monkeypatch: pytest.MonkeyPatch, settings: str, missing: str) -> None:
    monkeypatch.setattr(module, "AFTER", AFTER)
    (project / "dataset.toml").write_text(settings, encoding="utf-8")
    with pytest.raises(UserError, match=f"no {missing}"):
        Run().main(Place.open(project))
    assert not (project / "work/.atelier").exists()


def test_the_whole_chain_needs_a_project(place: Place) -> None:
    with pytest.raises(UserError, match="`prep run` works on a project"):
        Run().main(place)
