"""Watching own models: where every read was heard, what of it stays true afterwards, and that nothing is left behind."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from recuerdo.errors import AddressError, NothingHeard
from recuerdo.read import Address, Reading, Seen, causal, plain_read, read, scaled_dot, softmax, watch

HEADS, WIDTH = 2, 4


class Attend(nn.Module):
    """Self-attention over what it is given, or over a memory."""

    def __init__(self):
        super().__init__()
        self.query = nn.Linear(HEADS * WIDTH, HEADS * WIDTH)

    def forward(self, x, memory=None):
        query, key = self.split(self.query(x)), self.split(x if memory is None else memory)
        return read(query, key, key, mask=causal if memory is None else None).mixed.transpose(1, 2).flatten(2)

    @staticmethod
    def split(x):
        return x.unflatten(-1, (HEADS, WIDTH)).transpose(1, 2)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.own, self.cross = Attend(), Attend()

    def forward(self, x, memory):
        return self.cross(self.own(x), memory)


class Decoder(nn.Module):
    """Two layers with own and cross attention, read once per step."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Layer(), Layer()])

    def forward(self, x, memory, steps=1):
        for _ in range(steps):
            for layer in self.layers:
                x = layer(x, memory)
        return x


class Cached(nn.Module):
    """A generation: every step adds one key and value to a cache; `copy` = each step makes a new tensor."""

    def __init__(self):
        super().__init__()
        self.attend = nn.Identity()
        self.key = self.value = None

    def forward(self, query, key, value):
        self.key = key if self.key is None else torch.cat([self.key, key], 2)
        self.value = value if self.value is None else torch.cat([self.value, value], 2)
        return read(query, self.key, self.value, mask=causal)


def x(length=5, batch=1, seed=0):
    return torch.randn(batch, length, HEADS * WIDTH, generator=torch.Generator().manual_seed(seed))


def hooks(model: nn.Module) -> list[tuple[int, ...]]:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called", "_backward_hooks")
    return [tuple(len(getattr(m, kind)) for kind in kinds) for m in model.modules()]


OWN = ["layers.0.own", "layers.0.cross", "layers.1.own", "layers.1.cross"]


# ---------------------------------------------------------------------------------------------------------- addresses


def test_reads_are_heard_at_the_module_that_made_them():
    model = Decoder()
    with watch(model) as seen:
        model(x(), x(7, seed=1))
    assert seen.paths == list(seen) == OWN
    assert len(seen) == 4
    assert seen["layers.1.cross"].shape == (1, HEADS, 5, 7)
    assert seen["layers.0.own"].shape == (1, HEADS, 5, 5)
    assert seen.silent == []


def test_a_model_that_reads_itself_has_an_empty_path():
    with watch(Attend()) as seen:
        model_reads = Attend()
        with watch(model_reads) as inner:
            model_reads(x())
        assert list(inner) == [""]
        assert inner[""].shape == (1, HEADS, 5, 5)
        assert not len(seen)
        with pytest.raises(NothingHeard), watch(Attend()):
            pass
        read(*(torch.ones(1, 1, 2, 2) for _ in range(3)))
        seen.add("", inner[""])  # something, so that the outer block ends in peace


def test_several_reads_of_a_module_are_its_steps():
    model = Decoder()
    memory = x(7, seed=1)
    with watch(model) as seen:
        model(x(), memory, steps=3)
    assert seen.paths == OWN
    assert list(seen)[:3] == ["layers.0.own@0", "layers.0.own@1", "layers.0.own@2"]
    assert len(seen) == len(list(seen)) == 12
    assert len(seen.steps("layers.0.own")) == 3
    assert seen["layers.0.own"] is seen["layers.0.own@0"]
    assert seen["layers.0.own@2"] is seen.steps("layers.0.own")[2]
    assert seen["layers.0.own@2"] is not seen["layers.0.own@1"]
    assert [r.address for r in seen.steps("layers.1.own")] == [f"layers.1.own@{i}" for i in range(3)]
    for address, reading in seen.items():
        assert seen[reading.address] is seen[address] is reading


def test_two_models_watched_in_one_block_are_heard_apart():
    one, two = Decoder(), Attend()
    with watch(one) as first, watch(two) as second:
        one(x(), x())
        two(x())
    assert (len(first), len(second)) == (4, 1)


