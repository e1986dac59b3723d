"""The tasks of memory: what they show and ask is what the paper describes, and the protocol of training holds."""

import math
from itertools import islice

import pytest
import torch
from torch import nn

from recuerdo.data.sequences import _beta_half, n_gram
from recuerdo.errors import InputError
from recuerdo.read import watch
from recuerdo.tasks.recall import KINDS, MODELS, Recall

SMALL = {
    "copy": Recall("copy", width=3, high=4, beyond=6, batch=2, checks=2),
    "repeat-copy": Recall("repeat-copy", width=3, high=4, beyond=6, batch=2, repeats=3, checks=2),
    "associative": Recall("associative", width=3, low=2, high=4, beyond=6, batch=2, checks=2),
    "sort": Recall("sort", width=3, low=2, high=5, beyond=10, batch=2, checks=2),
    "n-gram": Recall("n-gram", width=1, low=20, high=20, beyond=30, batch=2, checks=2),
}
SIZES = {"ntm": {"hidden": 8, "memory": (8, 4, 1)}, "dnc": {"hidden": 8, "memory": (8, 4, 1)}, "lstm": {"hidden": 8}}


def rows(x):
    return x.int().tolist()


class Perfect(nn.Module):
    """Answers from what was asked for; `wrong`: every so many bits are turned round."""

    def __init__(self, task, wrong=0):
        super().__init__()
        self.task, self.wrong = task, wrong

    def forward(self, inputs):
        for size in (self.task.high, self.task.beyond):
            for seed, batch in self.made(size):
                if batch.inputs.shape == inputs.shape and torch.equal(batch.inputs, inputs):
                    logits = 20 * (2 * batch.targets - 1)
                    if self.wrong:
                        logits[:, batch.asked] = -logits[:, batch.asked]
                    return logits
        raise AssertionError("these sequences were never made")

    def made(self, size):
        import random

        for split in ("valid", "test"):
            draw = random.Random(f"{self.task.kind} {split} {size} {self.task.repeats}")
            for _ in range(self.task.checks):
                seed = draw.getrandbits(62)
                yield seed, self.task.sequences(size, self.task.repeats, seed)


# ------------------------------------------------------------------------------------------------------- what is shown


def test_copy_shows_a_mark_and_asks_for_the_same():
    batch = SMALL["copy"].sequences(4, 1, 0)
    shown = batch.inputs[:, :4, :3]
    assert set(shown.unique().tolist()) <= {0, 1}
    assert batch.asked.tolist() == [False] * 5 + [True] * 4
    assert torch.equal(batch.targets[:, batch.asked], shown)
    assert rows(batch.inputs[0, :, 3]) == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert batch.inputs[:, 5:].abs().sum() == 0  # while it answers, nothing is told


def test_repeat_copy_says_how_often_and_asks_for_an_end():
    batch = SMALL["repeat-copy"].sequences(2, 3, 0)
    items = batch.inputs[:, 1:3, :3]
    answers = batch.targets[:, batch.asked]
    assert batch.inputs[0, :, 3].tolist() == [1] + [0] * 10
    assert batch.inputs[0, 3, 4] == pytest.approx(0.3)
    assert torch.equal(answers[:, :6, :3], torch.cat([items] * 3, 1))
    assert answers[0, :, 3].tolist() == [0] * 6 + [1]
    assert answers[:, 6, :3].abs().sum() == 0
    assert batch.inputs[:, 4:].abs().sum() == 0


def test_associative_recall_asks_for_the_item_after_the_one_shown_again():
    batch = SMALL["associative"].sequences(4, 1, 3)
    parts = batch.inputs[:, :16].unflatten(1, (4, 4))
    assert parts[:, :, 0, 3].tolist() == [[1] * 4] * 2
    assert parts[:, :, 0, :3].abs().sum() == 0
    assert batch.inputs[0, 16:, 4].tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
    assert batch.asked.tolist() == [False] * 21 + [True] * 3
    for b in range(2):
        asked = batch.inputs[b, 17:20, :3]
        where = [i for i in range(4) if torch.equal(parts[b, i, 1:, :3], asked)]
        assert any(torch.equal(batch.targets[b, batch.asked], parts[b, i + 1, 1:, :3]) for i in where if i < 3)


