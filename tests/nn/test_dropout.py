"""Cheap masks drop what they should, as often as they should, and follow torch's seed."""

import math

import pytest
import torch

from recuerdo.errors import InputError
from recuerdo.nn.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_the_share_that_goes_and_the_mean_that_stays(rate):
    torch.manual_seed(0)
    n = 400_000
    out = Dropout(rate)(torch.ones(n))
    gone = float((out == 0).float().mean())
    assert abs(gone - rate) < 1 / 512 + 5 * math.sqrt(rate * (1 - rate) / n)
    assert float(out.mean()) == pytest.approx(1, abs=5 * math.sqrt(rate / (1 - rate) / n))
    assert len(out.unique()) == 2


def test_masks_are_independent_of_their_neighbours():
    torch.manual_seed(0)
    gone = (Dropout(0.5)(torch.ones(400_000)) == 0).double() - 0.5
    for lag in (1, 2, 3, 7, 8, 9, 64):  # eight values share a random number
        assert abs(float((gone[lag:] * gone[:-lag]).mean())) < 0.25 * 5 / math.sqrt(400_000)


def test_what_is_dropped_has_no_gradient_and_the_rest_is_scaled():
    torch.manual_seed(0)
    x = torch.randn(3, 7, 5, requires_grad=True)  # no multiple of eight
    out = Dropout(0.25)(x)
    (slope,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(out, x * slope)
    assert slope.unique().tolist() == [0.0, pytest.approx(4 / 3)]


def test_seeds_and_evaluation():
    drop, x = Dropout(0.3), torch.randn(50)
    torch.manual_seed(5)
    first = drop(x)
    second = drop(x)
    torch.manual_seed(5)
    assert torch.equal(drop(x), first)
    assert not torch.equal(second, first)
    assert drop.eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert drop.train()(x.bfloat16()).dtype == torch.bfloat16
    assert Dropout(0.3)(torch.empty(0, 4)).shape == (0, 4)
    assert str(drop) == "Dropout(rate=0.301)"


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0, math.nan])
def test_no_rate(rate):
    with pytest.raises((InputError, ValueError), match=r"dropout rate|NaN"):
        Dropout(rate)
