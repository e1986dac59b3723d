"""The normalisers of a memory with slots: empty ones beside the others, and none at all."""

import pytest
import torch

from recuerdo.memory.slots import Beside, Look, look_at
from recuerdo.read import Linear, dot, linear, read, watch


def test_the_linear_start_hides_what_is_hidden():
    scores = torch.tensor([[1.0, -torch.inf, -2.0]])
    assert Linear()(scores).tolist() == [[1.0, 0.0, -2.0]]
    assert not Linear().sequential


@pytest.mark.parametrize("empty", [0.0, 3.0, torch.tensor([[0.0], [5.0]])])
def test_beside_is_softmax_with_empty_slots(empty):
    scores = torch.tensor([[1.0, -2.0, -torch.inf], [300.0, 299.0, 0.0]])
    weights = Beside(empty)(scores)
    counts = torch.as_tensor(empty).expand(2, 1)
    for row, count, got in zip(scores, counts, weights, strict=True):
        with_empty = torch.cat([row, torch.zeros(int(count))])
        torch.testing.assert_close(got, torch.softmax(with_empty, 0)[:3])


def test_beside_survives_rows_far_below_and_rows_without_anything():
    scores = torch.tensor([[-1e4, -1e4 - 1.0], [-torch.inf, -torch.inf]], requires_grad=True)
    weights = Beside(0.0)(scores)
    torch.testing.assert_close(weights, torch.tensor([[0.7310586, 0.2689414], [0.0, 0.0]]))
    assert torch.equal(Beside(2.0)(scores), torch.zeros(2, 2))
    weights[0].square().sum().backward()
    assert bool(scores.grad[0].isfinite().all())


def test_a_memory_of_six_slots_with_two_filled_has_four_empty_ones():
    seen = torch.tensor([[True, False, True]])
    normalise = look_at(seen, 6, straight=False)
    assert isinstance(normalise, Beside)
    assert float(normalise.empty) == 4
    assert look_at(seen, 6, straight=True) is linear


def test_a_look_has_an_address_and_a_map():
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 4), torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    seen = torch.tensor([[True, True, False], [True, True, True]])
    model = torch.nn.Sequential(Look())
    with watch(model) as heard:
        found = model[0](query, key, value, seen=seen)
    scores = torch.einsum("nd,nsd->ns", query, key).masked_fill(~seen, -torch.inf)
    torch.testing.assert_close(heard["0"].weights[:, :][:, 0, 0], torch.softmax(scores, -1))
    torch.testing.assert_close(found, torch.einsum("ns,nsd->nd", torch.softmax(scores, -1), value))


@pytest.mark.parametrize("normalise", [linear, Beside(4.0)], ids=["linear", "beside"])
def test_every_path_gives_the_same(normalise):
    torch.manual_seed(1)
    query, key, value = (torch.randn(2, 2, n, 5, dtype=torch.double, requires_grad=True) for n in (3, 7, 7))
    mask = torch.rand(2, 1, 3, 7) < 0.7
    mask[0, 0, 1] = False  # a row with nothing to read
    found = {}
    for path in ("plain", "matmul", "tiled"):
        reading = read(query, key, value, mask=mask, score=dot, normalise=normalise, path=path)
        gradients = torch.autograd.grad(reading.mixed.square().sum(), (query, key, value))
        found[path] = (reading.mixed, reading.weights[:, :], *gradients)
        assert not bool(reading.mixed[0, :, 1].any())
    for path in ("matmul", "tiled"):
        torch.testing.assert_close(found[path], found["plain"])
