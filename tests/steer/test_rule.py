"""The rule that turns marks into bends: where every key of a read stands in its sequence, and which reads a scope holds."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from recuerdo.bridge.reads import Reads, reads_of
from recuerdo.errors import MarkError
from recuerdo.read import Address, Bend, Odds, Reading, Share, allow, bending, causal, read, watch
from recuerdo.steer import Mark, boost, damp, mute, share
from recuerdo.steer.rule import Marked, Rule

HERE = (0, 1)  # where a mark is on the text is of no matter here: its keys are given beside it
WINDOW = 4


def role(path: str) -> str:
    return next((name for name in ("cross", "encoder") if name in path), "self")


def layer(path: str) -> int:
    return int(path.split(".")[0])


READS = Reads(role, layer, lambda path: WINDOW if "window" in path else None, layers=3, heads=2)


def keys(n: int, *marked: int) -> Tensor:
    found = torch.zeros(n, dtype=torch.bool)
    found[list(marked)] = True
    return found


def reading(q: int, k: int, allowed: Tensor | None = None, *, batch: int = 1, heads: int = 2) -> Reading:
    mask = causal if allowed is None else allow(allowed)
    return read(torch.zeros(batch, heads, q, 2), *(torch.zeros(batch, heads, k, 2) for _ in range(2)), mask=mask)


class Walk:
    """A rule with one mark, and what it makes of one read after another."""

    def __init__(self, *marked: int, mark: Mark | None = None, roles: frozenset[str] | None = None, n: int = 20):
        told = {} if roles is None else {"roles": roles}
        self.rule, self.count = Rule([Marked(mark or share(HERE, 0.3), keys(n, *marked), **told)], READS), {}

    def bends(self, q: int, k: int, path: str = "0.self", allowed: Tensor | None = None, **more) -> list[Bend]:
        step = self.count[path] = self.count.get(path, -1) + 1
        return self.rule(Address(path, step), reading(q, k, allowed, **more))

    def columns(self, *args, **told) -> list[int]:
        """The marked columns of the next read."""
        bends = self.bends(*args, **told)
        return bends[0].keys.nonzero()[:, 0].tolist() if bends else []

    def rows(self, *args, **told) -> list[int]:
        """The steered rows of the next read."""
        bends = self.bends(*args, **told)
        return bends[0].rows.nonzero()[:, 0].tolist() if bends else []


def beforehand(q: int, end: int, k: int) -> Tensor:
    """The mask of a cache of k places that was allocated beforehand, of which `end` are filled."""
    return (torch.arange(k) <= torch.arange(end - q, end)[:, None])[None, None]


def unmasked(q: int, k: int) -> Tensor:
    return torch.ones(1, 1, q, k, dtype=torch.bool)


# ------------------------------------------------------------------------------------------------- where the keys stand


def test_a_cache_that_grows():
    walk = Walk(2, 3, 7)
    assert walk.columns(5, 5) == [2, 3]
    assert [walk.columns(1, k) for k in (6, 7, 8, 9)] == [[2, 3], [2, 3], [2, 3, 7], [2, 3, 7]]
    assert walk.rule.bent == [5]


def test_a_prompt_in_pieces():
    walk = Walk(2, 3, 7)
    assert [walk.columns(*size) for size in ((3, 3), (3, 6), (3, 9), (1, 10))] == [[2], [2, 3], [2, 3, 7], [2, 3, 7]]


def test_a_cache_that_was_allocated_beforehand():
    walk, steps = Walk(2, 3, 7), Walk(2, mark=share(HERE, 0.3, steps=(1, 3)))
    assert walk.columns(5, 12, allowed=beforehand(5, 5, 12)) == [2, 3, 7]  # key 7 is there, and nobody sees it yet
    assert walk.columns(1, 12, allowed=beforehand(1, 6, 12)) == [2, 3, 7]
    sizes = [(5, 5), (1, 6), (1, 7), (1, 8)]
    assert [steps.columns(q, 12, allowed=beforehand(q, end, 12)) for q, end in sizes] == [[], [2], [2], []]


def test_a_cache_that_slides():
    """Of a window of 4 the cache keeps 3 keys; the newest is the fourth."""
    walk, path = Walk(1, 4, 5, 7), "0.window"
    assert walk.columns(6, 6, path) == [1, 4, 5]
    assert [walk.columns(1, 4, path, unmasked(1, 4)) for _ in range(5)] == [[1, 2], [0, 1, 3], [0, 2], [1], [0]]
    assert walk.columns(1, 4, path, unmasked(1, 4)) == []
    assert walk.rule.bent == [6]


def test_a_cache_that_does_not_slide_yet():
    walk, path = Walk(1, 4), "0.window"
    assert walk.columns(2, 2, path) == [1]
    assert [walk.columns(1, k, path, unmasked(1, k)) for k in (3, 4, 4, 4)] == [[1], [1], [0, 3], [2]]
    fixed = Walk(1, 4)  # the same with four places allocated beforehand
    sizes = [(2, 2), (1, 3), (1, 4), (1, 4), (1, 4)]
    assert [fixed.columns(q, 4, path, beforehand(q, end, 4)) for q, end in sizes] == [[1], [1], [1], [0, 3], [2]]


def test_pieces_in_a_window():
    """Three keys are kept of the past, whatever comes at once."""
    walk, path = Walk(1, 4, 8, 10), "0.window"
    assert walk.columns(5, 5, path) == [1, 4]
    assert walk.columns(4, 7, path, unmasked(4, 7)) == [2, 6]  # keys 2 to 8
    assert walk.columns(2, 5, path, unmasked(2, 5)) == [2, 4]  # keys 6 to 10


@pytest.mark.parametrize("second", [5, 3, 1])
def test_a_second_text_begins_anew(second):
    """Whatever kind of cache the first one left; its first step is step 0."""
    walk = Walk(0, 4, mark=share(HERE, 0.3, steps=(0, 1)))
    marked = [0, 4] if second == 5 else [0]
    assert walk.columns(5, 5) == [0, 4]
    assert walk.columns(1, 6) == []
    assert walk.columns(second, second) == marked
    assert walk.columns(1, second + 1) == []
    walk = Walk(0, 4, mark=share(HERE, 0.3, steps=(0, 1)))
    for _ in range(2):
        assert walk.columns(5, 9, allowed=beforehand(5, 5, 9)) == [0, 4]
        assert walk.columns(1, 9, allowed=beforehand(1, 6, 9)) == []
        assert walk.columns(second, 9, allowed=beforehand(second, second, 9)) == [0, 4]
    walk, path = Walk(0, 2, mark=share(HERE, 0.3, steps=(0, 1))), "0.window"
    for _ in range(2):
        assert walk.columns(6, 6, path) == [0, 2]
        assert walk.columns(1, 4, path, unmasked(1, 4)) == []
        few = min(second, 3)
        assert walk.columns(few, 4, path, beforehand(few, few, 4)) == [0, 2]
        assert walk.columns(1, 4, path, beforehand(1, few + 1, 4)) == []


def test_a_cache_that_was_filled_outside():
    walk = Walk(2, 7)
    assert walk.columns(1, 9) == [2, 7]
    assert walk.columns(1, 10) == [2, 7]
    assert Walk(2, 7, mark=share(HERE, 0.3, steps=(1, 2))).columns(1, 9) == [2, 7]  # one token: a generation goes on
    assert Walk(2, 7, mark=share(HERE, 0.3, steps=(0, 1))).columns(2, 9) == [2, 7]  # several: a text goes on
    assert Walk(2, mark=share(HERE, 0.3, queries=(8, 9))).rows(3, 10) == [1]
    walk = Walk(2, 7)
    assert walk.columns(5, 5) == [2]
    assert walk.columns(1, 15) == [2, 7]  # another sequence than that of the call before
    assert walk.columns(1, 12, allowed=beforehand(1, 9, 12)) == [2, 7]


def test_a_window_that_was_filled_outside():
    """Not full, it has forgotten nothing; full, nobody knows what."""
    assert Walk(1).columns(1, 3, "0.window", unmasked(1, 3)) == [1]
    assert Walk(1).columns(1, 4, "0.window", beforehand(1, 3, 4)) == [1]
    assert Walk(1).columns(1, 9, "0.window", unmasked(1, 9)) == [1]  # it keeps more than its window
    for q, k in ((1, 4), (3, 6)):
        with pytest.raises(MarkError) as caught:
            Walk(1).columns(q, k, "0.window", unmasked(q, k))
        assert str(caught.value) == (
            "0.window goes on from a cache that keeps a window of the keys and was filled outside of the block, so "
            "nobody knows where the marked keys are: let the model read the whole text inside the block"
        )


def test_padding_is_counted_as_keys():
    """Positions are columns of the batch, as the marks' keys are, on either side of the text."""
    left = torch.ones(2, 1, 5, 5, dtype=torch.bool).tril()
    left[1, ..., :2] = False
    right = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    right[:, ..., 3:] = False
    for allowed in (left, right):
        walk = Walk(2, 4)
        assert walk.columns(5, 5, allowed=allowed, batch=2) == [2, 4]
        assert walk.columns(1, 6, allowed=torch.ones(2, 1, 1, 6, dtype=torch.bool), batch=2) == [2, 4]
    assert Walk(2, 4, n=3 + 2).columns(1, 9, allowed=torch.ones(1, 1, 1, 1, dtype=torch.bool)) == [2, 4]
    nobody = torch.zeros(1, 1, 1, 9, dtype=torch.bool)
    assert Walk(2, 4).columns(1, 9, allowed=nobody) == [2, 4]


