"""Rare words: one token, meaningless, not in use, the same for the same seed."""

from __future__ import annotations

import csv
import json
import tomllib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prep.captions import to_words
from prep.cli import main
from prep.clip_bpe import encode
from prep.edits import fold
from prep.embeddings import read_tensor, token_embeddings
from prep.options import UserError
from prep.probe import probe, pull
from prep.rare import BULK, candidates, denied, everyday, inconspicuous, propose
from prep.taggers import locate

NEVER = [
    *("sks", "bnha", "dbz", "xiao", "rune", "kilt", "ssh", "pkg", "adl", "rps", "httr", "wafc", "pafc", "jap", "nips", "fck", "juli", "mako"),
    *("blob", "emit", "tux", "ohwx", "hat", "bow", "bra", "wings", "hair", "cape", "neko", "kuro", "girl", "solo", "miku"),
]


def test_enough_words_all_of_one_token() -> None:
    words = candidates()
    assert len(words) >= 200
    assert all(encode(row.word) == [row.id] == encode(row.word.upper()) and 3 <= len(row.word) <= 4 and row.word.isascii() for row in words)
    assert [row.id for row in words] == sorted((row.id for row in words), reverse=True)


@pytest.mark.parametrize("word", NEVER)
def test_words_with_a_meaning_are_never_proposed(word: str) -> None:
    assert word not in {row.word for row in candidates()}


def test_deny_lists_are_plain_words() -> None:
    assert len(denied()) > 1_500 and all(word.isascii() and word.isalpha() and word.islower() for word in denied())


@given(st.integers(1, 40), st.integers(0, 1_000))
def test_a_draw_is_decided_by_the_seed(number: int, seed: int) -> None:
    drawn = propose(number, seed, candidates())
    assert drawn == propose(number, seed, candidates()) and len(set(drawn)) == number and set(drawn) <= set(candidates())


def test_seeds_differ_and_too_many_gives_all() -> None:
    pool = candidates()
    assert propose(20, 0, pool) != propose(20, 1, pool)
    assert propose(10_000, 0, pool) == pool


def test_words_of_the_captions_are_not_proposed(tmp_path: Path) -> None:
    used = {row.word for row in candidates()[:150]}
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("\n".join(word.upper() for word in used), encoding="utf-8")  # each line is a caption
    result = CliRunner().invoke(main, ["rare", "--json", "-n", "500", "--base", "nowhere/at-all", str(tmp_path)])
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
    assert tomllib.loads(path.read_text(encoding="utf-8"))["project"]["keyword"] in {row.word for row in candidates()}


def test_write_without_a_project(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["rare", "--write", str(tmp_path)])
    assert result.exit_code == 1 and "prep new" in result.output


def test_words_are_proposed_where_there_is_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["rare", "-n", "3"])
    assert result.exit_code == 0 and result.output.count("1 token") == 3


def test_no_tag_and_no_word_of_one_is_a_candidate() -> None:
    with resources.files("prep").joinpath("data/implications.csv").open(encoding="utf-8") as file:
        tags = {tag for row in csv.DictReader(file) for tag in (row["antecedent"], row["consequent"])}
    tags |= set(locate("pocket").open("cpu", 1).labels.names)
    words = {word for tag in tags for word in (fold(tag), *fold(tag).split())}
    assert not words & {row.word for row in candidates()} and to_words("long_hair").split()[1] in words


def planted() -> tuple[np.ndarray, dict[str, int]]:
    """Embeddings of random directions, all of length about 1, and the ids of some candidates."""
    values = np.random.default_rng(0).normal(size=(49408, 64)).astype(np.float32)
    values *= np.random.default_rng(1).uniform(0.95, 1.05, 49408).astype(np.float32)[:, None] / np.linalg.norm(values, axis=1)[:, None]
    return values, {row.word: row.id for row in candidates()}


def test_words_that_stand_out_in_a_text_encoder_are_left_out() -> None:
    values, ids = planted()
    like_cat, long, short, plain = list(ids)[:4]
    values[ids[like_cat]] = 0.9 * values[everyday()["cat"]] + 0.1 * values[ids[like_cat]]
    values[ids[long]] *= 1.5
    values[ids[short]] *= 0.5
    values[ids[plain]] = np.eye(64, dtype=np.float32)[0]
    values[list(everyday().values()), 0] = 0  # nothing everyday points there
    kept = {row.word: row for row in inconspicuous(candidates(), [values])}
    assert not {like_cat, long, short} & set(kept) and plain in kept and len(kept) > 100
    assert kept[plain].cosine == pytest.approx(0, abs=1e-6) and BULK[0] < (kept[plain].norm or 0) < BULK[1]
    assert plain in {row.word for row in inconspicuous(candidates(), [values, np.roll(values, 1, axis=1)])}
    assert inconspicuous(candidates(), []) == candidates()


def test_a_word_that_lies_near_the_class_is_left_out() -> None:
    values, ids = planted()
    word, class_ = next(iter(ids)), "samurai"
    values[ids[word]] = values[everyday(class_)[class_]]
    assert word in {row.word for row in inconspicuous(candidates(), [values])}
    assert word not in {row.word for row in inconspicuous(candidates(), [values], f"1 {class_}")}


def test_embeddings_are_read_without_torch_in_all_precisions(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    values = torch.randn(6, 4)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        save_file({"a": torch.ones(3), "text_model.embeddings.token_embedding.weight": values.to(dtype)}, tmp_path / "model.safetensors")
        assert np.array_equal(read_tensor(tmp_path / "model.safetensors", "token_embedding.weight"), values.to(dtype).float().numpy())
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(UserError, match="no readable"):
        read_tensor(tmp_path / "model.safetensors", "token_embedding.weight")


def test_where_a_bases_encoders_are_found(tmp_path: Path) -> None:
    (pocket,) = token_embeddings("pocket")
    assert pocket.shape == (49408, 96) and np.isfinite(pocket).all()
    assert token_embeddings("nobody/nothing") == [] == token_embeddings(str(tmp_path))
    assert token_embeddings("/nowhere at all/x") == []


def test_with_the_pocket_base_enough_words_remain_each_with_its_reason() -> None:
    kept = inconspicuous(candidates(), token_embeddings("pocket"), "1girl, solo")
    assert 100 <= len(kept) < len(candidates())
    assert all("1 token" in row.why() and "nearest word" in row.why() for row in kept)


def test_pull_is_near_one_for_noise_and_far_above_for_a_meaning() -> None:
    scores = np.random.default_rng(0).normal(size=(20, 16, 30))
    scores += 5 * np.random.default_rng(1).normal(size=(1, 16, 30))  # what the seeds draw is no merit of a word
    assert 0.6 < np.median(pull(scores)) < 1.4
    scores[3, :, :2] += 2
    assert pull(scores).argmax() == 3 and pull(scores)[3] > 3


@pytest.mark.slow
def test_a_word_that_the_base_knows_is_told_from_rare_ones_by_probing() -> None:
    words = [*(row.word for row in propose(3, 0, candidates())), "sunglasses"]
    pulls = probe(words, "1girl, solo", 3, "pocket", "pocket")
    assert max(pulls, key=pulls.__getitem__) == "sunglasses", pulls
