"""Associative memories: how much they hold, what they find, and that their energy never rises."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from recuerdo.errors import ShapeError
from recuerdo.memory.hopfield import BinaryHopfield, ModernHopfield
from recuerdo.read import Share, bending, mute, watch


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def signs(n, d, seed=0):
    return torch.randint(0, 2, (n, d), generator=draw(seed)).float() * 2 - 1


def on_a_sphere(n, d, seed=0):
    return F.normalize(torch.randn(n, d, generator=draw(seed)), dim=1) * d**0.5


def close(found, wanted):
    return float((F.cosine_similarity(found, wanted) > 0.99).float().mean())


# --------------------------------------------------------------------------------------------------------- binary, 1982


def held(load, width=2000, probes=150):
    """Which share of the stored patterns is still there after the updates."""
    memory, patterns = BinaryHopfield(width), signs(int(load * width), width)
    memory.store(patterns)
    start = patterns[:probes]
    return float(((memory.recall(start, updates=40) * start).mean(1) > 0.95).float().mean())


def test_the_binary_memory_falls_off_a_cliff_between_loads_of_twelve_and_fifteen_percent():
    assert held(0.12) >= 0.99
    assert held(0.145) < 0.80


def test_couplings_are_the_sum_of_outer_products_without_the_diagonal():
    memory, patterns = BinaryHopfield(9), signs(3, 9)
    memory.store(patterns[:1])
    memory.store(patterns[1:])
    for i in range(9):
        for j in range(9):
            wanted = 0.0 if i == j else sum(float(p[i] * p[j]) for p in patterns) / 9
            assert memory.couplings[i, j] == pytest.approx(wanted, abs=1e-6)


def test_a_spoilt_pattern_is_put_right():
    memory, patterns = BinaryHopfield(200), signs(8, 200)
    memory.store(patterns)
    spoilt = patterns.clone()
    spoilt[:, :40] *= -1  # a fifth of the units
    assert torch.equal(memory.recall(spoilt), patterns)
    assert torch.equal(memory.settle(spoilt), patterns)


def test_a_unit_that_feels_nothing_stays_as_it_is():
    memory = BinaryHopfield(6)  # nothing stored: all fields are 0
    state = signs(2, 6)
    assert torch.equal(memory.recall(state), state)
    assert torch.equal(memory.settle(state), state)


@given(seed=st.integers(0, 10**6), width=st.integers(2, 24), count=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_the_energy_of_the_binary_memory_never_rises(seed, width, count):
    memory = BinaryHopfield(width)
    memory.store(signs(count, width, seed))
    state = signs(3, width, seed + 1)
    for _ in range(4):
        after = memory.settle(state, sweeps=1)
        assert bool((memory.energy(after) <= memory.energy(state) + 1e-4).all())
        state = after


def test_the_energy_is_half_the_sum_over_pairs():
    memory, state = BinaryHopfield(5), signs(2, 5, 1)
    memory.store(signs(2, 5))
    pairs = sum(memory.couplings[i, j] * state[:, i] * state[:, j] for i in range(5) for j in range(5))
    torch.testing.assert_close(memory.energy(state), -0.5 * pairs)


# ---------------------------------------------------------------------------------------------------- continuous, 2020


@pytest.mark.parametrize(
    ("width", "count", "wanted"),
    [(64, 1_000, 1.00), (64, 10_000, 0.99), (32, 100, 0.92), (32, 1_000, 0.72), (32, 10_000, 0.38)],
)
def test_one_update_finds_half_erased_patterns(width, count, wanted):
    """Within the chance of 1,000 probes of the figures that an independent script measured (shared/notes/memory.md)."""
    memory, patterns = ModernHopfield(width, beta=1.0), on_a_sphere(count, width, seed=width + count)
    memory.store(patterns)
    probes = patterns[:1000]
    half = probes * (torch.arange(width) < width // 2)
    found = close(memory.recall(half), probes)
    assert found == pytest.approx(wanted, abs=0.07 if wanted < 0.95 else 0.012)


def test_an_update_is_the_formula():
    memory, patterns, state = ModernHopfield(8, beta=0.7), on_a_sphere(20, 8), on_a_sphere(3, 8, 1)
    memory.store(patterns[:5])
    memory.store(patterns[5:])
    weights = torch.stack([(0.7 * (patterns @ s)).exp() for s in state])
    weights = weights / weights.sum(-1, keepdim=True)
    torch.testing.assert_close(memory.recall(state), weights @ patterns, rtol=1e-5, atol=1e-5)


def test_it_finds_one_pattern_or_the_mean_of_a_few_or_of_all_by_how_sharply_it_looks():
    centres = on_a_sphere(3, 64)
    patterns = (centres[:, None] + 0.3 * torch.randn(3, 10, 64, generator=draw(1))).flatten(0, 1)
    patterns = F.normalize(patterns, dim=1) * 8  # none draws the others by its length
    probe = patterns[:1]
    for beta, wanted in ((8.0, patterns[0]), (0.1, patterns[:10].mean(0)), (1e-4, patterns.mean(0))):
        memory = ModernHopfield(64, beta=beta)
        memory.store(patterns)
        found = memory.recall(probe, updates=5)[0]
        assert F.cosine_similarity(found, wanted, dim=0) > 0.99, beta
        assert (found - wanted).norm() < 0.15 * wanted.norm() + 0.05, beta


@given(seed=st.integers(0, 10**6), width=st.integers(1, 16), count=st.integers(1, 20), beta=st.floats(0.01, 20))
@settings(max_examples=60, deadline=None)
def test_the_energy_of_the_continuous_memory_never_rises_and_is_not_below_zero(seed, width, count, beta):
    memory = ModernHopfield(width, beta=beta)
    memory.store(torch.randn(count, width, generator=draw(seed)))
    state = 2 * torch.randn(3, width, generator=draw(seed + 1))
    for _ in range(4):
        after = memory.recall(state)
        slack = 1e-4 * (1 + memory.energy(state).abs())
        assert bool((memory.energy(after) <= memory.energy(state) + slack).all())
        assert bool((memory.energy(after) >= -slack).all())
        state = after


def test_which_pattern_a_recall_looks_at_is_seen_and_bent():
    memory, patterns = ModernHopfield(16, beta=1.0), on_a_sphere(4, 16)
    memory.store(patterns)
    plain = memory.recall(patterns[:1], updates=2)
    with watch(memory) as seen:
        assert torch.equal(memory.recall(patterns[:1], updates=2), plain)
    assert list(seen) == ["@0", "@1"]
    assert seen["@0"].weights[0, :][0, 0, 0].argmax() == 0
    other = Share(torch.tensor([False, True, False, False]), 1.0)
    with bending(memory, lambda address, reading: [other]):
        torch.testing.assert_close(memory.recall(patterns[:1]), patterns[1:2])
    with bending(memory, lambda address, reading: [mute(torch.tensor([True, False, False, False]))]):
        assert close(memory.recall(patterns[:1]), patterns[:1]) == 0


def test_an_empty_memory_recalls_nothing():
    memory = ModernHopfield(4)
    assert torch.equal(memory.recall(torch.ones(2, 4)), torch.zeros(2, 4))
    assert memory.energy(torch.ones(2, 4)).tolist() == [2.0, 2.0]


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("memory", [BinaryHopfield(4), ModernHopfield(4)])
def test_what_does_not_fit_is_said(memory):
    with pytest.raises(ShapeError, match=r"patterns of this memory are \[n, 4\], not \(2, 5\)"):
        memory.store(torch.ones(2, 5))
    for call in (memory.recall, memory.energy):
        with pytest.raises(ShapeError, match=r"states of this memory are \[n, 4\], not \(4,\)"):
            call(torch.ones(4))


def test_a_binary_memory_takes_signs_only():
    with pytest.raises(ShapeError, match="-1 and 1: use ModernHopfield"):
        BinaryHopfield(2).store(torch.tensor([[0.5, 1.0]]))