class Cache(NamedTuple):
    """How a cache hands out its keys: (positions handed out, mask) for the tokens from `start` to `end`."""

    kind: str
    size: int

    def __call__(self, start: int, end: int) -> tuple[list[int], Tensor | None]:
        q, window = end - start, self.size
        if self.kind == "grows":
            return list(range(end)), None
        if self.kind == "beforehand":
            return list(range(self.size)), beforehand(q, end, self.size)
        if self.kind == "slides":
            past = list(range(max(0, start - window + 1), start))
        elif start >= window:
            past = list(range(start - window + 1, start))
        elif end > window:
            past = list(range(start))
        else:
            return list(range(window)), beforehand(q, end, window)
        return [*past, *range(start, end)], unmasked(q, len(past) + q)


@settings(max_examples=120, deadline=None, database=None, derandomize=True)
@given(st.data())
def test_any_cache_any_pieces_any_number_of_texts(data):
    """The columns of every read are those of the marked positions, its rows and steps those of the sequence."""
    kind = data.draw(st.sampled_from(["grows", "beforehand", "slides", "slides, beforehand"]))
    cache = Cache(kind, WINDOW if "slides" in kind else 40)
    path = "0.window" if "slides" in kind else "0.self"
    marked = data.draw(st.lists(st.integers(0, 39), min_size=1, max_size=8, unique=True))
    first = data.draw(st.integers(0, 20))
    queries, steps = (first, first + data.draw(st.integers(1, 20))), (data.draw(st.integers(0, 2)), 4)
    where, when = (
        Walk(*marked, mark=mark, n=40) for mark in (share(HERE, 0.3, queries=queries), mute(HERE, steps=steps))
    )
    for _ in range(data.draw(st.integers(1, 3))):
        start = 0
        for step, q in enumerate(data.draw(st.lists(st.sampled_from([1, 1, 2, 3, 7]), min_size=1, max_size=5))):
            positions, allowed = cache(start, start + q)
            told = (q, len(positions), path, allowed)
            columns = [i for i, at in enumerate(positions) if at in marked]
            rows = [i for i in range(q) if queries[0] <= start + i < queries[1]]
            bends = where.bends(*told)
            assert (bends == []) == (not columns or not rows)
            if bends:
                assert bends[0].keys.nonzero()[:, 0].tolist() == columns
                assert bends[0].rows.nonzero()[:, 0].tolist() == rows
            assert when.columns(*told) == (columns if steps[0] <= step < steps[1] else [])
            start += q


