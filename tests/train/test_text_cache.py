"""Text features kept beside the pictures: equal to what the encoder says, never stale, and only where nothing in them learns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from train.config import TrainConfig
from train.dataset import TrainingSet
from train.families import load_model
from train.families.sd import Model


@pytest.fixture
def model(tiny_base: Path) -> Model:
    return load_model(str(tiny_base))


def loaded(tree: Path, model: Model, **train: Any) -> TrainingSet:
    settings = {"base": "pocket", "tree": str(tree), "train_batch_size": 2, "resolution": 96, "bucket_reso_steps": 16, "min_bucket_reso": 64}
    settings |= {"train_text_encoder": False, "shuffle_caption": False, **train}
    return TrainingSet.load(TrainConfig.load({"train": settings}, {}), model)


VARIED = {"shuffle_caption": True, "caption_variants": 3, "caption_dropout_rate": 0.2, "caption_tag_dropout_rate": 0.1, "flip_aug": True}


@pytest.mark.parametrize("settings", [{}, VARIED, {"max_token_length": 150}, {"weighted_captions": True}, {"clip_skip": 2}])
def test_features_equal_what_the_encoder_says(model: Model, tiny_tree: Path, settings: dict[str, Any]) -> None:
    (tiny_tree / "img/2_tok/0.txt").write_text("tok, (smile:1.5), hat", encoding="utf-8")
    data = loaded(tiny_tree, model, **settings)
    made = data.text.store.made if data.text else 0
    for epoch in range(3):
        for batch in data.batches(epoch):
            told = model.conditioning(batch.input_ids, data.config.model.clip_skip, batch.sizes, batch.token_weights)
            assert batch.text is not None and batch.text.pooled is None
            torch.testing.assert_close(batch.text.states, told.states)
    assert data.text and data.text.store.made == made, "nothing is encoded in a step"


@pytest.mark.parametrize(
    "settings", [{"train_text_encoder": True}, {"shuffle_caption": True}, {"cache_text_encoder_outputs": False}, {"enable_wildcard": True}]
)
def test_captions_that_learn_or_never_end_are_encoded_in_the_step(model: Model, tiny_tree: Path, settings: dict[str, Any]) -> None:
    data = loaded(tiny_tree, model, **settings)
    assert data.text is None and all(batch.text is None for batch in data.batches(0))
    assert not (tiny_tree.parent / ".atelier/text").exists()


def test_a_second_run_encodes_nothing(model: Model, tiny_tree: Path) -> None:
    first = loaded(tiny_tree, model, **VARIED)
    second = loaded(tiny_tree, model, **VARIED, seed=7)
    assert first.text and second.text and first.text.store.made > 6 and second.text.store.made == 0
    assert second.notes()[1].startswith("encoded 0 of 12 pictures, 0 of ")


def caption(tree: Path, model: Model) -> None:
    (tree / "img/2_tok/0.txt").write_text("tok, something else", encoding="utf-8")


def encoder(tree: Path, model: Model) -> None:
    with torch.no_grad():
        next(model.text_encoders[0].parameters())[777] += 1e-3


CHANGES: dict[str, tuple[Callable[[Path, Model], None], dict[str, Any], int]] = {
    "caption": (caption, {}, 1),
    "encoder": (encoder, {}, 6),
    "clip skip": (lambda tree, model: None, {"clip_skip": 2}, 6),
    "length": (lambda tree, model: None, {"max_token_length": 150}, 6),
    "prefix": (lambda tree, model: None, {"caption_prefix": "x"}, 6),
    "nothing": (lambda tree, model: None, {}, 0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_encoded_anew(model: Model, tiny_tree: Path, change: str) -> None:
    loaded(tiny_tree, model)
    apply, settings, made = CHANGES[change]
    apply(tiny_tree, model)
    data = loaded(tiny_tree, model, **settings)
    assert data.text and data.text.store.made == made
    for batch in data.batches(0):
        told = model.conditioning(batch.input_ids, data.config.model.clip_skip, batch.sizes)
        assert batch.text is not None
        torch.testing.assert_close(batch.text.states, told.states)
