"""EMA: the mean is what the formula says, and stands in for the weights only while it is asked to."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from train.ema import WARM_UP, Ema


def test_the_mean_follows_the_formula() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    ema, mean = Ema.of([parameter], 0.9), 0.0
    for step in range(1, 200):
        with torch.no_grad():
            parameter.fill_(float(step))
        ema.update([parameter], step)
        decay = min(0.9, step / (WARM_UP + step))
        mean = decay * mean + (1 - decay) * step
        assert ema.means[0].tolist() == pytest.approx([mean] * 3, rel=1e-5)


def test_the_weights_come_back_also_after_an_error() -> None:
    parameters = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(1, 2))]
    ema = Ema(0.9, [torch.full((2,), 5.0), torch.full((1, 2), 7.0)])
    with ema.in_place_of(parameters):
        assert parameters[0].tolist() == [5, 5] and parameters[1].tolist() == [[7, 7]]
    with pytest.raises(ZeroDivisionError), ema.in_place_of(parameters):
        raise ZeroDivisionError
    assert parameters[0].tolist() == [1, 1] and parameters[1].tolist() == [[0, 0]] and ema.means[0].tolist() == [5, 5]