# ------------------------------------------------------------------------------------------------------------ examples


def test_every_example_has_its_own_marks_and_beams_share_them():
    both = torch.stack([keys(6, 1), keys(6, 3, 4)])
    rule = Rule([Marked(mute(HERE), both)], READS)
    (one,) = rule(Address("0.self", 0), reading(5, 5, batch=2))
    assert torch.equal(one.keys, both[:, :5])
    (one,) = rule(Address("0.self", 1), reading(1, 6, batch=6))
    assert torch.equal(one.keys, both.repeat_interleave(3, 0))
    (one,) = Rule([Marked(mute(HERE), both[:1])], READS)(Address("0.self", 0), reading(5, 5, batch=3))
    assert one.keys.shape == (1, 5)
    for batch in (1, 3):
        with pytest.raises(MarkError) as caught:
            rule(Address("0.self", 2), reading(1, 7, batch=batch))
        assert str(caught.value) == f"the marks are on 2 examples, and the model reads {batch}"


# ------------------------------------------------------------------------------------------------------- roles and scopes


def test_cross_attention_goes_by_the_self_attention_before_it():
    """Its keys are those of the source, its step and rows those of what is written."""
    walk = Walk(1, 3, mark=share(HERE, 0.3, steps=(1, 3)))
    seen = [(walk.columns(1, k), walk.columns(1, 9, "0.cross")) for k in (1, 2, 3, 4)]
    assert [cross for _, cross in seen] == [[], [1, 3], [1, 3], []]
    rows = Walk(1, mark=share(HERE, 0.3, queries=(3, 5)), roles=frozenset({"cross"}))
    assert rows.rows(4, 4) == []
    assert rows.rows(4, 9, "0.cross") == [3]
    assert rows.rows(1, 5) == []
    assert rows.rows(1, 9, "0.cross") == [0]
    assert rows.rows(1, 6) == rows.rows(1, 9, "0.cross") == []


