"""Regularize: exactly N pictures, whatever interrupts, whatever the user brought, and never mixed settings."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prep import regularize as module
from prep.cli import main
from prep.images import load
from prep.item import Item
from prep.options import UserError
from prep.regularize import Regularize
from prep.store import Store


class FakeModel:
    resolution = 512
    vae_scale = 8


class Fake:
    """Draw a picture whose corner has its seed's colour; `dies_after` pictures the run is interrupted; seeds in `blank` give flat colour."""

    model = FakeModel()

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.asked: list[dict[str, Any]] = []
        self.dies_after = 10_000
        self.blank: set[int] = set()
        self.same: dict[int, int] = {}  # seed -> the seed whose picture it gives

    def draw(self, prompts: list[str], seeds: list[int], **settings: Any) -> Iterator[Image.Image]:
        self.asked.append({"prompts": prompts, **settings})
        for number, seed in enumerate(seeds):
            if number == self.dies_after:
                raise KeyboardInterrupt
            self.seeds.append(seed)
            if seed in self.blank:
                yield Image.new("RGB", (16, 16), (0, 0, 0))
                continue
            noise = np.random.default_rng(self.same.get(seed, seed)).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            noise[0, 0, 0] = seed % 256
            yield Image.fromarray(noise)


FAKE = Fake()
LOADED: list[tuple[str, int]] = []


def load_fake(base: str, clip_skip: int = 1, precision: str = "auto") -> Fake:
    if base == "typo":
        raise UserError("there is no base model typo; check the name")
    LOADED.append((base, clip_skip))
    return FAKE


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Fake:
    monkeypatch.setitem(module.GENERATORS, "diffusers", f"{__name__}:load_fake")
    monkeypatch.setenv("LORA_ATELIER_CACHE", str(tmp_path_factory.mktemp("cache")))
    FAKE.__init__()  # type: ignore[misc]
    LOADED.clear()
    return FAKE


def reg(folder: Path, *args: object, cls: str = "photo of a man") -> Result:
    """Run the command without the stock, unless it is asked for."""
    return CliRunner().invoke(main, ["regularize", str(folder), "--no-stock", "--class", cls, *(str(arg) for arg in args)])


def reds(folder: Path) -> list[int]:
    """Return the seeds (below 256) of the pictures of a folder, by name."""
    return [load(path).getpixel((0, 0))[0] for path in sorted(folder.glob("*.png"))]  # type: ignore[index]


def own(folder: Path, name: str, text: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(sum(map(ord, name)) + 5000).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / name)
    if text:
        (folder / name).with_suffix(".txt").write_text(text, encoding="utf-8")
    return folder / name


def test_n_pictures_each_from_its_seed_with_the_class_as_caption(tmp_path: Path, fake: Fake) -> None:
    result = reg(tmp_path / "reg", "-n", 3, "--seed", 7, "--steps", 9, "--clip-skip", 2, "--base", "some/model", "--size", 64)
    assert result.exit_code == 0 and "3 regularization pictures" in result.output and "3 drawn now, 0 of your own" in result.output
    assert LOADED == [("some/model", 2)] and fake.seeds == [7, 8, 9] == reds(tmp_path / "reg")
    assert [path.name for path in sorted((tmp_path / "reg").glob("0*"))] == [f"0000{i}.{s}" for i in range(3) for s in ("png", "txt")]
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

    monkeypatch.setattr("prep.drawing.save", dying)
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


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("how", ["word", "nought", "toml"])
def test_the_count_may_be_the_word_match(tmp_path: Path, how: str) -> None:
    count = 'count = "match"\n' if how == "toml" else "count = 5\n"
    root = project(tmp_path, f'[project]\nclass = "1girl"\n[build]\nrepeats = 2\n[regularize]\n{count}', kept=3)
    extra = {"word": ["-n", "match"], "nought": ["-n", "0"], "toml": []}[how]
    result = CliRunner().invoke(main, ["regularize", str(root), *extra])
    assert result.exit_code == 0 and "6 regularization pictures" in result.output


@pytest.mark.parametrize("count", ["many", "-1"])
def test_another_word_is_no_count(tmp_path: Path, count: str) -> None:
    assert reg(tmp_path, "-n", count).exit_code == 2


def test_match_counts_the_emphasis_of_single_pictures(tmp_path: Path) -> None:
    root = project(tmp_path, '[project]\nclass = "1girl"\n[build]\nrepeats = 4\n', kept=3)
    item = next(item for item in Store(root / "work").load() if item.key == "1")
    item.emphasis = 0.5
    Store(root / "work").save(item)
    assert "10 regularization pictures" in CliRunner().invoke(main, ["regularize", str(root)]).output  # 4 + 2 + 4


