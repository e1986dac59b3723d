"""Attention over stores: equal to dense attention in outputs and gradients, over one store or several, hop by hop."""

import math

import numpy as np
import pytest
import torch

from recuerdo.errors import InputError, ShapeError
from recuerdo.memory.episodic import Episodic
from recuerdo.read import bending, mute, watch
from recuerdo.store.embedded import Embedded
from recuerdo.store.record import Rows, Where

D, E, DAY = 8, 5, 86_400.0


def rows(n, seed=0, **more):
    draw = np.random.default_rng(seed)
    given = {"texts": [f"text {i} of {seed}" for i in range(n)], "values": draw.standard_normal((n, E))} | more
    return Rows(draw.standard_normal((n, D)), **given)


def asked(q=3, seed=5):
    return torch.randn(q, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def store(tmp_path):
    with Embedded(tmp_path / "notes.db", width=D, value_width=E) as made:
        yield made


def dense(query, given, sharpness=1.0, bias=0.0):
    """The definition, in torch's float64."""
    keys, values = torch.from_numpy(given.keys).double(), torch.from_numpy(given.values).double()
    logits = sharpness * query @ keys.T + bias
    weights = logits.softmax(-1)
    return weights, logits.logsumexp(-1), weights @ values


@pytest.mark.parametrize("whole", [0, 100])
def test_it_is_dense_attention(store, whole):
    given = rows(12, times=[DAY * i for i in range(12)])
    ids = store.append(given)
    store.bias(ids[3:5], 1.5)
    store.bias(ids[7:8], -math.inf)
    bias = torch.zeros(12).double()
    bias[3:5], bias[7] = 1.5, -math.inf
    bias -= 0.25 * (20 - torch.arange(12))
    memory = Episodic(store, sharpness=2.0, fading=0.25, whole=whole)
    weights, lse, mixed = dense(asked(), given, 2.0, bias)
    for top in (4, 12, 20):
        told = memory(asked(), top=top, now=20 * DAY)[0]
        assert told.ids.shape == told.weights.shape == (3, top)
        best = weights.topk(min(top, 11), dim=-1)
        assert torch.equal(told.ids[:, : min(top, 11)], best.indices)
        torch.testing.assert_close(told.weights[:, : min(top, 11)], best.values, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(told.lse, lse, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(told.covered, told.weights.sum(-1), atol=1e-6, rtol=1e-5)
        assert told.looked == told.addressed == 11
        if whole or top >= 11:
            torch.testing.assert_close(told.mixed, mixed, atol=1e-5, rtol=1e-5)
        assert not told.weights[:, 11:].any()
        assert (told.ids[:, 11:] == -1).all()
    assert [one.text for one in memory.records(told)] == [f"text {i} of 0" for i in told.ids[0, :11].tolist()]


@pytest.mark.parametrize("whole", [0, 100])
def test_gradients_are_those_of_dense_attention(store, whole):
    given = rows(12, times=[DAY * i for i in range(12)])
    store.append(given)
    memory = Episodic(store, sharpness=1.7, fading=0.1, learned=True, whole=whole).double()
    query = asked().requires_grad_()
    sharpness, fading = (torch.tensor(x, dtype=torch.float32).double().requires_grad_() for x in (1.7, 0.1))
    told = memory(query, top=12, now=20 * DAY)[0]
    weights, lse, mixed = dense(query, given, sharpness, -fading * (20 - torch.arange(12)))
    order = told.ids
    push = torch.randn(3, E, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mine = (told.mixed * push).sum() + told.lse.sum() + (told.weights**2).sum()
    theirs = (mixed * push).sum() + lse.sum() + (weights.gather(-1, order) ** 2).sum()
    found = torch.autograd.grad(mine, [query, memory.sharpness, memory.fading])
    wanted = torch.autograd.grad(theirs, [query, sharpness, fading])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_keys_values_and_biases_learn_where_it_is_asked_and_go_back_as_versions(store):
    given = rows(6, tags=[["a"]] * 6, author="Ada")
    store.append(given)
    memory = Episodic(store)
    held = memory.rows()
    for tensor in (held.keys, held.values, held.bias):
        tensor.requires_grad_()
    query = asked().float()
    told = memory(query, held=held)[0]
    keys, values, bias = (x.detach().clone().requires_grad_() for x in (held.keys, held.values, held.bias))
    weights = (query @ keys.T + bias).softmax(-1)
    found = torch.autograd.grad(told.mixed.square().sum(), [held.keys, held.values, held.bias])
    wanted = torch.autograd.grad((weights @ values).square().sum(), [keys, values, bias])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert memory.write(held) == 0
    with torch.no_grad():
        held.keys[2] += 1
        held.values[4] -= 1
    assert memory.write(held) == 2
    there = {int(id): i for i, id in enumerate(held.ids)}
    for id in (2, 4):
        assert store.get([int(held.ids[id])])[0].version == 2
        assert store.get([int(held.ids[id])])[0].tags == ("a",)
    np.testing.assert_array_equal(store.get([int(held.ids[2])])[0].key, held.keys[2].detach().numpy())
    assert [hand.reason for hand in store.hands()] == ["written by the network"] * 2
    assert len(there) == 6


@pytest.mark.parametrize("whole", [0, 100])
def test_several_stores_are_read_as_one(store, tmp_path, whole):
    given = rows(9)
    store.append(Rows(given.keys[:4], given.texts[:4], given.values[:4]))
    with Embedded(tmp_path / "more.db", width=D, value_width=E) as more:
        more.append(Rows(given.keys[4:], given.texts[4:], given.values[4:]))
        told = Episodic(store, more, sharpness=3.0, whole=whole)(asked(), top=9)[0]
        weights, lse, mixed = dense(asked(), given, 3.0)
        place = told.ids + torch.where(told.store == 1, 4, 0)
        assert torch.equal(place, weights.topk(9).indices)
        torch.testing.assert_close(told.weights, weights.topk(9).values, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(told.lse, lse, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(told.mixed, mixed, atol=1e-6, rtol=1e-5)
        assert told.looked == 9
        records = Episodic(store, more, sharpness=3.0, whole=whole).records(told, 1)
        assert [one.text for one in records] == [given.texts[i] for i in place[1].tolist()]


@pytest.mark.parametrize("whole", [0, 100])
def test_the_query_moves_from_hop_to_hop(store, whole):
    given = rows(7, values=None)
    with Embedded(store.path.with_name("keys.db"), width=D) as plain:
        plain.append(given)
        told = Episodic(plain, whole=whole, sharpness=2.0)(asked(), hops=3, top=7)
        query = asked()
        keys = torch.from_numpy(given.keys).double()
        for one in told:
            weights = (2.0 * query @ keys.T).softmax(-1)
            torch.testing.assert_close(one.mixed, weights @ keys, atol=1e-5, rtol=1e-5)
            query = query + weights @ keys
        still = Episodic(plain, whole=whole, move=lambda query, mixed: query)(asked(), hops=2)
        torch.testing.assert_close(still[0].weights, still[1].weights)


@pytest.mark.parametrize("whole", [0, 100])
def test_it_is_watched_and_bent_like_any_read(store, whole):
    store.append(rows(6))
    memory = Episodic(store, whole=whole, move=lambda query, mixed: query)
    outer = torch.nn.ModuleDict({"memory": memory})
    with watch(outer) as seen:
        told = memory(asked(), hops=2, top=6)
    assert list(seen) == ["memory@0", "memory@1"]
    if whole:
        most = int(told[0].ids[0, 0])
        with bending(outer, lambda place, read: (mute(torch.arange(6) == most),)):
            bent = memory(asked(), top=6)[0]
        assert float(bent.weights[bent.ids == most].max()) == 0
        torch.testing.assert_close(bent.weights.sum(-1), torch.ones(3).double())


def test_filters_and_nothing_at_all(store):
    for whole in (0, 100):
        told = Episodic(store, whole=whole)(asked(), top=2)[0]
        assert (told.ids == -1).all()
        assert not told.mixed.any()
        assert told.covered.tolist() == [0, 0, 0]
    ids = store.append(rows(5, tags=[["a"], [], ["a"], [], []]))
    for whole in (0, 100):
        told = Episodic(store, whole=whole)(asked().requires_grad_(), top=3, where=Where(tags=("a",)))[0]
        assert set(told.ids[0].tolist()) == {ids[0], ids[2], -1}
        assert told.addressed == 2
        told.weights.sum().backward()


@pytest.mark.parametrize("whole", [0, 1000])
def test_a_look_may_add_to_the_logits_of_rows(store, whole):
    given = rows(60, tags=[["a"]] * 30 + [[]] * 30)
    store.append(given)
    added = {3: 2.0, 7: -5.0, 41: 9.0, 11: 0.5}
    bias = torch.zeros(60).double()
    bias[list(added)] = torch.tensor(list(added.values())).double()
    weights, lse, _ = dense(asked(), given, 1.0, bias)
    told = Episodic(store, whole=whole)(asked(), top=8, added=[added])[0]
    assert torch.equal(told.ids, weights.topk(8).indices)
    torch.testing.assert_close(told.weights, weights.topk(8).values, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(told.lse, lse, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(told.covered, weights.topk(8).values.sum(-1), atol=1e-6, rtol=1e-5)
    bias[30:] = -math.inf
    weights, _, _ = dense(asked(), given, 1.0, bias)
    told = Episodic(store, whole=whole)(asked(), top=8, added=[added], where=Where(tags=("a",)))[0]
    torch.testing.assert_close(told.weights, weights.topk(8).values, atol=1e-6, rtol=1e-5)


def test_a_part_of_the_mass_is_covered(store):
    store.append(rows(200))
    told = Episodic(store, whole=0)(asked(), top=5)[0]
    weights, lse, _ = dense(asked(), rows(200))
    torch.testing.assert_close(told.covered, weights.topk(5).values.sum(-1), atol=1e-6, rtol=1e-5)
    assert (told.covered < 1).all()
    torch.testing.assert_close(told.lse, lse, atol=1e-5, rtol=1e-5)


def test_what_cannot_be(store, tmp_path):
    with pytest.raises(InputError, match="needs at least one store"):
        Episodic()
    with (
        Embedded(tmp_path / "wide.db", width=D + 1) as wide,
        pytest.raises(InputError, match=r"keys of widths \[8, 9\]: one encoder for all"),
    ):
        Episodic(store, wide)
    with pytest.raises(ShapeError, match=r"queries are \[q, 8\], not \[2, 9\]"):
        Episodic(store)(torch.zeros(2, 9))
    store.append(rows(1))
    with pytest.raises(ShapeError, match=r"\[2, 8\] and what was read \[2, 5\] cannot be added up: pass `move`"):
        Episodic(store)(torch.zeros(2, D), hops=2)
    with pytest.raises(InputError, match="hops and top are 1 or more, not 0 and 3"):
        Episodic(store)(asked(), hops=0, top=3)