def test_cross_attention_without_self_attention_counts_its_own_reads():
    walk = Walk(1, mark=share(HERE, 0.3, steps=(1, 3)))
    assert walk.columns(9, 9, "0.encoder") == []  # the source is read before, and says nothing of the steps
    assert [walk.columns(1, 9, "0.cross") for _ in range(4)] == [[], [1], [1], []]


def test_an_encoder_begins_with_every_read():
    walk = Walk(1, 7, mark=share(HERE, 0.3, steps=(0, 1)))
    assert [walk.columns(q, k, "0.encoder") for q, k in ((5, 5), (9, 9), (3, 8))] == [[1], [1, 7], [1, 7]]
    assert walk.columns(1, 4) == []  # and self-attention does not go by it


@pytest.mark.parametrize(
    ("roles", "scope", "heard"),
    [
        (None, {}, {"self", "cross", "encoder"}),
        (None, {"role": "cross"}, {"cross"}),
        ({"self"}, {}, {"self"}),
        ({"encoder", "cross"}, {"role": "encoder"}, {"encoder"}),
        ({"self"}, {"role": "cross"}, set()),
    ],
)
def test_roles(roles, scope, heard):
    walk = Walk(1, mark=share(HERE, 0.3, **scope), roles=roles and frozenset(roles))
    assert {name for name in ("self", "cross", "encoder") if walk.columns(5, 5, f"0.{name}")} == heard
    assert walk.rule.bent == [len(heard)]


