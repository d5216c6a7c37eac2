import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from prep.cli import main
from prep.images import load, pixel_hash
from prep.imports import keep
from prep.item import Item
from prep.scores import Labels, ScoreStore
from prep.store import Store

# The step, over pictures whose scores are planted.
LABELS = Labels(("general", "1girl", "red_eyes", "hat"), ("rating", "general", "general", "general"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = Store(tmp_path)
    with ScoreStore.open(store.hidden) as scores:
        model = scores.register("planted", "w", 1, LABELS)
        for key, level in (("a", 10), ("b", 20)):
            path = tmp_path / f"{key}.png"
            Image.new("RGB", (8, 8), (level, 0, 0)).save(path)
            item = Item(key, path, digest=pixel_hash(load(path)))
            scores.put(model, {item.digest: np.array([1, 0.99, 0.5 + level / 100, 0.4], np.float32)})
            store.save(item)
    return tmp_path


def prep(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def item(folder: Path, key: str) -> Item:
    return next(item for item in Store(folder).load() if item.key == key)


def test_captions_are_compiled_and_only_touched_when_they_change(folder: Path) -> None:
    assert prep("caption", folder).exit_code == 0
    assert text(folder / "a.txt") == "1girl, red eyes, hat\n"
    before = (folder / "a.txt").stat().st_mtime_ns
    assert prep("caption", folder, "-t", 0.65).exit_code == 0
    assert (text(folder / "a.txt"), text(folder / "b.txt")) == ("1girl\n", "1girl, red eyes\n")
    assert item(folder, "b").caption == "1girl, red eyes" and item(folder, "b").tags == ["1girl", "red eyes"]
    assert prep("caption", folder).exit_code == 0
    assert prep("caption", folder).exit_code == 0
    assert text(folder / "a.txt") == "1girl, red eyes, hat\n" and (folder / "a.txt").stat().st_mtime_ns > before


def test_a_caption_changed_by_hand_stays_and_a_deleted_one_is_compiled_again(folder: Path) -> None:
    assert prep("caption", folder).exit_code == 0
    by_hand = b"a girl\r\nwith red eyes , smiling"
    (folder / "a.txt").write_bytes(by_hand)
    for threshold in (0.3, 0.9):
        assert prep("caption", folder, "-t", threshold).exit_code == 0
        assert (folder / "a.txt").read_bytes() == by_hand and item(folder, "a").hand
    (folder / "a.txt").unlink()
    assert prep("caption", folder, "-t", 0.9).exit_code == 0
    assert text(folder / "a.txt") == "1girl\n" and not item(folder, "a").hand
    (folder / "a.txt").write_text(" \n", encoding="utf-8")
    assert prep("caption", folder, "-t", 0.9).exit_code == 0
    assert text(folder / "a.txt") == "1girl\n"


def test_a_caption_from_before_us_and_one_from_the_raw_picture_are_a_persons(folder: Path) -> None:
    (folder / "a.caption").write_text("mine", encoding="utf-8")
    with_import = item(folder, "b")
    with_import.imported_caption = "imported, words"
    Store(folder).save(with_import)
    for _ in range(2):
        assert prep("caption", folder).exit_code == 0
        assert item(folder, "a").caption == "mine" and item(folder, "a").hand
        assert text(folder / "b.txt") == "imported, words\n" and item(folder, "b").hand
    (folder / "b.txt").unlink()
    assert prep("caption", folder).exit_code == 0
    assert text(folder / "b.txt") == "1girl, red eyes, hat\n"


def test_diff_shows_and_writes_nothing(folder: Path) -> None:
    assert prep("caption", folder).exit_code == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = prep("caption", folder, "--diff", "-t", 0.65)
    assert result.exit_code == 0
    assert f"{folder / 'a.txt'}: -red eyes, -hat" in result.output and f"{folder / 'b.txt'}: -hat" in result.output
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("call", ["os.fsync", "os.replace", "prep.ledger.Ledger.close"])
def test_a_run_killed_while_writing_does_not_take_its_own_text_for_a_persons(folder: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    assert prep("caption", folder).exit_code == 0
    (folder / "b.txt").write_text("a person's", encoding="utf-8")
    before = text(folder / "a.txt")

    def dying(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(call, dying)
    prep("caption", folder, "-t", 0.9)
    monkeypatch.undo()
    assert (text(folder / "a.txt") == before) == (call != "prep.ledger.Ledger.close")
    assert prep("caption", folder, "-t", 0.45).exit_code == 0
    assert text(folder / "a.txt") == "1girl, red eyes\n" and not item(folder, "a").hand
    assert text(folder / "b.txt") == "a person's" and item(folder, "b").hand
    assert not list(folder.rglob(".tmp-captions-*"))
    assert prep("caption", folder, "--undo").exit_code == 0
    assert text(folder / "a.txt") == before  # what it was before the first of the two


@pytest.mark.parametrize("written", [False, True])
def test_a_run_killed_while_it_appends_loses_no_word_of_a_person(folder: Path, monkeypatch: pytest.MonkeyPatch, written: bool) -> None:
    (folder / "b.txt").write_text("mine", encoding="utf-8")
    assert prep("caption", folder, "--mode", "append").exit_code == 0
    assert text(folder / "b.txt") == "mine, 1girl, red eyes, hat\n"

    def dying(*arguments: object) -> None:
        raise KeyboardInterrupt

    for threshold in (0.9, 0.45):  # killed again when it goes on
        with monkeypatch.context() as patched:
            patched.setattr("prep.ledger.Ledger.close" if written else "os.replace", dying)
            prep("caption", folder, "--mode", "append", "-t", threshold)
    assert text(folder / "b.txt") == ("mine, 1girl, red eyes\n" if written else "mine, 1girl, red eyes, hat\n")
    assert prep("caption", folder, "--mode", "append", "-t", 0.9).exit_code == 0
    assert text(folder / "b.txt") == "mine, 1girl\n" and item(folder, "b").hand
    assert prep("caption", folder).exit_code == 0
    assert text(folder / "b.txt") == "mine, 1girl\n" and item(folder, "b").hand


def test_what_a_person_writes_after_a_kill_stays_whatever_is_killed_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(*arguments: object) -> None:
        raise KeyboardInterrupt

    (folder / "b.txt").write_text("mine", encoding="utf-8")
    for words in ("mine", "other words", "third words"):
        (folder / "b.txt").write_text(words, encoding="utf-8")
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", dying)
            prep("caption", folder, "--mode", "append")
        assert text(folder / "b.txt") == words
    assert prep("caption", folder, "--mode", "append", "-t", 0.9).exit_code == 0
    assert text(folder / "b.txt") == "third words, 1girl\n" and item(folder, "b").hand


def test_a_caption_without_tags_is_an_empty_file_whatever_was_there(folder: Path) -> None:
    for threshold in (1, 0.3, 1):
        assert prep("caption", folder, "-t", threshold).exit_code == 0
        assert (text(folder / "a.txt") == "\n") == (threshold == 1) and not item(folder, "a").hand


# Modes, undo, explain.


@pytest.mark.parametrize(
    ("mode", "ours", "hand"),
    [
        ("replace", "1girl\n", "red eyes, my words"),
        ("append", "1girl\n", "red eyes, my words, 1girl\n"),
        ("prepend", "1girl\n", "1girl, red eyes, my words\n"),
        ("only-missing", "1girl, red eyes, hat\n", "red eyes, my words"),
    ],
)
def test_a_persons_caption_stays_or_gets_our_tags(folder: Path, mode: str, ours: str, hand: str) -> None:
    assert prep("caption", folder).exit_code == 0
    (folder / "b.txt").write_text("red eyes, my words", encoding="utf-8")
    for _ in range(2):
        assert prep("caption", folder, "--mode", mode, "-t", 0.9).exit_code == 0
        assert (text(folder / "a.txt"), text(folder / "b.txt")) == (ours, hand)
    assert prep("caption", folder, "--mode", mode, "-t", 0.3).exit_code == 0
    assert prep("caption", folder, "--mode", mode, "-t", 0.9).exit_code == 0
    assert (text(folder / "a.txt"), text(folder / "b.txt")) == (ours, hand)  # what was ours in it went again
    (folder / "a.txt").unlink()
    assert prep("caption", folder, "--mode", mode, "-t", 0.9).exit_code == 0
    assert text(folder / "a.txt") == "1girl\n"


@pytest.mark.parametrize(("mode", "hand"), [("append", "sks, my words, 1girl\n"), ("prepend", "sks, 1girl, my words\n")])
def test_with_a_keyword_it_stays_first(folder: Path, mode: str, hand: str) -> None:
    (folder / "b.txt").write_text("my words", encoding="utf-8")
    assert prep("caption", folder).exit_code == 0
    assert prep("keyword", folder, "-k", "sks").exit_code == 0
    for threshold in (0.9, 0.3, 0.9, 0.9):
        assert prep("caption", folder, "--mode", mode, "-t", threshold).exit_code == 0
    assert text(folder / "b.txt") == hand


@given(st.lists(st.sampled_from(["replace", "append", "prepend", "only-missing"]), max_size=4), st.data())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_persons_words_outlive_any_number_of_runs(folder: Path, modes: list[str], data: st.DataObject) -> None:
    words = "mine; a  text, with, 1girl in it"
    (folder / "b.txt").write_text(words, encoding="utf-8")
    for mode in modes:
        assert prep("caption", folder, "--mode", mode, "-t", data.draw(st.sampled_from([0.3, 0.6, 0.99]))).exit_code == 0
        assert words in text(folder / "b.txt")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.txt")} | {key: repr(item(folder, key)).encode() for key in ("a", "b")}


def test_undo_brings_back_what_was_and_again_takes_that_back(folder: Path) -> None:
    assert prep("caption", folder).exit_code == 0
    first = snapshot(folder)
    assert prep("caption", folder, "-t", 0.9).exit_code == 0
    assert prep("caption", folder, "-t", 0.9).exit_code == 0  # changes nothing, so it is nothing to undo
    second = snapshot(folder)
    result = prep("caption", folder, "--undo")
    assert result.exit_code == 0 and "2 captions are as they were before" in result.output
    assert snapshot(folder) == first
    assert prep("caption", folder, "--undo").exit_code == 0
    assert snapshot(folder) == second


def test_undo_of_the_first_captions_takes_the_files_away(folder: Path) -> None:
    assert prep("caption", folder, "--undo").exit_code == 1
    assert prep("caption", folder).exit_code == 0
    assert prep("caption", folder, "--undo").exit_code == 0
    assert not list(folder.glob("*.txt"))
    assert prep("caption", folder).exit_code == 0
    assert text(folder / "a.txt") == "1girl, red eyes, hat\n" and not item(folder, "a").hand


def test_undo_leaves_what_a_person_has_changed_since(folder: Path) -> None:
    assert prep("caption", folder).exit_code == 0
    assert prep("caption", folder, "-t", 0.9).exit_code == 0
    (folder / "b.txt").write_text("mine", encoding="utf-8")
    result = prep("caption", folder, "--undo")
    assert "1 captions are as they were before; 1 changed by hand since stay" in result.output
    assert (text(folder / "a.txt"), text(folder / "b.txt")) == ("1girl, red eyes, hat\n", "mine")


def test_undo_takes_a_keyword_back_and_appended_tags_out(folder: Path) -> None:
    (folder / "b.txt").write_text("mine", encoding="utf-8")
    assert prep("caption", folder).exit_code == 0
    assert prep("keyword", folder, "-k", "sks").exit_code == 0
    assert prep("caption", folder, "--undo").exit_code == 0
    assert item(folder, "a").keyword == "" and text(folder / "a.txt") == "1girl, red eyes, hat\n"
    assert prep("caption", folder, "--mode", "append").exit_code == 0
    assert prep("caption", folder, "--undo").exit_code == 0
    assert text(folder / "b.txt") == "mine\n" and item(folder, "b").hand


def test_explain_tells_of_every_tag_and_writes_nothing(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = prep("caption", folder, "--explain", "a", "--blacklist", "hat")
    assert result.exit_code == 0
    assert result.output.splitlines() == ["a.png", "  0.990 1girl kept", "  0.600 red_eyes kept", "  0.400 hat dropped: blacklisted"]
    assert prep("caption", folder, "--explain", "b.png").output.startswith("b.png")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    result = prep("caption", folder, "--explain", "c")
    assert result.exit_code == 1 and "no picture c" in result.output


def test_looks_that_never_change_are_left_to_the_keyword(folder: Path) -> None:
    assert prep("caption", folder, "--absorb", 0.9).exit_code == 0
    assert text(folder / "a.txt") == text(folder / "b.txt") == "1girl, hat\n"
    result = prep("caption", folder, "--absorb", 0.9, "--explain", "a")
    assert "red_eyes dropped: the keyword stands for it, 100% of the pictures show it" in result.output
    assert prep("caption", folder, "--absorb", 0.9, "-t", 0.65).exit_code == 0  # b alone has red eyes then
    assert text(folder / "b.txt") == "1girl, red eyes\n"


def test_mcut_cuts_each_picture_for_itself(folder: Path) -> None:
    assert prep("caption", folder, "--mcut").exit_code == 0
    assert (text(folder / "a.txt"), text(folder / "b.txt")) == ("1girl\n", "1girl, red eyes\n")


# Templates and imported tags.


def test_a_template_puts_sentences_tags_and_keyword_together(folder: Path) -> None:
    described = item(folder, "a")
    described.sentences = ["a girl\nwith a hat."]
    Store(folder).save(described)
    result = prep("caption", folder, "--template", "photo of {keyword}, {caption}")
    assert result.exit_code == 1 and "needs a keyword" in result.output
    assert prep("caption", folder, "--template", "{sentence}, {tags}").exit_code == 0
    assert (text(folder / "a.txt"), text(folder / "b.txt")) == ("a girl with a hat, 1girl, red eyes, hat\n", "1girl, red eyes, hat\n")
    assert prep("caption", folder, "--template", "photo of {keyword}, {caption}", "--keyword", "sks").exit_code == 0
    assert text(folder / "a.txt") == "photo of sks, a girl with a hat\n" and not item(folder, "a").hand
    assert prep("keyword", folder, "-k", "sks").exit_code == 0
    assert text(folder / "a.txt") == "photo of sks, a girl with a hat\n"
    assert prep("keyword", folder, "-k", "ohwx").exit_code == 0
    assert text(folder / "a.txt") == "photo of ohwx, a girl with a hat\n"
    for template, words in (("{tag}", "no field"), ("a photo", "one caption"), ("{keyword}", "one caption")):
        result = prep("caption", folder, "--template", template)
        assert result.exit_code == 1 and words in result.output


def describe(folder: Path, key: str, *sentences: str) -> None:
    described = item(folder, key)
    described.sentences = list(sentences)
    Store(folder).save(described)


def test_each_sentence_gives_a_caption_on_a_line_of_its_own(folder: Path) -> None:
    describe(folder, "a", "a girl with a hat.", "hatsune miku in\na hat", "a girl with a hat")
    template = ("--template", "photo of {keyword}, {sentence}, {tags}", "--keyword", "sks")
    result = prep("caption", folder, *template, "-t", 0.9)
    assert result.exit_code == 0 and "enable_wildcard" in result.output
    assert text(folder / "a.txt") == "photo of sks, a girl with a hat, 1girl\nphoto of sks, hatsune miku in a hat, 1girl\n"
    assert text(folder / "b.txt") == "photo of sks, 1girl\n"
    assert prep("keyword", folder, "-k", "ohwx", "--full-name", "hatsune miku").exit_code == 0
    result = prep("caption", folder, *template, "--lines", 1, "-t", 0.9)
    assert "enable_wildcard" not in result.output
    assert text(folder / "a.txt") == "photo of ohwx, a girl with a hat, 1girl\n"


def test_a_keyword_goes_to_the_front_of_every_line_and_takes_the_name_out(folder: Path) -> None:
    describe(folder, "a", "a girl", "Hatsune Miku waving")
    assert prep("caption", folder, "--template", "{sentence}", "-t", 0.9).exit_code == 0
    assert prep("keyword", folder, "-k", "sks", "--full-name", "hatsune_miku").exit_code == 0
    assert text(folder / "a.txt") == "sks, a girl\nsks, waving\n"
    assert prep("caption", folder, "--template", "{sentence}", "-t", 0.9).exit_code == 0
    assert text(folder / "a.txt") == "sks, a girl\nsks, waving\n" and not item(folder, "a").hand


def test_lines_of_a_person_all_get_our_tags_once(folder: Path) -> None:
    (folder / "a.txt").write_text("mine\n1girl here, too", encoding="utf-8")
    for threshold in (0.3, 0.3, 0.55):
        assert prep("caption", folder, "--mode", "append", "-t", threshold).exit_code == 0
    assert text(folder / "a.txt") == "mine, 1girl, red eyes\n1girl here, too, 1girl, red eyes\n"


# What does not fit.


def test_the_weakest_tags_go_until_a_caption_fits_and_come_back(folder: Path) -> None:
    assert prep("caption", folder).exit_code == 0
    whole = snapshot(folder)
    assert prep("caption", folder, "--fit", 5).exit_code == 0  # "1girl, red eyes" has 2 + 1 + 2
    assert text(folder / "a.txt") == text(folder / "b.txt") == "1girl, red eyes\n"
    result = prep("caption", folder, "--fit", 5, "--explain", "a")
    assert "0.400 hat dropped: left out to fit 5 tokens" in result.output and "0.600 red_eyes kept" in result.output
    assert prep("caption", folder, "--undo").exit_code == 0
    assert snapshot(folder) == whole
    assert prep("caption", folder, "--fit", 1).exit_code == 0
    assert text(folder / "a.txt") == "1girl\n"  # the first never goes
    assert prep("caption", folder, "--fit", 1, "--keep-tokens", 2).exit_code == 0
    assert text(folder / "a.txt") == "1girl, red eyes\n"
    assert prep("caption", folder).exit_code == 0
    assert snapshot(folder) == whole


def test_a_keyword_to_come_and_a_template_take_room(folder: Path) -> None:
    assert prep("caption", folder, "--fit", 5, "--keyword", "sks").exit_code == 0
    assert text(folder / "a.txt") == "1girl\n"
    assert prep("keyword", folder, "-k", "sks").exit_code == 0
    assert prep("caption", folder, "--fit", 5, "--keep-tokens", 1).exit_code == 0
    assert text(folder / "a.txt") == "sks, 1girl\n"
    assert prep("caption", folder, "--fit", 8, "--template", "photo of {keyword}, {tags}").exit_code == 0
    assert text(folder / "a.txt") == "photo of sks, 1girl\n"
    (folder / "b.txt").write_text("my own words that are far too long", encoding="utf-8")
    assert prep("caption", folder, "--fit", 5, "--mode", "append").exit_code == 0
    assert text(folder / "b.txt") == "sks, my own words that are far too long\n"  # a person's words stay


def test_the_trainers_keep_tokens_and_lists_beside_the_settings_are_taken(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("project")
    settings = f"[project]\nwork = '{folder.as_posix()}'\n[train]\nkeep_tokens = 2\n[caption]\nfit = 1\nwords = 'mine.csv'\n"
    (root / "dataset.toml").write_text(settings, encoding="utf-8")
    (root / "mine.csv").write_text("tag,words\n1girl,woman\n", encoding="utf-8")
    assert prep("caption", root).exit_code == 0
    assert text(folder / "a.txt") == "woman, red eyes\n"


def test_two_shares_and_any_executor_give_what_one_run_gives(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(folder, other, dirs_exist_ok=True)
    assert prep("caption", folder).exit_code == 0
    for share in ("1/2", "2/2"):
        assert prep("caption", other, "--shard", share, "--executor", "here").exit_code == 0
    assert {path.name: path.read_bytes() for path in other.glob("*.txt")} == {path.name: path.read_bytes() for path in folder.glob("*.txt")}
    items = ".atelier/items"
    assert {path.name: path.read_bytes() for path in (other / items).iterdir()} == {
        path.name: path.read_bytes() for path in (folder / items).iterdir()
    }
    result = prep("caption", other, "--shard", "1/2", "--absorb", 0.5)
    assert result.exit_code == 1 and "absorb looks at all pictures" in result.output


def test_imported_tags_are_merged_and_do_without_scores(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    keep(Store(folder).hidden, "a", {"character": ["hatsune_miku"], "general": ["smile"]})
    assert prep("caption", folder).exit_code == 0
    assert (text(folder / "a.txt"), text(folder / "b.txt")) == ("1girl, hatsune miku, smile, red eyes, hat\n", "1girl, red eyes, hat\n")
    assert prep("caption", folder, "--imported", "only").exit_code == 0
    assert (text(folder / "a.txt"), text(folder / "b.txt")) == ("hatsune miku, smile\n", "1girl, red eyes, hat\n")
    assert prep("caption", folder, "--imported", "ignore").exit_code == 0
    assert text(folder / "a.txt") == "1girl, red eyes, hat\n"
    bare = tmp_path_factory.mktemp("bare")
    Image.new("RGB", (8, 8)).save(bare / "x.png")
    keep(Store(bare).hidden, "x", {"general": ["smile"]})
    assert prep("caption", bare).exit_code == 0 and text(bare / "x.txt") == "smile\n"
    assert prep("caption", bare, "--imported", "ignore").exit_code == 1


@pytest.mark.slow
def test_killed_at_twenty_moments_it_ends_as_if_never_killed(tmp_path: Path) -> None:
    def make(folder: Path) -> Path:
        store, rng = Store(folder), np.random.default_rng(0)
        with ScoreStore.open(store.hidden) as scores:
            model = scores.register("planted", "w", 1, LABELS)
            rows = {}
            for number in range(600):
                path = folder / f"{number:04}.png"
                Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(path)
                new = Item(path.stem, path, digest=pixel_hash(load(path)))
                rows[new.digest] = np.array([1, *rng.random(3)], np.float32)
                store.save(new)
            scores.put(model, rows)
        assert prep("caption", folder).exit_code == 0
        (folder / "0005.txt").write_text("mine", encoding="utf-8")
        return folder

    def content(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.suffix in (".txt", ".json") and not path.name.startswith(".tmp-"))
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    whole, killed = make(tmp_path / "whole"), make(tmp_path / "killed")
    command = [sys.executable, "-m", "prep", "caption", "-t", "0.6"]
    began = time.monotonic()
    assert subprocess.run([*command, whole], capture_output=True).returncode == 0
    took = time.monotonic() - began
    rng = random.Random(1)
    died = 0
    for _ in range(20):
        process = subprocess.Popen([*command[:-1], str(rng.choice([0.2, 0.6, 0.8])), killed], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.3, 1) * took)
        process.kill()
        late = process.wait() == 0
        died += not late
        took *= 0.7 if late else 1.0  # the machine is less busy than at first
    assert died >= 10  # the others were done before
    assert subprocess.run([*command, killed], capture_output=True).returncode == 0
    assert content(killed) == content(whole)
    assert sorted(path.name for path in killed.iterdir()) == sorted(path.name for path in whole.iterdir())


def test_missing_scores_are_a_sentence(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    result = prep("caption", folder, "--tagger", "wd-vit-v3")
    assert result.exit_code == 1 and "run `prep tag --tagger wd-vit-v3` first" in result.output
    Image.new("RGB", (8, 8), "green").save(folder / "new.png")
    result = prep("caption", folder)
    assert result.exit_code == 1 and "new.png has not been scored by planted; run `prep tag` first" in result.output
    bare = tmp_path_factory.mktemp("bare")
    Image.new("RGB", (8, 8)).save(bare / "x.png")
    result = prep("caption", bare)
    assert result.exit_code == 1 and "has been scored yet; run `prep tag` first" in result.output
    assert prep("caption", tmp_path_factory.mktemp("empty"), "--diff").exit_code == 1
