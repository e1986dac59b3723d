"""The loss a few rows at a time is torch's cross-entropy, in values and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from recuerdo.nn import saying
from recuerdo.nn.saying import loss_of_saying


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 300), v=st.integers(2, 40), smoothing=st.sampled_from([0.0, 0.1, 0.9]), seed=st.integers(0, 99))
def test_values_and_gradients_are_those_of_torch(n, v, smoothing, seed):
    draw = torch.Generator().manual_seed(seed)
    states, table = (torch.randn(size, 6, generator=draw, dtype=torch.float64).requires_grad_() for size in (n, v))
    wanted = torch.randint(v, (n,), generator=draw)
    right = functional.cross_entropy(states @ table.T, wanted, label_smoothing=smoothing)
    told = loss_of_saying(states, table, wanted, smoothing=smoothing)
    torch.testing.assert_close(told, right)
    for ours, theirs in zip(
        torch.autograd.grad(3 * told, (states, table)), torch.autograd.grad(3 * right, (states, table)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_without_gradients_it_makes_none():
    states, table = torch.randn(300, 6), torch.randn(20, 6)
    wanted = torch.randint(20, (300,))
    with torch.no_grad():
        told = loss_of_saying(states, table, wanted)
    assert told.item() == pytest.approx(functional.cross_entropy(states @ table.T, wanted).item(), rel=1e-5)


def test_in_bfloat16_it_is_near_and_sums_stay_exact():
    draw = torch.Generator().manual_seed(1)
    states, table = torch.randn(3 * saying.ROWS + 1, 16, generator=draw), torch.randn(50, 16, generator=draw)
    wanted = torch.randint(50, (len(states),), generator=draw)
    states.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        told = loss_of_saying(states, table, wanted, smoothing=0.1)
    right = functional.cross_entropy(states @ table.T, wanted, label_smoothing=0.1)
    assert told.dtype == torch.float32
    assert told.item() == pytest.approx(right.item(), rel=2e-3)
    ours, theirs = torch.autograd.grad(told, states)[0], torch.autograd.grad(right, states)[0]
    assert float((ours - theirs).norm() / theirs.norm()) < 2e-2


def test_there_is_no_second_derivative():
    states = torch.randn(4, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(
        loss_of_saying(states, torch.randn(5, 3), torch.tensor([0, 1, 2, 3])), states, create_graph=True
    )
    with pytest.raises(RuntimeError, match="does not require grad"):
        slope.sum().backward()
