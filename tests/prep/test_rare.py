"""Rare words: one token, meaningless, not in use, the same for the same seed."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prep.cli import main
from prep.clip_bpe import encode
from prep.rare import candidates, denied, propose

NEVER = [
    *("sks", "bnha", "dbz", "xiao", "rune", "kilt", "ssh", "pkg", "adl", "rps", "httr", "wafc", "pafc", "jap", "nips", "fck", "juli", "mako"),
    *("blob", "emit", "tux", "ohwx", "hat", "bow", "bra", "wings", "hair", "cape", "neko", "kuro", "girl", "solo", "miku"),
]


def test_enough_words_all_of_one_token() -> None:
    words = candidates()
    assert len(words) >= 200
    assert all(encode(word) == [number] == encode(word.upper()) and 3 <= len(word) <= 4 and word.isascii() for word, number in words)
    assert [number for _, number in words] == sorted((number for _, number in words), reverse=True)


@pytest.mark.parametrize("word", NEVER)
def test_words_with_a_meaning_are_never_proposed(word: str) -> None:
    assert word not in dict(candidates())


def test_deny_lists_are_plain_words() -> None:
    assert len(denied()) > 1_500 and all(word.isascii() and word.isalpha() and word.islower() for word in denied())


@given(st.integers(1, 40), st.integers(0, 1_000))
def test_a_draw_is_decided_by_the_seed(number: int, seed: int) -> None:
    drawn = propose(number, seed)
    assert drawn == propose(number, seed) and len(set(drawn)) == number and set(drawn) <= set(candidates())


def test_seeds_differ_and_too_many_gives_all() -> None:
    assert propose(20, 0) != propose(20, 1)
    assert propose(10_000, 0) == candidates()


def test_words_of_the_captions_are_not_proposed(tmp_path: Path) -> None:
    used = {word for word, _ in candidates()[:150]}
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(", ".join(word.upper() for word in used), encoding="utf-8")
    result = CliRunner().invoke(main, ["rare", "--json", "-n", "500", str(tmp_path)])
    rows = json.loads(result.stdout)
    assert len(rows) == len(candidates()) - 150 and not used & {row["word"] for row in rows}


def test_write_keeps_the_rest_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "dataset.toml"
    text = '# mine\n[project]\nname = "x"  # a name\nkeyword = ""   # the word\n\n[train]\nnum_epochs = 3\n'
    path.write_bytes(text.replace("\n", "\r\n").encode("utf-8"))
    result = CliRunner().invoke(main, ["rare", "--write", str(tmp_path)])
    assert result.exit_code == 0, result.output
    word = result.output.split()[0]
    assert path.read_bytes().decode("utf-8") == text.replace('keyword = ""', f'keyword = "{word}"').replace("\n", "\r\n")
    assert tomllib.loads(path.read_text(encoding="utf-8"))["project"]["keyword"] in dict(propose(20, 0))


def test_write_without_a_project(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["rare", "--write", str(tmp_path)])
    assert result.exit_code == 1 and "prep new" in result.output


def test_words_are_proposed_where_there_is_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["rare", "-n", "3"])
    assert result.exit_code == 0 and result.output.count("1 token") == 3
