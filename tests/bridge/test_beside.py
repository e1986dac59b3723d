"""The unsteered model beside the steered one: the same logits as a pass of its own, and a gate that really gates."""

import sys
from pathlib import Path

import pytest
import torch

from recuerdo.bridge import attach
from recuerdo.bridge.beside import Beside
from recuerdo.bridge.reads import reads_of
from recuerdo.errors import InputError
from recuerdo.read import bending, watch
from recuerdo.steer import share
from recuerdo.steer.rule import Marked, Rule

sys.path.insert(0, str(Path(__file__).parent))
from families import CAUSAL, build, tokens

MARKED = torch.tensor([0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0], dtype=torch.bool)


def rule(model) -> Rule:
    return Rule([Marked(share((0, 1), 0.8), MARKED)], reads_of(model))


def generated(model, beside, *, steered=True, **options):
    ids = tokens(1)
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "logits_processor": [beside]} | options
    with torch.no_grad(), attach(model):
        if not steered:
            return model.generate(ids, **options)[0].tolist()
        with bending(model, rule(model)):
            return model.generate(ids, **options)[0].tolist()


@torch.no_grad()
@pytest.mark.parametrize("name", CAUSAL)
def test_what_the_model_would_say_by_itself(name):
    """With a cache of its own, step by step: the logits of one whole unsteered pass over the same tokens."""
    model = build(name)
    beside = Beside(model)
    out = generated(model, beside)
    plain = model(torch.tensor([out[:-1]])).logits[0, 11:].float()
    assert torch.allclose(torch.stack(beside.plain), plain, atol=2e-5, rtol=1e-4)
    with attach(model), bending(model, rule(model)):
        bent = model(torch.tensor([out[:-1]])).logits[0, 11:].float()
    assert torch.allclose(torch.stack(beside.steered), bent, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(plain, bent, atol=1e-2)


def test_without_a_gate_nothing_changes():
    model = build("llama")
    alone = generated(model, lambda ids, scores: scores)
    assert generated(model, Beside(model)) == alone


@pytest.mark.parametrize("gate", [0.3, 0.7, 1.0])
def test_the_gate_lets_only_plausible_tokens_through(gate):
    model = build("llama")
    free, gated = Beside(model), Beside(model, gate=gate)
    generated(model, free)
    out = generated(model, gated)[12:]
    plain = torch.stack(gated.plain).double().softmax(-1)
    assert all(plain[i, token] >= gate * plain[i].max() * (1 - 1e-6) for i, token in enumerate(out))
    allowed = plain >= gate * plain.amax(-1, keepdim=True)
    best = torch.stack(gated.steered).masked_fill(~allowed, -torch.inf).argmax(-1)
    assert out == best.tolist()  # of these, the steered model's own favourite
    if gate == 1.0:
        assert out == plain.argmax(-1).tolist()
        assert out != torch.stack(free.steered).argmax(-1).tolist()


def test_nobody_hears_the_model_beside():
    """Who watches the steered model gets its reads alone, and the rule counts its steps alone."""
    model = build("llama")
    with torch.no_grad(), watch(model) as alone:
        generated(model, lambda ids, scores: scores)
    with torch.no_grad(), watch(model) as seen:
        generated(model, Beside(model))
    assert list(seen) == list(alone)
    assert all(seen[address].shape == alone[address].shape for address in seen)


@pytest.mark.parametrize("gate", [0.0, -0.1, 1.5, float("nan")])
def test_a_gate_is_a_part(gate):
    with pytest.raises(InputError) as caught:
        Beside(None, gate=gate)
    assert (
        str(caught.value) == f"the gate is a part of the favourite's probability, above 0 and at most 1, not {gate:g}"
    )


def test_one_sequence_at_a_time():
    model = build("llama")
    with pytest.raises(InputError, match="^guard rails go along with one sequence at a time, not with 3$"):
        generated(model, Beside(model), num_beams=3)
