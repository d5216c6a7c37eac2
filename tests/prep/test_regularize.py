"""Regularize: exactly N pictures, whatever interrupts, whatever the user brought, and never mixed settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prep import regularize as module
from prep.cli import main
from prep.images import load
from prep.item import Item, Store
from prep.options import UserError
from prep.regularize import Regularize


class Fake:
    """Draw a picture whose colour is its seed; `dies_after` pictures the run is interrupted."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.asked: list[dict[str, Any]] = []
        self.dies_after = 10_000

    def draw(self, prompts: list[str], seeds: list[int], **settings: Any) -> Iterator[Image.Image]:
        self.asked.append({"prompts": prompts, **settings})
        for number, seed in enumerate(seeds):
            if number == self.dies_after:
                raise KeyboardInterrupt
            self.seeds.append(seed)
            yield Image.new("RGB", (8, 8), (seed % 256, len(prompts[number]), 0))


FAKE = Fake()
LOADED: list[tuple[str, int]] = []


def load_fake(base: str, clip_skip: int = 1) -> Fake:
    if base == "typo":
        raise UserError("there is no base model typo; check the name")
    LOADED.append((base, clip_skip))
    return FAKE


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setitem(module.GENERATORS, "diffusers", f"{__name__}:load_fake")
    FAKE.__init__()  # type: ignore[misc]
    LOADED.clear()
    return FAKE


def reg(folder: Path, *args: object, cls: str = "photo of a man") -> Result:
    return CliRunner().invoke(main, ["regularize", str(folder), "--class", cls, *(str(arg) for arg in args)])


def reds(folder: Path) -> list[int]:
    """Return the seeds (below 256) of the pictures of a folder, by name."""
    return [load(path).getpixel((0, 0))[0] for path in sorted(folder.glob("*.png"))]  # type: ignore[index]


def own(folder: Path, name: str, text: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), (255, 255, 255)).save(folder / name)
    if text:
        (folder / name).with_suffix(".txt").write_text(text, encoding="utf-8")
    return folder / name


def test_n_pictures_each_from_its_seed_with_the_class_as_caption(tmp_path: Path, fake: Fake) -> None:
    result = reg(tmp_path / "reg", "-n", 3, "--seed", 7, "--steps", 9, "--clip-skip", 2, "--base", "some/model", "--size", 64)
    assert result.exit_code == 0 and "3 regularization pictures" in result.output and "3 drawn now, 0 of your own" in result.output
    assert LOADED == [("some/model", 2)] and fake.seeds == [7, 8, 9] == reds(tmp_path / "reg")
    assert [path.name for path in sorted((tmp_path / "reg").glob("[!.]*"))] == [f"0000{i}.{s}" for i in range(3) for s in ("png", "txt")]
    assert {path.read_text(encoding="utf-8") for path in (tmp_path / "reg").glob("*.txt")} == {"photo of a man\n"}
    (asked,) = fake.asked
    assert asked == {
        "prompts": ["photo of a man"] * 3, "steps": 9, "guidance_scale": 5.0, "negative_prompt": "", "size": 64, "batch_size": 8,
    }  # fmt: skip


@pytest.mark.parametrize("after", [0, 1, 4])
def test_an_interrupted_run_goes_on_to_exactly_n(tmp_path: Path, fake: Fake, after: int) -> None:
    fake.dies_after = after
    assert reg(tmp_path, "-n", 5, "--seed", 0).exit_code == 1
    assert len(list(tmp_path.glob("*.png"))) == after
    fake.dies_after = 10_000
    assert reg(tmp_path, "-n", 5, "--seed", 0).exit_code == 0
    assert fake.seeds == reds(tmp_path) == [0, 1, 2, 3, 4]
    assert "0 drawn now" in reg(tmp_path, "-n", 5, "--seed", 0).output and len(LOADED) == 2


