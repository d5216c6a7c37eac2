"""Whole runs with the data's settings: subsets reach the run, and encoded captions train as those that are encoded in each step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import train.run
from prep.options import UserError
from train.config import TrainConfig
from train.run import run

TRAIN = {"train_batch_size": 2, "num_epochs": 2, "learning_rate": 1e-2, "save_precision": "fp32", "sample_steps": 1, "min_bucket_reso": 64}
FROZEN = {"train_text_encoder": False, "caption_variants": 3, "caption_dropout_rate": 0.2}


def configured(base: Path, tree: Path, *subsets: dict[str, Any], **train: Any) -> TrainConfig:
    project = {"base": str(base), "keyword": "tok", "class": "cls", "name": "mine"}
    settings = {"project": project, "train": {**TRAIN, **train}, **({"subset": list(subsets)} if subsets else {})}
    return TrainConfig.load(settings, {}).at(tree.parent)


@pytest.mark.parametrize("weighted", [False, True])
def test_encoded_captions_train_alike(tiny_base: Path, tiny_tree: Path, weighted: bool) -> None:
    (tiny_tree / "img/2_tok/0.txt").write_text("tok, (smile:1.5), hat", encoding="utf-8")
    found = []
    for cached in (True, False):
        settings = {**FROZEN, "weighted_captions": weighted, "output_dir": f"lora-{cached}", "cache_text_encoder_outputs": cached}
        found.append(load_file(run(configured(tiny_base, tiny_tree, **settings)).path))
    assert found[0].keys() == found[1].keys() and not any(key.startswith("lora_te") for key in found[0])
    assert (tiny_tree.parent / ".atelier/text").exists()
    for key in found[0]:
        torch.testing.assert_close(found[0][key], found[1][key], atol=2e-4, rtol=2e-2)


def test_resumed_equals_never_stopped_with_all_of_it_on(tiny_base: Path, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    views = {"random_crop": True, "color_aug": True, "flip_aug": True, "caption_tag_dropout_rate": 0.2, "augment_variants": 2}
    settings = {**FROZEN, **views, "save_state_every_n_steps": 2, "sample_steps": 0}
    subset = {"image_dir": "img/2_tok", "num_repeats": 3, "keep_tokens": 2}
    real = train.run.take_step

    def take_step(group: Any, job: Any, state: Any) -> Any:
        if state.step == 5:
            raise MemoryError("the power is gone")
        return real(group, job, state)

    config = configured(tiny_base, tiny_tree, subset, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(train.run, "take_step", take_step)
        with pytest.raises(MemoryError):
            run(config)
    resumed, whole = run(config), run(configured(tiny_base, tiny_tree, subset, **settings, output_dir="whole"))
    first, second = load_file(resumed.path), load_file(whole.path)
    assert resumed.steps == whole.steps and all(torch.equal(first[key], second[key]) for key in second)


def test_subsets_are_part_of_the_run_and_their_faults_are_told(tiny_base: Path, tiny_tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(tiny_base, tiny_tree, {"image_dir": "img/2_tok", "num_repeats": 4}, num_epochs=1)
    assert config.data.subsets[0].num_repeats == 4
    run(config)
    said = capsys.readouterr().out
    assert "3 pictures x 4 repeats + 12 reg = 24 samples" in said and "all 3 regularization pictures are used in an epoch, 4 times" in said
    other = configured(tiny_base, tiny_tree, {"image_dir": "img/2_tok", "num_repeats": 5}, num_epochs=1)
    run(other)
    assert "3 pictures x 5 repeats" in capsys.readouterr().out, "another subset is another run"
    with pytest.raises(UserError, match=r"\[\[subset\]\] 1: unknown setting repeats"):
        configured(tiny_base, tiny_tree, {"image_dir": "x", "repeats": 1})