def test_a_mark_on_the_keys_of_one_tower():
    marked = Marked(mute(HERE), keys(5, 1), paths=lambda path: path.endswith("vision"))
    rule = Rule([marked], READS)
    assert [len(rule(Address(path, 0), reading(5, 5))) for path in ("0.text", "0.vision", "1.vision")] == [0, 1, 1]
    assert rule.bent == [2]


@pytest.mark.parametrize(
    ("layers", "heard"), [([0], {0}), ([1, 2], {1, 2}), ([-1], {2}), ([-3, 1], {0, 1}), (None, {0, 1, 2})]
)
def test_layers(layers, heard):
    walk = Walk(1, mark=share(HERE, 0.3, layers=layers))
    assert {n for n in range(3) if walk.columns(5, 5, f"{n}.self")} == heard


def test_heads():
    walk = Walk(1, mark=boost(HERE, 3.0, heads=[(0, 1), (-1, 0), (2, 1)]))
    assert walk.bends(5, 5, "0.self")[0].heads.tolist() == [False, True]
    assert walk.bends(5, 5, "1.self") == []
    assert walk.bends(5, 5, "2.self")[0].heads.tolist() == [True, True]
    assert Walk(1).bends(5, 5)[0].heads is None
    assert Walk(1, mark=mute(HERE, heads=[(0, 1)])).bends(5, 5, heads=1) == []  # this read has fewer


@pytest.mark.parametrize(
    ("queries", "rows"),
    [
        ((2, 4), [[2, 3], [], []]),
        ((None, 6), [[0, 1, 2, 3, 4], [0], []]),
        ((6, None), [[], [], [0]]),
        ((5, 7), [[], [0], [0]]),
    ],
)
def test_query_ranges(queries, rows):
    walk = Walk(0, mark=share(HERE, 0.3, queries=queries))
    assert [walk.rows(*size) for size in ((5, 5), (1, 6), (1, 7))] == rows


@pytest.mark.parametrize(
    ("steps", "heard"), [((0, 1), [0]), ((1, None), [1, 2, 3]), ((None, 2), [0, 1]), ((2, 3), [2]), ((9, None), [])]
)
def test_generation_steps(steps, heard):
    walk = Walk(0, mark=share(HERE, 0.3, steps=steps))
    assert [step for step in range(4) if walk.columns(*((5, 5) if step == 0 else (1, 5 + step)))] == heard


# ---------------------------------------------------------------------------------------------------- what becomes of it


def test_actions_become_bends():
    marks = [share(HERE, 0.3), mute(HERE), boost(HERE, 4.0), damp(HERE, 0.1)]
    rule = Rule([Marked(mark, keys(5, i)) for i, mark in enumerate(marks)], READS)
    bends = rule(Address("0.self", 0), reading(5, 5))
    assert [(type(one), one.amount) for one in bends] == [(Share, 0.3), (Share, 0.0), (Odds, 4.0), (Odds, 0.1)]
    assert [one.keys.nonzero().item() for one in bends] == [0, 1, 2, 3]
    assert rule.bent == [1, 1, 1, 1]


def test_strengths_of_heads_stand_in_for_the_amount():
    marked = Marked(boost(HERE, 4.0), keys(5, 1), strengths={(0, 1): 7.0, (2, 0): 0.5})
    rule = Rule([marked], READS)
    found = {n: rule(Address(f"{n}.self", 0), reading(5, 5))[0].amount.tolist() for n in (0, 2)}
    assert found == {0: [1.0, 7.0], 2: [0.5, 1.0]}


