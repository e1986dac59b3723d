"""Guard rails: numbers that equal their definitions, and warnings where steering was overdone."""

import math

import pytest
import torch

from recuerdo.errors import ShapeError
from recuerdo.metrics import ngram_entropy
from recuerdo.steer.guard import FAR, Guard, guard, kl_of_steps, plausible, repeats

MASS = (0.1, 0.3)


def logits(steps: int = 6, words: int = 11, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(steps, words, generator=torch.Generator().manual_seed(seed))


def test_kl_is_its_definition():
    p, q = logits().double().softmax(-1), logits(seed=1).double().softmax(-1)
    want = (p * (p / q).log()).sum(-1)
    assert torch.allclose(kl_of_steps(logits(), logits(seed=1)).double(), want, atol=1e-5)
    assert not torch.allclose(kl_of_steps(logits(seed=1), logits()).double(), want, atol=1e-2)  # it has a direction


def test_kl_of_a_model_from_itself_is_nothing():
    assert not kl_of_steps(logits(), logits() + 5.0).abs().gt(1e-5).any()


def test_kl_leaves_out_what_the_steered_model_cannot_say():
    """A logits processor forbids tokens: their probability is 0, and 0 log 0 is 0."""
    steered = logits()
    steered[:, ::2] = -torch.inf
    p, q = steered.double().softmax(-1), logits(seed=1).double().softmax(-1)
    want = torch.where(p > 0, p * (p.clamp_min(1e-300) / q).log(), 0.0).sum(-1)
    found = kl_of_steps(steered, logits(seed=1))
    assert found.isfinite().all()
    assert torch.allclose(found.double(), want, atol=1e-5)


def test_kl_says_which_shapes_do_not_fit():
    with pytest.raises(ShapeError) as caught:
        kl_of_steps(logits(3), logits(4))
    assert str(caught.value) == "both logits are [t, v], not (3, 11) and (4, 11)"
    with pytest.raises(ShapeError, match=r"^both logits are \[t, v\], not \(11,\) and \(11,\)$"):
        kl_of_steps(logits()[0], logits()[0])


@pytest.mark.parametrize("part", [0.1, 0.5, 1.0])
def test_plausible_tokens_have_a_part_of_the_favourites_probability(part):
    plain = logits(40)
    chances = plain.double().softmax(-1)
    tokens = [i % 11 for i in range(40)]
    want = [float(row[i]) >= part * float(row.max()) * (1 - 1e-6) for row, i in zip(chances, tokens, strict=True)]
    assert plausible(tokens, plain, part).tolist() == want
    assert True in want or part == 1.0
    assert plausible(plain.argmax(-1).tolist(), plain, part).all()


def test_plausible_needs_the_logits_of_each_step():
    with pytest.raises(ShapeError, match="^there are 7 tokens and logits of 6 steps only$"):
        plausible([0] * 7, logits())


def test_a_gentle_answer_has_numbers_and_no_warnings():
    plain = logits()
    steered = plain + 0.1 * logits(seed=2)
    tokens, before = plain.argmax(-1).tolist(), [1, 2, 3, 4, 5]
    rails = guard(steered, plain, tokens, before, mass=MASS)
    assert rails.kl == pytest.approx(float(kl_of_steps(steered, plain).mean()))
    assert rails == Guard(rails.kl, 1.0, (ngram_entropy(before), ngram_entropy(tokens)), MASS, [])


def test_steps_after_the_answer_do_not_count():
    """An end token was generated and is no word of the answer: its logits are there, too."""
    plain, steered = logits(), logits(seed=1)
    two = guard(steered, plain, [1, 2], [1, 2], mass=MASS)
    assert two.kl == pytest.approx(float(kl_of_steps(steered[:2], plain[:2]).mean()))


def test_far_from_itself():
    plain = torch.zeros(2, 1000)
    steered = plain.clone()
    steered[:, 7] = 50.0
    rails = guard(steered, plain, [7, 7], [1, 2], mass=MASS)
    assert rails.kl == pytest.approx(math.log(1000), rel=1e-4)
    assert rails.kl > FAR
    assert rails.warnings == ["over-steered? the steered model is 6.9 nats from itself at each step: mark more gently"]


def test_tokens_that_are_not_its_own():
    plain = torch.zeros(4, 5)
    plain[:, 0] = 10.0
    rails = guard(plain, plain, [1, 2, 3, 0], [0, 0, 0, 0], mass=MASS)
    assert rails.plausible == 0.25
    assert rails.warnings == ["over-steered? only 25 % of the answer's tokens are plausible without the marks"]


def test_an_answer_that_goes_round_in_circles():
    tokens = [1, 2, 3] * 8
    assert repeats(tokens)
    assert not repeats(tokens[:19])  # too short to tell
    assert not repeats(list(range(40)))
    plain = torch.zeros(24, 5)
    rails = guard(plain, plain, tokens, list(range(24)), mass=MASS)
    assert rails.warnings == ["over-steered? the answer repeats itself: mark more gently, or fewer heads"]
    assert rails.fluency[1] < rails.fluency[0]


def test_nearly_all_is_the_marked_part():
    rails = guard(logits(), logits(), [1], [1], mass=(0.1, 0.95))
    assert "95 % of what the answer reads is the marked part: nearly all else is unread" in rails.warnings


def test_a_model_that_says_nothing():
    rails = guard(logits(0), logits(0), [], [1, 2, 3], mass=MASS)
    assert rails == Guard(0.0, 1.0, (ngram_entropy([1, 2, 3]), 0.0), MASS, ["the steered model said nothing"])
