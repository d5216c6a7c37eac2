"""Sample prompts: the settings' own, and files as sd-scripts reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prep.options import UserError
from train.config import TrainConfig
from train.prompts import SEEDS, SamplePrompt, parse_line, sample_prompts

PLAIN = SamplePrompt("", 25, 5.0)


def configured(**train: Any) -> TrainConfig:
    return TrainConfig.load({"train": {"keyword": "tok", "class": "1girl", **train}}, {})


def test_without_any_the_keyword_and_class_are_drawn() -> None:
    assert sample_prompts(configured()) == [SamplePrompt("tok, 1girl", 25, 5.0)]
    asked = sample_prompts(configured(sample_prompts="tok, hat | a cat,  a dog|", sample_steps=7, guidance_scale=3))
    assert [(prompt.prompt, prompt.steps, prompt.guidance_scale) for prompt in asked] == [("tok, hat", 7, 3), ("a cat,  a dog", 7, 3)]
    assert sample_prompts(configured(sample_steps=0)) == []


def test_a_file_in_sd_scripts_syntax(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("# mine\n\ntok, x--y, hat --n bad hands, blurry --w 512 --h 768 --d 7 --s 12 --l 6.5 --ss euler_a\nplain\n", encoding="utf-8")
    first, second = sample_prompts(configured(sample_prompts=str(file)))
    assert first == SamplePrompt("tok, x--y, hat", 12, 6.5, "bad hands, blurry", 512, 768, 7) and first.seeds(42) == [7]
    assert second == SamplePrompt("plain", 25, 5.0) and second.seeds(42) == [42 + i for i in range(SEEDS)]
    assert first.words(7) == "tok, x--y, hat\nNegative prompt: bad hands, blurry\nSteps: 12, Sampler: DDIM, CFG scale: 6.5, Seed: 7"


@pytest.mark.parametrize(("line", "part"), [("a --w wide", "--w wide"), ("a --q 3", "--q 3"), ("a --d", "--d")])
def test_a_flag_that_cannot_be_read_is_named(line: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        parse_line(line, PLAIN)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.txt cannot be read"):
        sample_prompts(configured(sample_prompts=str(tmp_path / "gone.txt")))