def test_every_drawn_picture_has_a_line_of_metadata(tmp_path: Path, fake: Fake) -> None:
    fake.dies_after = 2
    reg(tmp_path, "-n", 4, "--seed", 0, "--negative-prompt", "text")
    with (tmp_path / "metadata.jsonl").open("a") as file:
        file.write('{"file_name": "0000')  # a kill in the middle of a line
    fake.dies_after = 10_000
    reg(tmp_path, "-n", 4, "--seed", 0, "--negative-prompt", "text")
    found = lines(tmp_path)
    assert [(row["file_name"], row["seed"], row["size"]) for row in found] == [(f"0000{n}.png", n, [16, 16]) for n in range(4)]
    assert {(row["text"], row["negative_prompt"], row["steps"], row["sampler"], row["clip_skip"]) for row in found} == {
        ("photo of a man", "text", 25, "ddim", 1)
    }


def test_blank_pictures_and_doubles_are_drawn_again_from_other_seeds(tmp_path: Path, fake: Fake) -> None:
    fake.blank, fake.same = {1}, {3: 0}
    own(tmp_path, "mine.png")
    result = reg(tmp_path, "-n", 6, "--seed", 0)
    assert result.exit_code == 0 and "6 regularization pictures" in result.output and "5 drawn now, 1 of your own" in result.output
    assert [row["seed"] for row in lines(tmp_path)] == [0, 1 + 1_000_003, 2, 3 + 1_000_003, 4]
    assert "0 drawn now" in reg(tmp_path, "-n", 6, "--seed", 0).output


def test_a_base_that_draws_nothing_is_an_error_and_leaves_no_picture(tmp_path: Path, fake: Fake) -> None:
    fake.blank = {1 + n * 1_000_003 for n in range(10)}
    result = reg(tmp_path, "-n", 3, "--seed", 0)
    assert result.exit_code == 1 and "came out blank 5 times" in result.output
    assert len(list(tmp_path.glob("*.png"))) == len(list(tmp_path.glob("*.txt"))) == 2


SAME = st.dictionaries(st.integers(4, 7), st.integers(0, 3), max_size=2)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 5), max_size=4), st.sets(st.integers(0, 7), max_size=3), SAME)
def test_whatever_interrupts_the_pictures_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, kills: list[int], blank: set[int], same: dict[int, int]
) -> None:
    calm, stormy = tmp_path_factory.mktemp("calm"), tmp_path_factory.mktemp("stormy")
    FAKE.blank, FAKE.same, FAKE.dies_after = blank, same, 10_000
    assert reg(calm, "-n", 8, "--seed", 0).exit_code == 0
    for after in kills:
        FAKE.dies_after = after
        reg(stormy, "-n", 8, "--seed", 0)
    FAKE.dies_after = 10_000
    assert reg(stormy, "-n", 8, "--seed", 0).exit_code == 0
    ours, theirs = ({path.name: path.read_bytes() for path in folder.glob("[!.]*")} for folder in (calm, stormy))
    assert ours == theirs and len([name for name in ours if name.endswith(".png")]) == 8


def stocked(folder: Path, *args: object) -> Result:
    return CliRunner().invoke(main, ["regularize", str(folder), "--class", "photo of a man", "--seed", "0", *map(str, args)])


def test_a_second_project_takes_pictures_from_the_stock(tmp_path: Path, fake: Fake) -> None:
    assert "3 drawn now" in stocked(tmp_path / "one", "-n", 3).output
    LOADED.clear()
    result = stocked(tmp_path / "two", "-n", 3)
    assert result.exit_code == 0 and "0 drawn now, 3 from the stock" in result.output and not LOADED
    one, two = (sorted((tmp_path / name).glob("0*")) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert lines(tmp_path / "one") == lines(tmp_path / "two")
    assert os.path.samefile(one[0], two[0])
    assert "2 drawn now, 3 from the stock" in stocked(tmp_path / "three", "-n", 5).output
    assert "3 drawn now" in stocked(tmp_path / "four", "-n", 3, "--steps", 9).output


def test_a_picture_that_some_project_edited_is_not_taken(tmp_path: Path, fake: Fake) -> None:
    stocked(tmp_path / "one", "-n", 2)
    with (tmp_path / "one/00001.png").open("r+b") as file:
        file.write(b"edited in place, and so in the stock too")
    assert "1 drawn now, 1 from the stock" in stocked(tmp_path / "two", "-n", 2).output
    assert reds(tmp_path / "two") == [0, 1]


def test_the_stock_serves_on_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refused)
    stocked(tmp_path / "one", "-n", 2)
    assert "2 from the stock" in stocked(tmp_path / "two", "-n", 2).output and reds(tmp_path / "two") == [0, 1]


def test_a_stock_that_cannot_be_written_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("LORA_ATELIER_CACHE", str(tmp_path / "file"))
    result = stocked(tmp_path / "one", "-n", 2)
    assert result.exit_code == 0 and "2 drawn now" in result.output


