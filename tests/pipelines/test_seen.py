"""The tagger's eye in a run's own judgements: 0 for what learned nothing, and the drawn numbers beside those of the loss."""

from pathlib import Path

import pytest

from benchmarks.judgement import draw_tree
from prep.options import UserError
from tests.train.test_validate import judgements
from train.config import TrainConfig
from train.run import run


def configured(root: Path, **train: object) -> TrainConfig:
    draw_tree(root, 1, 20, 20)
    table = {"train_batch_size": 8, "num_epochs": 1, "sample_steps": 0, "validation_tagger": "pocket", **train}
    return TrainConfig.load({"project": {"base": "pocket", "keyword": "mira", "class": "girl", "name": "mine"}, "train": table}, {}).at(root)


@pytest.mark.slow  # 64 pictures are drawn
def test_what_learned_nothing_is_seen_to_have_gone_nowhere(tmp_path: Path) -> None:
    config = configured(tmp_path, learning_rate=0.0)
    run(config)
    (found,) = judgements(config)
    assert (found["seen_learned"], found["seen_needs_keyword"], found["seen_bleed"]) == (0, 0, 0)


def test_an_unknown_tagger_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nobody"):
        run(configured(tmp_path, validation_tagger="nobody"))