def test_killed_between_caption_and_picture_the_picture_is_drawn(tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save", dying)
    assert reg(tmp_path, "-n", 2).exit_code == 1
    monkeypatch.undo()
    monkeypatch.setitem(module.GENERATORS, "diffusers", f"{__name__}:load_fake")
    assert reg(tmp_path, "-n", 2).exit_code == 0
    assert len(list(tmp_path.glob("*.png"))) == len(list(tmp_path.glob("*.txt"))) == 2


def test_a_deleted_picture_is_drawn_again_and_more_can_be_asked_for(tmp_path: Path, fake: Fake) -> None:
    reg(tmp_path, "-n", 3, "--seed", 0)
    (tmp_path / "00001.png").unlink()
    reg(tmp_path, "-n", 5, "--seed", 0)
    assert fake.seeds == [0, 1, 2, 1, 3, 4] and reds(tmp_path) == [0, 1, 2, 3, 4]
    assert "5 regularization pictures" in reg(tmp_path, "-n", 2, "--seed", 0).output  # fewer: none is taken away


def test_pictures_of_your_own_count_and_are_never_drawn_over(tmp_path: Path, fake: Fake) -> None:
    mine = [own(tmp_path / "reg", "00001.png"), own(tmp_path / "reg", "00002.jpg", "my words"), own(tmp_path / "reg", "man.png")]
    before = [path.read_bytes() for path in mine]
    for extra in ((), (), ("--redo",)):
        result = reg(tmp_path / "reg", "-n", 5, "--seed", 0, *extra)
        assert result.exit_code == 0 and "5 regularization pictures" in result.output and "3 of your own" in result.output
    assert fake.seeds == [0, 3, 0, 3]
    assert [path.read_bytes() for path in mine] == before
    assert (tmp_path / "reg/00002.txt").read_text(encoding="utf-8") == "my words" and not (tmp_path / "reg/00001.txt").exists()


def test_enough_of_your_own_need_no_model(tmp_path: Path) -> None:
    own(tmp_path, "x.png")
    assert "1 of your own" in reg(tmp_path, "-n", 1).output and not LOADED


@pytest.mark.parametrize(
    "change",
    [("--steps", 30), ("--guidance-scale", 7), ("--base", "b"), ("--seed", 1), ("--clip-skip", 2), ("--negative-prompt", "x"), ("--size", 8)],
)
def test_changed_settings_are_refused_and_redo_draws_all_anew(tmp_path: Path, fake: Fake, change: tuple[str, object]) -> None:
    reg(tmp_path, "-n", 2)
    before = reds(tmp_path)
    result = reg(tmp_path, "-n", 2, *change)
    assert result.exit_code == 1 and "--redo" in result.output and change[0][2:].replace("-", "_") in result.output
    assert reds(tmp_path) == before and len(fake.seeds) == 2
    assert "2 drawn now" in reg(tmp_path, "-n", 2, *change, "--redo").output
    assert "0 drawn now" in reg(tmp_path, "-n", 2, *change).output


def test_redo_also_replaces_drawn_pictures_whose_caption_was_edited(tmp_path: Path, fake: Fake) -> None:
    reg(tmp_path, "-n", 3)
    (tmp_path / "00001.txt").write_text("photo of a man, tagged", encoding="utf-8")
    result = reg(tmp_path, "-n", 2, "--redo", cls="photo of a woman")
    assert "2 regularization pictures" in result.output and "0 of your own" in result.output
    assert len(list(tmp_path.glob("*.png"))) == 2
    assert (tmp_path / "00001.txt").read_text(encoding="utf-8") == "photo of a woman\n"


def test_an_interrupted_redo_goes_on_without_redo(tmp_path: Path, fake: Fake) -> None:
    reg(tmp_path, "-n", 4, "--seed", 0)
    fake.dies_after = 2
    assert reg(tmp_path, "-n", 4, "--seed", 100, "--redo").exit_code == 1
    fake.dies_after = 10_000
    assert "2 drawn now" in reg(tmp_path, "-n", 4, "--seed", 100).output
    assert reds(tmp_path) == [100, 101, 102, 103]


def test_a_mistaken_base_leaves_no_record_and_costs_no_picture(tmp_path: Path, fake: Fake) -> None:
    assert reg(tmp_path, "-n", 2, "--base", "typo").exit_code == 1
    assert reg(tmp_path, "-n", 2, "--seed", 0).exit_code == 0
    result = reg(tmp_path, "-n", 2, "--base", "typo", "--redo")
    assert result.exit_code == 1 and "check the name" in result.output
    assert reds(tmp_path) == [0, 1]


def test_an_unreadable_record_is_named(tmp_path: Path) -> None:
    reg(tmp_path, "-n", 1)
    (tmp_path / ".atelier/regularize.json").write_text("{", encoding="utf-8")
    result = reg(tmp_path, "-n", 1)
    assert result.exit_code == 1 and "regularize.json is not readable" in result.output


@pytest.mark.parametrize(
    ("keyword", "prompt"),
    [
        ("sks", "photo of sks man"),
        ("sks", "photo of SKS, man"),
        ("mira_doe", "1girl, Mira Doe, solo"),
        ("red hat", "girl in red_hat"),
        ("^_^", "1girl, ^_^"),
    ],
)
def test_the_keyword_in_the_prompt_is_refused(tmp_path: Path, keyword: str, prompt: str) -> None:
    result = reg(tmp_path, "-n", 1, "--keyword", keyword, cls=prompt)
    assert result.exit_code == 1 and "describe the class without it" in result.output and not LOADED


@pytest.mark.parametrize("keyword", ["", "man", "pho", "hoto"])
def test_a_part_of_a_word_is_not_the_keyword(tmp_path: Path, keyword: str) -> None:
    assert reg(tmp_path, "-n", 1, "--keyword", keyword, cls="photo of a woman").exit_code == 0


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "girl", "sks", "with", "hat"]), min_size=1, max_size=6), st.sampled_from(["sks", "red hat", "girl with"]))
def test_a_keyword_is_found_exactly_where_its_words_stand(words: list[str], keyword: str) -> None:
    wanted = keyword.split()
    holds = any(words[i : i + len(wanted)] == wanted for i in range(len(words)))
    assert Regularize(class_=" ".join(words), keyword=keyword)._holds_keyword() == holds