def test_pictures_elsewhere_are_adopted_once(tmp_path: Path, fake: Fake) -> None:
    own(tmp_path / "photos", "a.jpg", "a man in a hat")
    own(tmp_path / "photos", "00001.png")
    shutil.copy(tmp_path / "photos/a.jpg", tmp_path / "photos/again.jpg")
    Image.open(tmp_path / "photos/00001.png").save(tmp_path / "photos/same.png", compress_level=1)
    Image.new("RGB", (16, 16)).save(tmp_path / "photos/black.png")
    (tmp_path / "photos/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    for drawn in (2, 0):
        result = reg(tmp_path / "reg", "-n", 4, "--seed", 0, "--adopt", str(tmp_path / "photos"))
        assert result.exit_code == 0 and f"{drawn} drawn now, 2 of your own" in result.output, result.output
    assert sorted(path.name for path in (tmp_path / "reg").glob("[!.]*.*g")) == ["00000.png", "00001.png", "00002.png", "a.jpg"]
    assert (tmp_path / "reg/a.txt").read_text("utf-8") == "a man in a hat\n"
    again = reg(tmp_path / "reg", "-n", 4, "--adopt", str(tmp_path / "photos"), "--seed", 0).output
    assert "0 pictures adopted" in again and "black.png is left out (blank)" in again and "broken.png is left out (truncated)" in again


def test_adopting_a_keyword_or_nothing_is_refused(tmp_path: Path) -> None:
    own(tmp_path / "photos", "a.png", "photo of SKS")
    result = reg(tmp_path / "reg", "-n", 1, "--keyword", "sks", "--adopt", str(tmp_path / "photos"))
    assert result.exit_code == 1 and "a.png" in result.output and "holds the keyword" in result.output
    assert "no pictures in" in reg(tmp_path / "reg", "-n", 1, "--adopt", str(tmp_path / "nowhere")).output


def matched_project(root: Path, captions: dict[str, str], more: str = "") -> Store:
    (root / "dataset.toml").write_text(f'[project]\nkeyword = "mira"\nclass = "1girl"\n{more}', encoding="utf-8")
    store = Store(root / "work")
    for key, text in captions.items():
        own(store.folder, f"{key}.png", text)
        store.save(Item(key, store.folder / f"{key}.png", width=16, height=16))
    return store


def test_matched_pictures_have_the_size_at_which_their_picture_is_trained(tmp_path: Path, fake: Fake) -> None:
    store = matched_project(tmp_path, {"a": "mira, 1girl", "b": "mira, hat", "c": "mira, bow"})
    wide, tall, _ = store.load()
    wide.width, wide.height = 1600, 900
    tall.crop = (0, 0, 300, 600)
    for item in (wide, tall):
        store.save(item)
    assert CliRunner().invoke(main, ["regularize", str(tmp_path), "-n", "6", "--matched"]).exit_code == 0
    assert {tuple(asked["size"]): len(asked["prompts"]) for asked in fake.asked} == {(640, 384): 2, (320, 704): 2, (512, 512): 2}
    assert [(row["matches"], row["seed"]) for row in lines(tmp_path / "reg")] == [(key, 1000 + n) for n, key in enumerate("abcabc")]


@pytest.mark.parametrize(
    ("wildcard", "expected"), [("true", ["1girl, smile", "1girl, hat", "1girl, waves", "1girl, hat"]), ("false", ["1girl, smile", "1girl, hat"] * 2)]
)
def test_matched_draws_each_wording_that_is_trained_on(tmp_path: Path, fake: Fake, wildcard: str, expected: list[str]) -> None:
    matched_project(tmp_path, {"a": "mira, smile\nmira, waves", "b": "mira, hat"}, f"[train]\nenable_wildcard = {wildcard}\n")
    result = CliRunner().invoke(main, ["regularize", str(tmp_path), "-n", "4", "--matched"])
    assert result.exit_code == 0, result.output
    assert [path.read_text("utf-8").strip() for path in sorted((tmp_path / "reg").glob("*.txt"))] == expected


def test_matched_takes_the_run_s_resolution(tmp_path: Path, fake: Fake) -> None:
    matched_project(tmp_path, {"a": "mira, 1girl"}, "[train]\nresolution = 768\n")
    assert CliRunner().invoke(main, ["regularize", str(tmp_path), "-n", "1", "--matched"]).exit_code == 0
    assert fake.asked[0]["size"] == (768, 768)


def test_no_matched_prompt_holds_the_keyword(tmp_path: Path, fake: Fake) -> None:
    matched_project(tmp_path, {"a": "mira, 1girl", "b": "mira, Mira's hat"})
    result = CliRunner().invoke(main, ["regularize", str(tmp_path), "-n", "2", "--matched"])
    assert result.exit_code == 1 and "b.png" in result.output and "inside another tag" in result.output
    assert not fake.asked


def test_the_sampler_reaches_the_generator_and_the_record(tmp_path: Path, fake: Fake) -> None:
    assert reg(tmp_path, "-n", 1, "--sampler", "euler").exit_code == 0
    assert fake.asked[0]["sampler"] == "euler" and lines(tmp_path)[0]["sampler"] == "euler"
    assert "sampler" in reg(tmp_path, "-n", 1).output
