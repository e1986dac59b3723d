"""How far a memory is believed: Bayes' rule over experts, against loops; and what it promises of any text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recuerdo.bridge.belief import BEGIN, EDGES, GIVEN_BACK, SHIFTS, SLOW, Belief


def drawn(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-masses of recalls, and what the model and the memory gave to the tokens that came."""
    draw = np.random.default_rng(seed)
    memory = np.where(draw.random(n) < 0.5, -np.inf, -draw.exponential(1.0, n))
    return draw.normal(0, 3, n), -draw.exponential(3.0, n), memory


def expert(shift: float, mass: float, model: float, memory: float) -> float:
    """The chance that one expert gave to the token that came."""
    loud = np.exp(shift + mass)
    return float((np.exp(model) + loud * np.exp(memory)) / (1 + loud))


def test_learning_is_bayes_rule_slowed_down_with_a_little_given_back():
    mass, model, memory = drawn(0, 60)
    belief = Belief()
    for part in np.split(np.arange(60), [1, 20, 50]):  # in any parts
        belief.learn(mass[part], model[part], memory[part])
    want = np.tile(BEGIN, (len(EDGES) + 1, 1))
    for one in zip(mass, model, memory, strict=True):
        row = sum(one[0] > edge for edge in EDGES)
        after = np.array([w * expert(shift, *one) ** SLOW for w, shift in zip(want[row], SHIFTS, strict=True)])
        want[row] = (1 - GIVEN_BACK) * after / after.sum() + GIVEN_BACK * BEGIN
    assert np.abs(belief.weights - want).max() <= 1e-12
    assert np.abs(Belief.of_text(belief.as_text()).weights - want).max() <= 1e-5


@given(st.integers(0, 10_000))
def test_the_shift_is_the_mean_of_the_experts(seed):
    mass, model, memory = drawn(seed, 12)
    belief = Belief()
    belief.learn(*drawn(seed + 1, 40))
    shift = belief.shift(mass)
    for i, one in enumerate(zip(mass, model, memory, strict=True)):
        row = sum(one[0] > edge for edge in EDGES)
        mean = sum(w * expert(b, *one) for w, b in zip(belief.weights[row], SHIFTS, strict=True))
        assert expert(shift[i], *one) == pytest.approx(mean, rel=1e-9)


def test_a_memory_that_is_never_right_falls_silent_and_one_that_always_is_speaks_up():
    n = 1000
    mass, model = np.full(n, 1.5), np.full(n, -5.0)
    wrong, right = Belief(), Belief()
    wrong.learn(mass, model, np.full(n, -np.inf))
    right.learn(mass, model, np.zeros(n))
    assert wrong.shift(np.array([1.5]))[0] < -3
    assert right.shift(np.array([1.5]))[0] > 0.8
    assert (
        wrong.shift(np.array([5.0]))[0] == Belief().shift(np.array([5.0]))[0]
    )  # of louder ones it has learned nothing


@pytest.mark.parametrize("mass", [-np.inf, -700.0, 700.0])
def test_silent_and_deafening_recalls_are_numbers(mass):
    belief = Belief()
    belief.learn(np.array([mass]), np.array([-3.0]), np.array([-np.inf]))
    assert np.isfinite(belief.weights).all()
    assert np.isfinite(belief.shift(np.array([mass]))).all()


def test_few_loud_mistakes_do_not_silence_it():
    belief, loud = Belief(), np.full(4, 3.5)
    belief.learn(loud, np.full(4, -1.0), np.full(4, -np.inf))
    assert 1 / (1 + np.exp(-(3.5 + belief.shift(loud[:1])[0]))) > 0.5