def project(root: Path, text: str, kept: int) -> Path:
    (root / "dataset.toml").write_text(text, encoding="utf-8")
    store = Store(root / "work")
    for index in range(kept + 1):
        path = own(root / "work", f"{index}.png")
        store.save(Item(f"{index}", path, dropped="duplicate" if index == kept else ""))
    return root


def test_by_default_there_are_as_many_as_training_sees_of_the_concept(tmp_path: Path) -> None:
    root = project(tmp_path, '[project]\nkeyword = "mira"\nclass = "1girl"\n[build]\nrepeats = 4\n', kept=3)
    result = CliRunner().invoke(main, ["regularize", str(root)])
    assert result.exit_code == 0 and "12 regularization pictures" in result.output
    assert len(list((root / "reg").glob("*.png"))) == 12
    assert {path.read_text(encoding="utf-8") for path in (root / "reg").glob("*.txt")} == {"1girl\n"}


def test_repeats_that_are_chosen_count_too(tmp_path: Path) -> None:
    root = project(tmp_path, '[project]\nclass = "1girl"\n[build]\ntarget = 7\n', kept=3)
    assert "6 regularization pictures" in CliRunner().invoke(main, ["regularize", str(root)]).output  # round(7 / 3) x 3


def test_what_is_missing_is_a_sentence(tmp_path: Path) -> None:
    assert "no class is given" in reg(tmp_path, "-n", 1, cls="").output
    assert "say -n 200" in reg(tmp_path).output
    assert not list(tmp_path.iterdir())
    (tmp_path / "dataset.toml").write_text("", encoding="utf-8")
    assert "run `prep clean` first" in reg(tmp_path).output


def test_matched_draws_every_training_caption_without_the_keyword(tmp_path: Path, fake: Fake) -> None:
    (tmp_path / "dataset.toml").write_text('[project]\nkeyword = "mira"\nclass = "1girl"\n', encoding="utf-8")
    store = Store(tmp_path / "work")
    for key, text in {"a": "mira, 1girl, smile", "b": "Mira, hat"}.items():
        own(store.folder, f"{key}.png", text)
        store.save(Item(key, store.folder / f"{key}.png"))
    result = CliRunner().invoke(main, ["regularize", str(tmp_path), "-n", "3", "--matched"])
    assert result.exit_code == 0, result.output
    texts = [path.read_text("utf-8").strip() for path in sorted((tmp_path / "reg").glob("*.txt"))]
    assert texts == fake.asked[0]["prompts"] == ["1girl, smile", "1girl, hat", "1girl, smile"]