def test_priority_sort_asks_for_the_highest_first():
    batch = SMALL["sort"].sequences(5, 1, 0)
    for b in range(2):
        items = sorted(range(5), key=lambda i: -float(batch.inputs[b, i, 3]))
        wanted = torch.stack([batch.inputs[b, i, :3] for i in items[:4]])
        assert torch.equal(batch.targets[b, batch.asked], wanted)
    assert -1 <= batch.inputs[:, :5, 3].min() < batch.inputs[:, :5, 3].max() <= 1


def test_the_bits_of_n_grams_can_be_foretold_from_counts_as_well_as_it_says():
    """A fresh Bayes estimator, written with a dictionary, loses what `best` says, and less than one bit a bit."""
    batch = n_gram(torch.Generator().manual_seed(0), 3, 1, 200)
    bits, lost = torch.cat([batch.inputs[:, :1], batch.targets], 1)[..., 0].int(), 0.0
    for row in bits.tolist():
        counts = {}
        for t in range(5, 200):
            zero, one = counts.setdefault(tuple(row[t - 5 : t]), [0, 0])
            lost -= math.log(((one if row[t] else zero) + 0.5) / (zero + one + 1))
            counts[tuple(row[t - 5 : t])][row[t]] += 1
    assert batch.best == pytest.approx(lost / 3, rel=1e-4)
    assert batch.asked.sum() == 195
    assert 0.3 * 195 < batch.best / math.log(2) < 0.95 * 195


def test_tables_are_drawn_from_beta_half():
    drawn = _beta_half(torch.Generator().manual_seed(0), 100_000)
    assert drawn.mean() == pytest.approx(0.5, abs=0.01)
    assert drawn.var() == pytest.approx(1 / 8, abs=0.003)  # a b / ((a + b)^2 (a + b + 1))


# ------------------------------------------------------------------------------------------------------------ protocol


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_depends_on_seed_and_step_alone(kind):
    task = SMALL[kind]
    first, later = list(islice(task.batches(seed=5), 6)), list(islice(task.batches(seed=5, start=3), 3))
    for a, b in zip(first[3:], later, strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)
    other = next(task.batches(seed=6))
    assert first[0].inputs.shape != other.inputs.shape or not torch.equal(first[0].inputs, other.inputs)


def test_sizes_grow_when_they_shall():
    task = Recall(low=1, high=20, growing=200, batch=1)
    lengths = [(len(b.asked) - 1) // 2 for b in islice(task.batches(seed=0), 400)]
    assert max(lengths[:20]) <= 3
    assert max(lengths[:100]) <= 11
    assert max(lengths[200:]) == 20
    assert min(lengths[200:]) == 1


def test_in_repeat_copy_it_is_how_often_that_grows():
    task = Recall(kind="repeat-copy", low=3, high=3, repeats=10, growing=200, batch=1)
    often = [(int(b.asked.sum()) - 1) // 3 for b in islice(task.batches(seed=0), 400)]
    assert set(often[:10]) == {1}
    assert max(often[:100]) <= 6
    assert set(often[200:]) == set(range(1, 11))


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "n-gram"])
def test_who_knows_all_answers_makes_no_error_and_who_turns_them_round_makes_only_errors(kind):
    task = SMALL[kind]
    for split in ("valid", "test"):
        found, turned = task.check(Perfect(task), split), task.check(Perfect(task, wrong=1), split)
        assert list(found) == ["lost", "error", "error_beyond"]  # the first is what is minimised
        assert found["error"] == found["error_beyond"] == 0
        assert turned["error"] == turned["error_beyond"] == 1
        assert found["lost"] == pytest.approx(0, abs=1e-6)
        assert turned["lost"] == pytest.approx(20 / math.log(2), rel=1e-5)


