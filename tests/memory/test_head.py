"""Heads of known weights as reads: nothing changes for who only looks, and bends hold exactly."""

import pytest
import torch
from torch import nn

from recuerdo.memory.head import ReadHead, WriteHead, given
from recuerdo.read import Odds, Share, bending, mute, watch


class Both(nn.Module):
    """A memory with one of each."""

    def __init__(self):
        super().__init__()
        self.read, self.write = ReadHead(), WriteHead()

    def forward(self, weights, memory):
        return *self.read(weights, memory), self.write(weights[:, :1], memory)


def case(total=0.6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    weights = torch.softmax(torch.randn(2, 3, 5, generator=draw), -1) * total
    weights[0, 0, 2:] = 0  # exactly nothing on three slots
    return weights, torch.randn(2, 5, 4, generator=draw)


def test_watching_changes_nothing_and_hears_the_weights():
    model, (weights, memory) = Both(), case()
    plain = model(weights, memory)
    with watch(model) as seen:
        heard = model(weights, memory)
    assert all(torch.equal(a, b) for a, b in zip(plain, heard, strict=True))
    assert torch.equal(plain[0], weights)
    assert torch.equal(plain[1], weights @ memory)
    assert torch.equal(plain[2], weights[:, :1])
    assert list(seen) == ["read", "write"]
    shares = weights / weights.sum(-1, keepdim=True)
    torch.testing.assert_close(seen["read"].weights[:, :][:, :, 0], shares)
    torch.testing.assert_close(seen["read"].mixed[:, :, 0], shares @ memory)
    torch.testing.assert_close(seen["write"].weights[:, :][:, :, 0], shares[:, :1])
    torch.testing.assert_close(seen["write"].mixed[:, :, 0], shares[:, :1] @ memory)
    torch.testing.assert_close(seen["read"].lse[:, :, 0], weights.sum(-1).log())


def test_summaries_of_a_head():
    weights, memory = case(total=1.0)
    reading = given(weights[1:], memory[1:])
    entropy = -(weights[1:] * weights[1:].log()).sum(-1)
    torch.testing.assert_close(reading.entropy()[:, :, 0], entropy)
    torch.testing.assert_close(reading.received(), weights[1:])
    region = torch.tensor([1.0, 0, 1, 0, 0])[:, None]
    torch.testing.assert_close(reading.mass(region)[:, :, 0, 0], weights[1:, :, [0, 2]].sum(-1))
    top = reading.top(2)
    assert torch.equal(top.indices[:, :, 0], weights[1:].topk(2).indices)


@pytest.mark.parametrize(
    ("bend", "wanted"), [(lambda k: Share(k, 0.7), 0.7), (lambda k: mute(k), 0.0), (lambda k: Odds(k, 3.0), None)]
)
def test_bends_hold_exactly_and_keep_the_total(bend, wanted):
    model, (weights, memory) = Both(), case()
    marked = torch.tensor([True, False, False, True, False])
    with bending(model, lambda address, reading: [bend(marked)]), watch(model) as seen:
        bent, mixed, written = model(weights, memory)
    shares = weights / weights.sum(-1, keepdim=True)
    mass = shares[..., marked].sum(-1)
    after = 3 * mass / (3 * mass + 1 - mass) if wanted is None else torch.full_like(mass, wanted)
    torch.testing.assert_close(bent.sum(-1), weights.sum(-1))
    torch.testing.assert_close(bent[..., marked].sum(-1) / weights.sum(-1), after)
    torch.testing.assert_close(mixed, bent @ memory, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(written, bent[:, :1])
    torch.testing.assert_close(seen["read"].weights[:, :][:, :, 0] * weights.sum(-1, keepdim=True), bent)


def test_gradients_are_those_of_the_product_with_and_without_a_bend_that_bends_nothing():
    model, (weights, memory) = Both(), case()
    grads = []
    for rule in (None, lambda address, reading: [Odds(torch.tensor([True, False, False, True, False]), 1.0)]):
        w, m = weights.clone().requires_grad_(), memory.clone().requires_grad_()
        if rule is None:
            out = model(w, m)
        else:
            with bending(model, rule):
                out = model(w, m)
        (out[1].square().sum() + out[0].square().sum()).backward()
        grads.append((w.grad, m.grad))
    for plain, bent in zip(*grads, strict=True):
        assert bool(bent.isfinite().all())
        torch.testing.assert_close(plain, bent, rtol=1e-4, atol=1e-5)


def test_a_head_that_looks_nowhere_reads_zeros():
    model, memory = Both(), torch.randn(1, 3, 2)
    with watch(model) as seen:
        _, mixed, _ = model(torch.zeros(1, 2, 3), memory)
    assert torch.equal(mixed, torch.zeros(1, 2, 2))
    assert torch.equal(seen["read"].mixed, torch.zeros(1, 2, 1, 2))
    assert bool(torch.isneginf(seen["read"].lse).all())
    assert bool((seen["read"].weights[:, :] < 1e-20).all())