def test_contains_and_mapping():
    model = Decoder()
    with watch(model) as seen:
        model(x(), x(), steps=2)
    assert "layers.0.own" in seen
    assert "layers.0.own@1" in seen
    assert "layers.0.own@1:1" in seen
    assert "layers.0.own@2" not in seen
    assert "layers.7.own" not in seen
    assert "a@b" not in seen
    assert "layers.0" not in seen
    assert {**seen}.keys() == set(seen)
    assert seen.get("nowhere") is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("decoder.layers.3.cross@17:5", Address("decoder.layers.3.cross", 17, 5)),
        ("decoder.layers.3.cross", Address("decoder.layers.3.cross")),
        ("a@0", Address("a", 0)),
        ("a:0", Address("a", None, 0)),
        ("", Address("")),
        ("@2", Address("", 2)),
        (":2", Address("", None, 2)),
    ],
)
def test_addresses_are_read_and_written(text, address):
    assert Address.parse(text) == address
    assert str(address) == text


@settings(max_examples=50, deadline=None, database=None)
@given(
    st.text(st.characters(exclude_characters="@:\n", codec="utf-8"), max_size=12),
    st.one_of(st.none(), st.integers(0, 10**6)),
    st.one_of(st.none(), st.integers(0, 10**6)),
)
def test_an_address_round_trips(path, step, head):
    assert Address.parse(str(Address(path, step, head))) == (path, step, head)


@pytest.mark.parametrize("text", ["a@", "a:", "a@x", "a@-1", "a:-1", "a:1@2", "a@1@2", "a@1:2:3", "a:b", "a@1.5"])
def test_what_is_no_address(text):
    with pytest.raises(AddressError) as caught:
        Address.parse(text)
    assert str(caught.value) == f"{text!r} is no address: write path, path@step, path:head or path@step:head"


def test_addresses_that_no_read_has():
    model = Decoder()
    with watch(model) as seen:
        model(x(), x(), steps=2)
    words = {
        "layers.0": f"nothing was read at 'layers.0': there is {', '.join(OWN)}",
        "layers.0.own@2": "layers.0.own has no step 2: it read 2 times",
        "layers.0.own@99:1": "layers.0.own has no step 99: it read 2 times",
        "x@y": "'x@y' is no address: write path, path@step, path:head or path@step:head",
    }
    for address, said in words.items():
        with pytest.raises(AddressError) as caught:
            seen[address]
        assert str(caught.value) == said
    with pytest.raises(KeyError):
        seen["layers.9"]
    with pytest.raises(AddressError, match="^nothing was read at 'x': there is nothing$"):
        Seen().steps("x")


def test_many_paths_are_told_by_their_first():
    seen, reading = Seen(), read(*(torch.ones(1, 1, 2, 2) for _ in range(3)))
    for i in range(6):
        seen.add(f"p{i}", reading)
    with pytest.raises(AddressError, match="^nothing was read at 'x': there is p0, p1, p2, p3, …$"):
        seen.steps("x")


def test_a_head_that_no_read_has():
    """An address names a head too; one that does not exist is an error, not the whole read."""
    with watch(Decoder()) as seen:
        model = Decoder()
        with watch(model) as inner:
            model(x(), x())
        seen.add("own", inner["layers.0.own"])
    assert seen["own:1"].shape[2:] == (5, 5)
    with pytest.raises(AddressError, match="head 9"):
        seen["own:9"]
    assert "own:9" not in seen


# ----------------------------------------------------------------------------------------------- nothing heard, silence


def test_nothing_heard_says_what_to_do():
    words = (
        "Linear was watched and none of its attention was heard: run it inside the block, and let its attention call "
        "recuerdo.read"
    )
    model = nn.Linear(2, 2)
    with pytest.raises(NothingHeard) as caught, watch(model):
        model(torch.ones(2))
    assert str(caught.value).startswith(words)
    assert hooks(model) == [(0, 0, 0, 0)]


def test_attention_that_ran_and_was_not_heard_is_listed():
    class DeafAttention(nn.Module):
        def forward(self, x):
            return x

    class HearableAttention(Attend):
        pass

    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.deaf, self.unused, self.heard = DeafAttention(), DeafAttention(), HearableAttention()

        def forward(self, x):
            return self.heard(self.deaf(self.deaf(x)))

    model = Wrapper()
    with watch(model) as seen:
        model(x())
    assert seen.paths == ["heard"]
    assert seen.silent == ["deaf"]


def test_each_read_is_told_as_it_comes():
    model, heard = Decoder(), []
    with watch(model, each=lambda path, reading: heard.append((path, reading))) as seen:
        model(x(), x(), steps=2)
    assert [path for path, _ in heard] == OWN * 2
    assert all(any(reading is r for r in seen.steps(path)) for path, reading in heard)


# ------------------------------------------------------------------------------------------------------ leaving things