def test_marks_on_keys_that_are_not_there_bend_nothing():
    walk = Walk(9)
    assert walk.bends(5, 5) == []
    assert walk.bends(1, 6) == []
    assert walk.rule.bent == [0]
    assert Rule([], READS)(Address("0.self", 0), reading(5, 5)) == []
    assert Walk(1, n=2).bends(5, 5)[0].keys.tolist() == [False, True, False, False, False]


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ({"layers": [0, 3]}, "there is no layer 3: this model has layers 0 to 2"),
        ({"layers": [-4]}, "there is no layer -4: this model has layers 0 to 2"),
        ({"heads": [(7, 0)]}, "there is no layer 7: this model has layers 0 to 2"),
        ({"heads": [(0, 1), (0, 2)]}, "there is no head 2: this model has heads 0 to 1"),
        ({"head_set": "facts"}, "the head set 'facts' was not looked up: pass the profile that holds it"),
    ],
)
def test_scopes_that_the_model_does_not_have(scope, words):
    with pytest.raises(MarkError) as caught:
        Rule([Marked(mute(HERE, **scope), keys(5, 1))], READS)
    assert str(caught.value) == words


def test_an_own_model_need_not_say_its_layers():
    reads = Reads(role, layer, lambda path: None)
    rule = Rule([Marked(mute(HERE, layers=[9]), keys(5, 1)), Marked(mute(HERE, heads=[(9, 8)]), keys(5, 2))], reads)
    assert rule(Address("0.self", 0), reading(5, 5)) == []
    assert len(rule(Address("9.self", 0), reading(5, 5))) == 1


# ---------------------------------------------------------------------------------------------------------- an own model


class Attend(nn.Module):
    """Two heads over a cache that grows, or over a source."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(8, 24)
        self.key = self.value = None

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        query, key, value = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.map(x).chunk(3, -1))
        if source is not None:
            _, key, value = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.map(source).chunk(3, -1))
        elif self.key is not None:
            key, value = torch.cat([self.key, key], 2), torch.cat([self.value, value], 2)
        self.key, self.value = key, value
        return x + read(query, key, value, mask=causal if source is None else None).mixed.transpose(1, 2).flatten(2)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.ModuleDict({"own": Attend(), "cross": Attend()}) for _ in range(2))

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        for one in self.layers:
            x = one["cross"](one["own"](x), source)
        return x

    def generate(self, prompt: Tensor, source: Tensor, steps: int) -> list[Tensor]:
        for one in self.layers:
            one["own"].key = None
        found = [self(prompt, source)]
        for _ in range(steps - 1):
            found.append(self(found[-1][:, -1:], source))
        return found


@torch.no_grad()
def test_an_own_model_is_steered_through_its_generation():
    """Everything at once: two marks on two sequences, beams, steps; unbent elsewhere; restored afterwards."""
    model, g = Decoder(), torch.Generator().manual_seed(0)
    prompt, source = torch.randn(4, 5, 8, generator=g), torch.randn(4, 7, 8, generator=g)
    bare = model.generate(prompt, source, 4)
    written = Marked(share(HERE, 0.5), keys(9, 1, 2), frozenset({"self"}))
    heard = Marked(
        share(HERE, 0.25, steps=(2, None), heads=[(1, 0)]),
        torch.stack([keys(7, 0), keys(7, 5, 6)]),
        frozenset({"cross"}),
    )
    rule = Rule([written, heard], reads_of(model))
    with bending(model, rule), watch(model) as seen:
        bent = model.generate(prompt, source, 4)
    assert rule.bent == [8, 2]
    for n in (0, 1):
        for one in seen.steps(f"layers.{n}.own"):
            assert (one.weights[:, 1:3].sum(-1)[..., -1] - 0.5).abs().max() <= 1e-6
        cross = seen.steps(f"layers.{n}.cross")
        assert [one.bent is not None for one in cross] == [False, False, n == 1, n == 1]
    weights = cross[2].weights[:, :]
    assert (weights[:2, 0, :, 0] - 0.25).abs().max() <= 1e-6
    assert (weights[2:, 0, :, 5:].sum(-1) - 0.25).abs().max() <= 1e-6
    assert not torch.equal(bent[0], bare[0])
    for a, b in zip(model.generate(prompt, source, 4), bare, strict=True):
        assert torch.equal(a, b)
