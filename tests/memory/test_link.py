"""The link as attention over past writes, against the matrix of the paper and against what is known of writes."""

import pytest
import torch
from torch.nn import functional as F

from recuerdo.errors import InputError
from recuerdo.memory.link import Dense, History, link_named, origin, precede


def writes(kind, steps=60, batch=4, slots=64, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        if kind == "soft":
            yield torch.softmax(3 * torch.randn(batch, slots, generator=draw), -1).to(dtype)
        else:  # one slot, any strength
            where = F.one_hot(torch.randint(0, slots, (batch,), generator=draw), slots)
            yield (where * torch.rand(batch, 1, generator=draw)).to(dtype)


def told(link, kind, **how):
    """The links after some writes, and reads to follow."""
    some = list(writes(kind, **how))
    links, before = link.start(torch.zeros_like(some[0])), torch.zeros_like(some[0])
    for weights in some:
        links.write(weights, before)
        before = precede(before, weights)
    batch, slots = some[0].shape
    reads = torch.softmax(torch.randn(batch, 4, slots, generator=torch.Generator().manual_seed(9)), -1)
    return links, reads.to(some[0].dtype)


def test_history_is_dense_for_writes_to_one_slot():
    dense, reads = told(Dense(), "one")
    history, _ = told(History(), "one")
    for mine, wanted in zip(history.follow(reads), dense.follow(reads), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-6)
    assert dense.follow(reads)[0].abs().max() > 1e-3  # and it is not all zeros


def test_and_in_single_precision():
    dense, reads = told(Dense(), "one", dtype=torch.float32)
    history, _ = told(History(), "one", dtype=torch.float32)
    for mine, wanted in zip(history.follow(reads), dense.follow(reads), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-6)


def test_history_is_within_one_percent_of_dense_for_soft_writes():
    dense, _ = told(Dense(), "soft")
    history, _ = told(History(), "soft")
    slots = torch.eye(64, dtype=torch.float64).expand(4, 64, 64)
    implied = history.follow(slots)[1]  # from each slot backwards: the rows of the matrix that it stands for
    error = (implied - dense.matrix).norm() / dense.matrix.norm()
    assert 0.003 < error < 0.01


def test_the_diagonal_is_nothing_and_backward_is_forward_turned_round():
    for link in (Dense(), History(), History(7)):
        links, _ = told(link, "soft", slots=12)
        slots = torch.eye(12, dtype=torch.float64).expand(4, 12, 12)
        forward, backward = links.follow(slots)
        torch.testing.assert_close(forward, backward.mT, rtol=0, atol=1e-12)
        assert forward.diagonal(dim1=1, dim2=2).abs().max() < 1e-12


@pytest.mark.parametrize("keep", [1, 5, 60, 200])
def test_a_window_is_the_history_of_the_last_writes(keep):
    some = list(writes("soft", slots=16))
    windowed, full = History(keep).start(torch.zeros_like(some[0])), History().start(torch.zeros_like(some[0]))
    before = torch.zeros_like(some[0])
    for step, weights in enumerate(some):
        windowed.write(weights, before)
        if step >= len(some) - keep:
            full.write(weights, before)
        before = precede(before, weights)
    reads = torch.softmax(torch.randn(4, 2, 16, dtype=torch.float64), -1)
    for mine, wanted in zip(windowed.follow(reads), full.follow(reads), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-12)
    assert windowed.past.shape[2] == min(keep, len(some))


@pytest.mark.parametrize("link", [Dense(), History()])
def test_slots_are_followed_in_the_order_of_writing(link):
    order, links, before = [2, 0, 3], link.start(torch.zeros(1, 4)), torch.zeros(1, 4)
    for slot in order:
        weights = F.one_hot(torch.tensor([slot]), 4).float()
        links.write(weights, before)
        before = precede(before, weights)
    slots = torch.eye(4)[None]
    forward, backward = links.follow(slots)
    assert [int(forward[0, s].argmax()) for s in (2, 0)] == [0, 3]
    assert [int(backward[0, s].argmax()) for s in (0, 3)] == [2, 0]
    assert forward[0, 3].sum() == backward[0, 2].sum() == forward[0, 1].sum() == 0


def test_following_nothing_gives_nothing():
    for link in (Dense(), History()):
        forward, backward = link.start(torch.zeros(2, 3)).follow(torch.ones(2, 1, 3))
        assert torch.equal(forward, torch.zeros(2, 1, 3))
        assert torch.equal(backward, torch.zeros(2, 1, 3))


@pytest.mark.parametrize("link", [Dense(), History(), History(3)])
def test_gradients_reach_the_writes(link):
    def followed(first, second, third, reads):
        links, before = link.start(torch.zeros_like(first)), torch.zeros_like(first)
        for weights in (first, second, third, first):
            links.write(weights, before)
            before = precede(before, weights)
        return links.follow(reads)

    draw = torch.Generator().manual_seed(0)
    some = [torch.softmax(torch.randn(2, 4, generator=draw, dtype=torch.float64), -1).requires_grad_() for _ in "123"]
    reads = torch.rand(2, 2, 4, generator=draw, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(followed, (*some, reads))


def test_origin_says_whose_writing_a_read_meets():
    one = F.one_hot(torch.tensor([[0, 1, 0, 2]]), 3).float()  # the third write goes over the first
    reads = F.one_hot(torch.tensor([[[0, 0, 0, 1]]]), 3).float()
    met = origin(reads, one)[0, 0]
    assert met.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]]


def test_links_have_names():
    assert link_named("history") == History()
    assert link_named("history-16") == History(16)
    assert link_named("dense") == Dense()
    assert link_named("none") is None
    for wrong in ("sparse", "dense-3", "history-x", ""):
        with pytest.raises(InputError, match=f"there is no link {wrong!r}: choose history, history-16"):
            link_named(wrong)
    with pytest.raises(InputError, match="keeps the last 1 or more writes, not 0: pass None to keep all"):
        History(0)