@pytest.mark.parametrize("leave", ["plain", "exception in the block", "exception in the model", "nothing heard"])
def test_nothing_is_left_behind(leave):
    model = Decoder()
    model.layers[0].own.register_forward_hook(lambda *_: None)  # somebody else's
    before, output = hooks(model), model(x(), x())
    if leave == "plain":
        with watch(model):
            model(x(), x())
    elif leave == "exception in the block":
        with pytest.raises(ZeroDivisionError), watch(model):
            raise ZeroDivisionError
    elif leave == "exception in the model":
        with pytest.raises(RuntimeError), watch(model):
            model(torch.ones(1, 2, 3), x())
    else:
        with pytest.raises(NothingHeard), watch(model):
            pass
    assert hooks(model) == before
    assert torch.equal(model(x(), x()), output)


def test_an_exception_inside_the_model_does_not_shift_addresses():
    model = Decoder()
    with watch(model) as seen:
        for _ in range(3):
            with pytest.raises(RuntimeError):
                model(x(), torch.ones(1, 2, 3))  # own attention works, then cross attention fails
        model(x(), x())
    assert seen.paths == ["layers.0.own", "layers.0.cross", "layers.1.own", "layers.1.cross"]
    assert [len(seen.steps(p)) for p in seen.paths] == [4, 1, 1, 1]


def test_reads_outside_are_not_kept():
    model, other = Decoder(), Attend()
    model(x(), x())
    with watch(model) as seen:
        other(x())
        read(*(torch.ones(1, 1, 2, 2) for _ in range(3)))
        model(x(), x())
    count = len(seen)
    model(x(), x())
    other(x())
    assert count == len(seen) == 4


def test_watches_can_be_nested():
    model = Decoder()
    with watch(model) as outer:
        with watch(model) as inner, watch(model.layers[1]) as part:
            model(x(), x())
        model(x(), x())
    assert (len(outer), len(inner), len(part)) == (8, 4, 2)
    assert part.paths == ["own", "cross"]
    assert torch.equal(part["own"].weights[:, :], inner["layers.1.own"].weights[:, :])
    assert torch.equal(outer["layers.1.own@0"].weights[:, :], inner["layers.1.own"].weights[:, :])
    assert hooks(model) == hooks(Decoder())


def test_an_inner_watch_that_fails_leaves_the_outer_one_listening():
    model = Decoder()
    with watch(model) as outer:
        with pytest.raises(ZeroDivisionError), watch(model):
            raise ZeroDivisionError
        model(x(), x())
    assert len(outer) == 4


def test_readings_are_let_go_with_what_was_seen():
    model = Decoder()
    with watch(model) as seen:
        model(x(), x())
    reading = weakref.ref(seen["layers.0.own"])
    del seen
    gc.collect()
    assert reading() is None


# ------------------------------------------------------------------------------------------------ what stays of a read


def generation(prompt=3, length=80, width=WIDTH, seed=0):
    g = torch.Generator().manual_seed(seed)
    whole = [torch.randn(1, HEADS, length, width, generator=g) for _ in range(3)]
    edges = [0, prompt, *range(prompt + 1, length + 1)]
    return whole, [[t[:, :, a:b] for t in whole] for a, b in zip(edges, edges[1:], strict=False)]


def same(a, b, tolerance=1e-5):
    assert a.shape == b.shape
    assert (a - b).abs().max() <= tolerance


def true_weights(query, key, value, mask=causal):
    return plain_read(query, key, value, mask=mask, bias=None, score=scaled_dot, normalise=softmax).weights


def test_a_growing_cache_is_kept_once():
    model = Cached()
    (query, key, value), steps = generation()
    with watch(model) as seen:
        for step in steps:
            model(*step)
    reads = seen.steps("")
    assert len(reads) == len(steps) == 78
    assert len({r.pairing.key.untyped_storage().data_ptr() for r in reads}) == 1
    assert len({r.value.untyped_storage().data_ptr() for r in reads}) == 1
    assert [r.shape[3] for r in reads] == [3, *range(4, 81)]
    end = 0
    for r in reads:
        start, end = end, end + r.shape[2]
        rows = query[:, :, start:end], key[:, :, :end], value[:, :, :end]
        assert torch.equal(r.value, rows[2])
        assert torch.equal(r.pairing.key, rows[1])
        same(r.weights[:, :], true_weights(*rows))
        same(r.mass(torch.ones(end, 1))[..., 0], torch.ones(1, HEADS, r.shape[2]))
        same(r.received(), true_weights(*rows).sum(2))


