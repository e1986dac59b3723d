"""Finding two facts in two hops, over vectors that are sums of word vectors."""

import zlib
from itertools import islice

import numpy as np
import pytest
import torch

from recuerdo.errors import InputError
from recuerdo.models.follow import Follow
from recuerdo.tasks.find import Find


def words(texts):
    """Each text the sum of random vectors of its words, of length 1."""
    rows = [
        sum(np.random.default_rng(zlib.crc32(w.encode())).normal(size=48) for w in t.lower().split()) for t in texts
    ]
    return (np.stack(rows) / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def small(**numbers):
    task = Find(**{"worlds": 12, "batch": 4, "checks": 6, **numbers})
    task.encode = words
    return task


def test_it_starts_as_the_sum_and_learns_to_do_better():
    task = small()
    torch.manual_seed(0)
    model = task.model("follow")
    before = task.check(model, "valid")
    assert before["error"] == before["sum"]
    assert before["once"] > 0
    found = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=8.0)
    for batch in islice(task.batches(seed=0), 150):
        loss = task.loss(model, batch)["second"]
        found.zero_grad()
        loss.backward()
        found.step()
    after = task.check(model, "valid")
    assert after["error"] < before["error"] - 5
    assert after["once"] == before["once"]


def test_the_first_hop_is_not_read_again_and_the_other_fact_is_wanted():
    task = small()
    looks = task.looks("test")
    first, second = task._hops(Follow(48), looks)
    assert torch.equal(second.isneginf().sum(-1), torch.ones(first.shape[:2], dtype=torch.long))
    assert torch.equal(second.isneginf().float().argmax(-1), first.argmax(-1))
    assert bool(task.loss(Follow(48), looks)["second"].isfinite())


def test_batches_can_be_taken_up_anywhere():
    task = small()
    first, later = list(islice(task.batches(seed=3), 5)), list(islice(task.batches(seed=3, start=2), 3))
    for a, b in zip(first[2:], later, strict=True):
        assert torch.equal(a.queries, b.queries)
        assert torch.equal(a.facts, b.facts)


def test_a_trained_model_needs_no_encoder_to_be_opened():
    task = Find(**small().carries())
    assert task.model("follow").asked.weight.shape == (48, 48)


def test_what_cannot_be():
    with pytest.raises(InputError, match="the task find has no encoder yet"):
        Find().model("follow")
    with pytest.raises(InputError, match="the numbers of a Find are 1 or more, and batch is at most worlds"):
        Find(worlds=2, batch=3)
    with pytest.raises(InputError, match="there is no model 'reader' for finding facts: choose follow"):
        small().model("reader")
    with pytest.raises(InputError, match="there is no split 'train' of chains: choose valid or test"):
        small().check(Follow(48), "train")
    with pytest.raises(InputError, match="the width of vectors is 1 or more, not 0"):
        Follow(0)
