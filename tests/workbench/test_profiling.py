"""Profiles are learned: the loss falls, what was held out is scored, and the model stays as it is."""

import math
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recuerdo.bridge import attach
from recuerdo.bridge.reads import reads_of
from recuerdo.bridge.run import Loaded
from recuerdo.errors import InputError, MarkError, ModelError
from recuerdo.read import Odds, bending
from recuerdo.steer import Feedback, Span, boost, mute
from recuerdo.workbench import profiling
from recuerdo.workbench.profiling import learn_profile

NAMES = ("ada", "bob", "eve", "joe", "kim", "lou")
COLOURS = ("red", "blue", "gold", "grey", "pink", "teal")
WORDS = ["</s>", *NAMES, *COLOURS, "was", "is", ".", "?", "Question:", "Answer:"]
FEEDBACK = [
    Feedback(
        marks=(boost(f"is {COLOURS[(i + 1) % 6]}", 4.0),),
        text=f"{name} was {COLOURS[i]} . {name} is {COLOURS[(i + 1) % 6]} .",
        question=f"{name} ?",
        answer=COLOURS[(i + 1) % 6],
    )
    for i, name in enumerate(NAMES)
]
QUICK = {"steps": 6, "rate": 0.5}


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="</s>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="</s>", unk_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.4, eos_token_id=0, pad_token_id=0, max_position_embeddings=64,
        tie_word_embeddings=True,
    )  # fmt: skip
    return Loaded("tiny", "causal", LlamaForCausalLM(config).eval(), tokenizer, 64)