def test_valid_and_test_are_different_sequences_and_always_the_same():
    task = SMALL["copy"]
    seen = []

    class Listens(nn.Module):
        def forward(self, inputs):
            seen.append(inputs)
            return torch.zeros(*inputs.shape[:2], 3)

    for split in ("valid", "test", "valid"):
        task.check(Listens(), split)
    valid, test, again = seen[:4], seen[4:8], seen[8:]
    assert all(torch.equal(a, b) for a, b in zip(valid, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(valid, test, strict=True))


def test_an_observer_that_says_even_loses_more_than_the_best():
    task = SMALL["n-gram"]

    class Even(nn.Module):
        def forward(self, inputs):
            return torch.zeros_like(inputs)

    found = task.check(Even(), "valid")
    assert list(found) == ["excess", "excess_beyond"]
    assert found["excess_beyond"] < 25  # all of the 25 bits, if nothing could be known


def test_the_loss_is_about_the_answer_only():
    task = SMALL["copy"]
    batch = task.sequences(3, 1, 0)

    class Says(nn.Module):
        def __init__(self, spoilt):
            super().__init__()
            self.spoilt = spoilt

        def forward(self, inputs):
            logits = torch.full((2, 7, 3), 0.5)
            logits[:, ~batch.asked] = self.spoilt
            return logits

    losses = [task.loss(Says(spoilt), batch) for spoilt in (-9.0, 9.0)]
    assert list(losses[0]) == ["bits"]
    assert losses[0]["bits"] == losses[1]["bits"]
    p = torch.tensor(0.5).sigmoid()
    share = batch.targets[:, batch.asked].mean()
    assert float(losses[0]["bits"]) == pytest.approx(float(-share * p.log() - (1 - share) * (1 - p).log()), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_every_model_does_every_task(kind, name):
    task = SMALL[kind]
    torch.manual_seed(0)
    model = task.model(name, **SIZES[name])
    model.train()
    loss = task.loss(model, next(task.batches(seed=0)))["bits"]
    loss.backward()
    assert loss.isfinite()
    numbers = task.check(model, "valid")
    assert all(math.isfinite(v) for v in numbers.values())
    assert model.training


@pytest.mark.parametrize("name", ["ntm", "dnc"])
def test_a_few_steps_make_it_better(name):
    torch.manual_seed(0)
    task = Recall(width=2, high=2, low=2, batch=16)
    model = task.model(name, hidden=32, memory=(6, 8, 1))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for batch in islice(task.batches(seed=0), 120):
        loss = task.loss(model, batch)["bits"]
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


@pytest.mark.parametrize("name", ["ntm", "dnc"])
def test_the_memory_grows_for_what_is_beyond_and_is_as_it_was_afterwards(name):
    task = Recall(width=3, high=2, beyond=5, beyond_slots=9, batch=2, checks=1)
    model = task.model(name, **SIZES[name])
    with watch(model) as seen:
        task.check(model, "valid")
    assert [r.shape[-1] for r in seen.steps(seen.paths[0])] == [8] * 5 + [9] * 11
    assert model.slots == 8


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kind": "guess"}, "there is no recall of kind 'guess': choose copy, repeat-copy, associative, sort, n-gram"),
        ({"kind": "associative"}, "sizes of associative go from 2 up, and low is at most high: not low=1, high=20"),
        ({"low": 5, "high": 4}, "low is at most high: not low=5, high=4"),
        ({"batch": 0}, "batch, width, repeats and checks are 1 or more; the other numbers 0 or more"),
        ({"kind": "n-gram", "low": 9}, "n-gram is about one bit at a time: width is 1, not 8"),
    ],
)
def test_a_task_that_cannot_be_is_said(wrong, words):
    with pytest.raises(InputError, match=words):
        Recall(**wrong)


def test_what_a_task_does_not_know_is_said():
    with pytest.raises(InputError, match="there is no model 'turing' for recall: choose ntm, dnc, lstm"):
        Recall().model("turing")
    with pytest.raises(InputError, match="there is no split 'train' of recall: choose valid or test"):
        Recall().check(nn.Identity(), "train")