def test_two_generations_in_one_block_stay_apart():
    model = Cached()
    with watch(model) as seen:
        for seed in (0, 1):
            model.key = model.value = None
            for step in generation(length=60, seed=seed)[1]:
                model(*step)
    reads = seen.steps("")
    assert len(reads) == 2 * 58
    for seed, half in enumerate((reads[:58], reads[58:])):
        (query, key, value), _ = generation(length=60, seed=seed)
        for i, r in enumerate(half):
            start, end = (0, 3) if i == 0 else (2 + i, 3 + i)
            same(r.weights[:, :], true_weights(query[:, :, start:end], key[:, :, :end], value[:, :, :end]))


@pytest.mark.parametrize("keys", [8, 20, 64, 100])
@pytest.mark.parametrize("what", ["keys", "values", "both"])
def test_a_memory_that_changes_in_one_slot_is_not_taken_for_a_growing_cache(keys, what):
    """The reads of a memory that is written between them: every step keeps what it read, whichever slot changed."""

    class Remember(nn.Module):
        def forward(self, query, key, value):
            return read(query, key, value)

    g = torch.Generator().manual_seed(0)
    model, steps = Remember(), []
    key, value = (torch.randn(1, HEADS, keys, WIDTH, generator=g) for _ in range(2))
    for slot in range(0, keys, max(keys // 8, 1)):
        steps.append((torch.randn(1, HEADS, 1, WIDTH, generator=g), key, value))
        key, value = key.clone(), value.clone()
        if what != "values":
            key[:, :, (slot + 1) % keys] += 3
        if what != "keys":
            value[:, :, (slot + 1) % keys] += 3
    with watch(model) as seen:
        for step in steps:
            model(*step)
    for r, (query, key, value) in zip(seen.steps(""), steps, strict=True):
        assert torch.equal(r.value, value)
        assert torch.equal(r.pairing.key, key)
        same(r.weights[:, :], true_weights(query, key, value, mask=None))


def test_a_cross_attention_over_the_same_source_keeps_it_once():
    model, memory = Decoder(), x(60, seed=1)
    with torch.no_grad(), watch(model) as seen:
        model(x(), memory, steps=4)
    reads = seen.steps("layers.0.cross")
    assert len({r.pairing.key.untyped_storage().data_ptr() for r in reads}) == 1
    for r in reads:
        same(r.weights[:, :].sum(-1), torch.ones(1, HEADS, 5))


def test_what_was_heard_is_what_was_returned():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend, self.got = Attend(), None

        def forward(self, x):
            self.got = read(*(self.attend.split(x) for _ in range(3)), mask=causal)
            return self.got.mixed

    model = Holder()
    with watch(model) as seen:
        output = model(x())
    assert isinstance(seen[""], Reading)
    assert seen[""] is model.got
    assert torch.equal(seen[""].mixed, output)


def test_watching_changes_no_output():
    model, memory = Decoder(), x(60, seed=1)
    for length in (5, 100):
        bare = model(x(length), memory)
        with watch(model):
            assert torch.equal(model(x(length), memory), bare)


# ----------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("length", [6, 90])
def test_the_mass_that_was_seen_is_a_loss(length):
    """Short keys keep their weights, long ones give them again: both are differentiable, and equal the definition."""
    model = Attend()
    region = (torch.arange(length) < 3).float()[:, None]
    with watch(model) as seen:
        model(x(length))
    seen[""].mass(region).mean().backward()
    ours = model.query.weight.grad.clone()
    model.zero_grad()
    query, key = model.split(model.query(x(length))), model.split(x(length))
    (true_weights(query, key, key) @ region).mean().backward()
    assert ours.abs().sum() > 0
    same(ours, model.query.weight.grad, 1e-6)


def test_a_loss_on_every_step_reaches_every_layer():
    model, memory = Decoder(), x(60, seed=1)
    with watch(model) as seen:
        model(x(), memory, steps=2)
    region = (torch.arange(60) < 3).float()[:, None]
    sum(-seen[f"layers.1.cross@{i}"].mass(region).log().mean() for i in range(2)).backward()
    for layer, part in ((0, "own"), (0, "cross"), (1, "own"), (1, "cross")):
        assert getattr(model.layers[layer], part).query.weight.grad.abs().sum() > 0


def test_following_the_loss_moves_the_mass():
    torch.manual_seed(0)
    model, data, region = Attend(), x(60), torch.zeros(60, 1)
    region[50:] = 1
    query, memory = x(4, seed=2), data
    optimiser = torch.optim.SGD(model.parameters(), 1.0)
    history = []
    for _ in range(12):
        with watch(model) as seen:
            model(query, memory)
        mass = seen[""].mass(region)
        history.append(mass.mean().item())
        optimiser.zero_grad()
        (-mass.log().mean()).backward()
        optimiser.step()
    assert history[-1] > 1.5 * history[0]