def support(loaded, feedback, strengths: dict[tuple[int, int], float], queries: str) -> float:
    """The mean log-probability a token of the wanted answers, each prompt alone: the definition."""
    found = []
    for one in feedback:
        document = f"{one.text}\n\nQuestion: {one.question}\nAnswer:" if one.question else one.text
        tokens = loaded.tokenizer(document, return_offsets_mapping=True)
        ids, offsets = tokens["input_ids"], tokens["offset_mapping"]
        said = loaded.tokenizer(one.answer)["input_ids"]
        at = one.text.index(one.marks[0].where.quote)
        length = len(one.marks[0].where.quote)
        marked = torch.tensor([at <= a < at + length for a, _ in offsets] + [False] * len(said))
        first = next((i for i, (a, _) in enumerate(offsets) if a >= len(one.text)), len(ids) - 1)
        rows = torch.arange(len(marked)) >= (first if queries == "after" else 0)

        def rule(address, reading, marked=marked, rows=rows):
            factors = [strengths.get((reads_of(loaded.model).layer(address.path), h), 1.0) for h in range(4)]
            return [Odds(marked, torch.tensor(factors), rows=rows)]

        with torch.no_grad(), attach(loaded.model), bending(loaded.model, rule):
            chances = loaded.model(torch.tensor([ids + said])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
        found.append(chances.gather(-1, torch.tensor(said)[:, None]).mean())
    return float(torch.stack(found).mean())


@pytest.mark.parametrize("queries", ["after", "all"])
def test_a_profile_makes_wanted_answers_likelier(loaded, queries):
    profile = learn_profile(loaded, FEEDBACK, "mine", queries=queries, steps=20, rate=0.5)
    assert (profile.name, profile.model, profile.action, profile.queries) == ("mine", "tiny", "boost", queries)
    assert profile.examples == 4  # every fifth is held out: two of six
    assert list(profile.scores) == [
        "learned from, unsteered", "learned from, steered", "held out, unsteered", "held out, steered",
    ]  # fmt: skip
    assert profile.scores["learned from, steered"] > profile.scores["learned from, unsteered"]
    assert all(0 <= score <= 1 for score in profile.scores.values())
    assert len(profile.strengths) == len(profile.heads) <= 8
    assert all(math.exp(profiling.LEAST) - 1e-3 <= x <= math.exp(profiling.MOST) * 1.001 for x in profile.strengths)
    mean = sum(map(math.log, profile.strengths)) / len(profile.strengths)
    assert profile.amount == pytest.approx(math.exp(mean), rel=1e-3)
    assert profile.strengths_at(profile.amount) == pytest.approx(
        dict(zip(profile.heads, profile.strengths, strict=True))
    )
    steered = support(loaded, FEEDBACK, profile.strengths_at(profile.amount), queries)
    assert steered > support(loaded, FEEDBACK, {}, queries)


@pytest.mark.parametrize("question", [True, False])
def test_scores_are_their_definition(loaded, question):
    """Padding, batches and heads that were left out do not count; also where no question was asked."""
    feedback = FEEDBACK[:3] if question else [replace(one, question=None) for one in FEEDBACK[:3]]
    profile = learn_profile(loaded, feedback, "mine", **QUICK)
    assert list(profile.scores) == ["learned from, unsteered", "learned from, steered"]  # too few to hold one out
    factors = profile.strengths_at(profile.amount)
    for what, strengths in (("unsteered", {}), ("steered", factors)):
        each = [math.exp(support(loaded, [one], strengths, "after")) for one in feedback]
        # Weak heads are left out of the profile, not of what was scored.
        assert profile.scores[f"learned from, {what}"] == pytest.approx(sum(each) / 3, abs=2e-3)


def test_the_loss_falls_and_progress_is_told(loaded):
    few = learn_profile(loaded, FEEDBACK[:4], "few", steps=1)
    told = []
    many = learn_profile(loaded, FEEDBACK[:4], "many", steps=25, rate=0.5, progress=lambda *now: told.append(now))
    assert many.scores["learned from, steered"] > few.scores["learned from, steered"]
    assert many.scores["learned from, unsteered"] == few.scores["learned from, unsteered"]
    assert told == [("learning strengths", i + 1, 25) for i in range(25)]


def test_heads_that_do_not_help_are_left_out(loaded):
    profile = learn_profile(loaded, FEEDBACK, "mine", steps=30, rate=0.8)
    assert 0 < len(profile.heads) < 8


def test_the_same_seed_the_same_profile(loaded):
    one, two = (learn_profile(loaded, FEEDBACK, "mine", **QUICK, seed=3) for _ in range(2))
    assert replace(one, date="") == replace(two, date="")
    assert learn_profile(loaded, FEEDBACK, "mine", **QUICK, seed=4).scores != one.scores


@pytest.mark.parametrize("leave", ["well", "an exception"])
def test_the_model_stays_as_it_is(loaded, leave, monkeypatch):
    frozen = loaded.model.model.embed_tokens.weight
    frozen.requires_grad_(False)
    before = {name: (tensor.clone(), tensor.requires_grad) for name, tensor in loaded.model.named_parameters()}
    try:
        if leave == "well":
            learn_profile(loaded, FEEDBACK, "mine", steps=2)
        else:
            with pytest.raises(ZeroDivisionError):
                learn_profile(loaded, FEEDBACK, "mine", steps=3, progress=lambda what, done, total: 1 / (2 - done))
        for name, tensor in loaded.model.named_parameters():
            assert torch.equal(tensor, before[name][0])
            assert tensor.requires_grad == before[name][1], name
            assert tensor.grad is None
        assert not frozen.requires_grad
    finally:
        frozen.requires_grad_(True)


def test_feedback_without_answers_or_marks_is_left_out(loaded):
    more = [replace(FEEDBACK[4], answer=None), replace(FEEDBACK[5], marks=()), *FEEDBACK[:3]]
    assert learn_profile(loaded, more, "mine", **QUICK).examples == 3


def test_what_cannot_be_learned_from(loaded):
    for feedback in ([], FEEDBACK[:1], [replace(one, answer=None) for one in FEEDBACK]):
        with pytest.raises(InputError) as caught:
            learn_profile(loaded, feedback, "mine")
        assert str(caught.value) == (
            "a profile is learned from marks with wanted answers, two or more: keep some with --answer"
        )
    with pytest.raises(MarkError, match="^the name of a profile is 1 to 80 letters, digits, dots and dashes$"):
        learn_profile(loaded, FEEDBACK, "my facts", progress=lambda *now: pytest.fail("it was learned first"))
    with pytest.raises(MarkError, match="^a profile steers all queries, or those after the document, not 'some'$"):
        learn_profile(loaded, FEEDBACK, "mine", queries="some", progress=lambda *now: pytest.fail("it was learned"))
    encoder = Loaded("an encoder", "encoder", loaded.model, loaded.tokenizer, 64)
    with pytest.raises(ModelError, match="^an encoder does not answer: profiles and lessons are for language models$"):
        learn_profile(encoder, FEEDBACK, "mine")
    with pytest.raises(InputError, match="^too long for tiny: "):
        long = Feedback(marks=(mute(Span(0, 3)),), text="ada is red . " * 30, question="ada ?", answer="red")
        learn_profile(loaded, [long, long], "mine")


def test_marks_that_never_help_make_no_profile(loaded, monkeypatch):
    monkeypatch.setattr(profiling, "LEAST", 100.0)
    with pytest.raises(InputError) as caught:
        learn_profile(loaded, FEEDBACK[:3], "mine", steps=1)
    assert str(caught.value) == (
        "marking these words did not help any of these answers: look at the marks and the answers"
    )
