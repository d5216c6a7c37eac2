"""Weighted tokens: each state is multiplied by its own weight, chunk by chunk, and the marks around chunks by none."""

from pathlib import Path

import pytest
import torch

from train.emphasis import weigh
from train.families import load_model
from train.families.sd import Model


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Model:
    return load_model(str(tiny_base))


@pytest.mark.parametrize("length", [75, 150, 225])
def test_each_state_is_multiplied_by_the_weight_of_its_token(model: Model, length: int) -> None:
    caption = "tok, (red hat:1.5), [night] " + "cat, " * 40 + "(dog:0.25)"
    text, rows = weigh(caption, length)
    ids, weights = model.tokenize([text, "tok"], length), torch.tensor([rows, [[1.0] * 77] * len(rows)])
    plain, told = model.conditioning(ids).states, model.conditioning(ids, weights=weights).states
    by_place = [1.0, *(weight for row in rows for weight in row[1:76]), 1.0]
    assert told.shape == (2, length + 2, 32) and len(set(by_place)) == (3 if length == 75 else 4)
    torch.testing.assert_close(told[0], plain[0] * torch.tensor(by_place)[:, None])
    assert torch.equal(told[1], plain[1])


def test_weights_of_one_change_nothing(model: Model) -> None:
    ids = model.tokenize(["tok, smile"])
    assert torch.equal(model.conditioning(ids).states, model.conditioning(ids, weights=torch.ones(1, 1, 77)).states)


def test_gradients_pass_through_the_weights(model: Model) -> None:
    encoder = load_model(str(model.path))
    parameter = next(encoder.text_encoders[0].parameters()).requires_grad_()
    encoder.conditioning(encoder.tokenize(["tok"]), weights=torch.full((1, 1, 77), 2.0)).states.sum().backward()
    assert parameter.grad is not None and parameter.grad.abs().sum() > 0
