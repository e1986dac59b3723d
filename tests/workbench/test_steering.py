"""Steering a model by marks: batches, pictures, sound, memories; and one question asked twice, before and after."""

import copy
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import recuerdo
from recuerdo import ask_steered, steer
from recuerdo.bridge.run import Loaded
from recuerdo.errors import InputError, MarkError, ModelError
from recuerdo.explain.render import as_data
from recuerdo.read import read, watch
from recuerdo.steer import Box, Profile, Quote, Slots, Span, Time, boost, damp, mute, share
from recuerdo.steer.profiles import load_profile
from recuerdo.workbench.looking import look
from recuerdo.workbench.steering import dose_curve, steer_again

sys.path.insert(0, str(Path(__file__).parents[1] / "bridge"))
from families import build, inputs

WORDS = ["</s>", "the", "lamp", "is", "red", ".", "door", "green", "what", "?", "colour", "of", "a", "b"]
TEXTS = ["the lamp is red .", "the door is green . the lamp is red .", "a b"]
LETTERS = "The lamp is red. The door is green."
QUESTION = "What colour is the door?"


def words_tokenizer(side: str = "right") -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="</s>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", pad_token="</s>", unk_token="</s>", padding_side=side
    )


def letters_tokenizer() -> PreTrainedTokenizerFast:
    names = ["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="</s>")


def llama(vocabulary: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=vocabulary, **sizes, num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.3,
        eos_token_id=0, pad_token_id=0, bos_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    model.generation_config.eos_token_id = None  # so that it always says something
    return model


@pytest.fixture(scope="module")
def worded() -> Loaded:
    return Loaded("tiny", "causal", llama(len(WORDS)), words_tokenizer(), 256)


@pytest.fixture(scope="module")
def lettered() -> Loaded:
    tokenizer = letters_tokenizer()
    return Loaded("tiny", "causal", llama(len(tokenizer)), tokenizer, 256)


def shares(reading, marked) -> torch.Tensor:
    """What each row reads of the marked columns [b, k]: [b, h, q]."""
    return (reading.weights[:, :] * marked[:, None, None]).sum(-1)


# ------------------------------------------------------------------------------------------------------------- batches


MARKS = [[share("lamp", 0.4)], [share(Quote("the", occurrence=1), 0.4), mute("green")], []]


@torch.no_grad()
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("given", [False, True])
def test_each_text_of_a_batch_has_its_own_marks(worded, side, given):
    tokenizer = words_tokenizer(side)
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    model = replace(worded, tokenizer=tokenizer)
    words = [[TEXTS[i][a:b] for a, b in tokens.encodings[i].offsets] for i in range(3)]
    lamp, the, green = torch.zeros(3, 3, len(words[0]), dtype=torch.bool)
    lamp[0, words[0].index("lamp")] = True
    the[1, words[1].index("the")] = True
    green[1, words[1].index("green")] = True
    more = {"inputs": tokens} if given else {}
    with steer(model.model if given else model, MARKS, text=TEXTS, **more) as rule, watch(model.model) as seen:
        model.model(**tokens)
    assert rule.bent == [2, 2]  # two wishes in two layers: both shares are one
    real = tokens["attention_mask"].bool()
    for reading in seen.values():
        for marked, want in ((lamp, 0.4), (the, 0.4), (green, 0.0)):
            found = shares(reading, marked)
            for row in range(3):
                first = marked[row].nonzero()
                if len(first):
                    able = torch.arange(len(words[row])) > int(first[0])
                    able &= real[row]
                    assert (found[row][:, able] - want).abs().max() < 1e-5
        assert reading.bent is not None
    with recuerdo.watch(model.model) as plain:
        model.model(**tokens)
    for address in seen:  # the third text has no marks
        old, new = plain[address].weights[:, :][2], seen[address].weights[:, :][2]
        assert torch.allclose(old[:, real[2]], new[:, real[2]], atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_a_padded_batch_answers_as_each_text_alone(worded, beams):
    """generate() with cache, padding on the left, beams: marks stay on their tokens."""
    model = replace(worded, tokenizer=words_tokenizer("left"))
    tokens = model.tokenizer(TEXTS[:2], padding=True, return_tensors="pt")
    options = {"max_new_tokens": 6, "do_sample": False, "num_beams": beams}
    with steer(model, MARKS[:2], text=TEXTS[:2]):
        together = model.model.generate(**tokens, **options)[:, tokens["input_ids"].shape[1] :]
    for i in range(2):
        alone = model.tokenizer(TEXTS[i], return_tensors="pt")
        with steer(model, MARKS[i], text=TEXTS[i]) as rule:
            out = model.model.generate(**alone, **options)[0, alone["input_ids"].shape[1] :]
        assert out.tolist() == together[i].tolist()
        assert all(rule.bent)
        assert out.tolist() != model.model.generate(**alone, **options)[0, alone["input_ids"].shape[1] :].tolist()


@torch.no_grad()
@pytest.mark.parametrize(
    "marks",
    [mute("lamp"), [mute("lamp")], (mute("lamp"),), [[mute("lamp")]] * 2, [mute("lamp").to_data()], mute("lamp").to_data(),
     {"version": 1, "marks": [mute("lamp").to_data()]}, iter([mute("lamp")])],
)  # fmt: skip
def test_marks_for_every_text_or_for_each(worded, marks):
    tokens = worded.tokenizer(TEXTS[:2], padding=True, return_tensors="pt")
    with steer(worded, marks, text=TEXTS[:2]), watch(worded.model) as seen:
        worded.model(**tokens)
    marked = tokens["input_ids"] == WORDS.index("lamp")
    assert marked.any(1).all()
    for reading in seen.values():
        assert shares(reading, marked)[..., -1].abs().max() < 1e-7


@torch.no_grad()
def test_two_marks_for_two_texts_are_both_for_both(worded):
    marks = [mute("lamp"), mute("red")]
    tokens = worded.tokenizer(TEXTS[:2], padding=True, return_tensors="pt")
    found = []
    for given in (marks, [mark.to_data() for mark in marks], [marks, marks]):
        with steer(worded, given, text=TEXTS[:2]):
            found.append(worded.model(**tokens).logits)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@torch.no_grad()
def test_marks_count_in_the_document_of_a_prompt(worded):
    prompt = "what ? the lamp is red . a b"
    tokens = worded.tokenizer(prompt, return_tensors="pt")
    with steer(worded, mute(Span(4, 8, "lamp")), text=prompt, document=(7, 24)), watch(worded.model) as seen:
        worded.model(**tokens)
    for reading in seen.values():
        assert shares(reading, tokens["input_ids"] == WORDS.index("lamp"))[..., 4:].abs().max() < 1e-7


@torch.no_grad()
def test_a_profile_for_what_stands_behind_bends_only_that(worded):
    profile = Profile("mine", "tiny", ((0, 1), (1, 2)), "boost", 8.0, (64.0, 1.0), queries="after")
    prompt, tokens = TEXTS[1] + " what ?", worded.tokenizer(TEXTS[1] + " what ?", return_tensors="pt")
    with recuerdo.watch(worded.model) as plain:
        worded.model(**tokens)
    with (
        steer(worded, profile.mark(mute("door")), text=prompt, document=(0, len(TEXTS[1])), profile=profile) as rule,
        watch(worded.model) as seen,
    ):
        worded.model(**tokens)
    assert rule.bent == [2]
    old, new = plain["model.layers.0.self_attn"].weights[:, :], seen["model.layers.0.self_attn"].weights[:, :]
    changed = ((old - new).abs() > 1e-5).any(-1)[0]
    assert changed[1, -2:].all()
    changed[1, -2:] = False
    assert not changed.any()
    odds = [w[0, 1, -1, 1] / (1 - w[0, 1, -1, 1]) for w in (old, new)]
    assert float(odds[1] / odds[0]) == pytest.approx(64.0, rel=1e-3)


# ---------------------------------------------------------------------------------------------- pictures, sound, memory


@torch.no_grad()
@pytest.mark.parametrize("name", ["vit", "clip vision", "dinov2"])
@pytest.mark.parametrize("given", [True, False])
def test_a_box_is_its_patches(name, given):
    model, pixels = build(name), inputs(name)  # 4 x 4 patches behind a class token
    marked = torch.zeros(1, 17, dtype=torch.bool)
    marked[0, [1, 2, 5, 6]] = True
    more = {"inputs": pixels} if given else {}
    with steer(model, share(Box(0, 0, 0.5, 0.5), 0.3), **more) as rule, watch(model) as seen:
        model(**pixels)
    assert rule.bent == [2]
    for reading in seen.values():
        assert (shares(reading, marked) - 0.3).abs().max() < 1e-5


@torch.no_grad()
def test_a_picture_of_another_size(worded):
    model, pixels = build("dinov2"), torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    marked = torch.zeros(1, 33, dtype=torch.bool)
    marked[0, [1 + 8 * row + column for row in range(4) for column in range(4)]] = True  # 4 x 8 patches
    for given in ({"pixel_values": pixels}, pixels):
        with steer(model, mute(Box(0, 0, 0.5, 1)), inputs=given), watch(model) as seen:
            model(pixel_values=pixels)
        for reading in seen.values():
            assert shares(reading, marked).abs().max() < 1e-6


@torch.no_grad()
def test_a_time_is_its_frames_in_what_was_heard():
    model, given = build("whisper"), inputs("whisper")  # 20 frames of 1.5 s
    marked = torch.zeros(1, 20, dtype=torch.bool)
    marked[0, 2:4] = True
    with steer(model, share(Time(3, 6), 0.3)) as rule, watch(model) as seen:
        model(**given)
    assert rule.bent == [4]  # two layers of the encoder, two that read it
    for address, reading in seen.items():
        if "decoder" in address and "encoder_attn" not in address:
            assert reading.bent is None
        else:
            assert (shares(reading, marked) - 0.3).abs().max() < 1e-5
    with steer(model, mute(Time(3, 6), role="cross")) as rule:
        model.generate(given["input_features"], max_new_tokens=3)
    assert rule.bent == [6]


class Memory(nn.Module):
    """An own model: queries read eight slots."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.keys = nn.Parameter(torch.randn(1, 2, 8, 4, generator=draw))
        self.values = nn.Parameter(torch.randn(1, 2, 8, 4, generator=draw))

    def forward(self, query):
        return read(query, self.keys, self.values).mixed


def test_slots_of_an_own_model():
    model, query = Memory(), torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(1))
    marked = torch.zeros(1, 8, dtype=torch.bool)
    marked[0, [1, 6]] = True
    before = model(query)
    with steer(model, share(Slots((6, 1)), 0.25)) as rule, watch(model) as seen:
        after = model(query)
        after.sum().backward()
    assert rule.bent == [1]
    (reading,) = seen.values()
    assert (shares(reading, marked) - 0.25).abs().max() < 1e-6
    assert model.keys.grad.abs().sum() > 0
    assert not torch.allclose(before, after)
    assert torch.equal(model(query), before)


@torch.no_grad()
def test_words_of_the_source_of_a_pair():
    model = build("bart")
    tokens = words_tokenizer()(TEXTS[:2], padding=True, return_tensors="pt")
    marked = tokens["input_ids"] == WORDS.index("lamp")
    target = torch.tensor([[1, 2, 3]] * 2)
    with steer(model, share("lamp", 0.3), text=TEXTS[:2], inputs=tokens) as rule, watch(model) as seen:
        model(**tokens, decoder_input_ids=target)
    assert rule.bent == [4]
    for address, reading in seen.items():
        if "decoder" in address and "encoder_attn" not in address:
            assert reading.bent is None
        else:
            assert (shares(reading, marked)[:, :, 0] - 0.3).abs().max() < 1e-5


# -------------------------------------------------------------------------------------------------------------- errors


def refused(words, model, marks, error=MarkError, **options):
    with pytest.raises(error) as caught, steer(model, marks, **options):
        pass
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        (lambda: [mute("lamp"), boost("lamp is", 2)], "two marks lie on one another: mute 'lamp', and boost x2 'lamp is'"),
        (lambda: mute(Span(10, 99)), "the mark ends at character 99, and the text has 17: it was made on another text"),
        (lambda: mute(Span(4, 8, "door")), "characters 4 to 8 are 'lamp' here, not 'door': the mark was made on another"),
        (lambda: mute((-3, 4)), "the start is -3: it counts from 0"),
        (lambda: {"where": "lamp", "action": "boost", "amount": float("nan")}, "the amount of boost is nan: give a finite"),
        (lambda: share("lamp", -0.5), "a share is between 0 and 1, not -0.5"),
        (lambda: [mute("lamp")] * 10**6, "1,000,000 marks: at most 10,000 at once"),
        (lambda: (mute("lamp") for _ in range(10**6)), "too many marks: at most 10,000 at once"),
        (lambda: mute("door"), "'door' is not in the text"),
        (lambda: mute("lamp", layers=[2]), "there is no layer 2: this model has layers 0 to 1"),
        (lambda: mute("lamp", layers=[-3]), "there is no layer -3: this model has layers 0 to 1"),
        (lambda: mute("lamp", heads=[(0, 4)]), "there is no head 4: this model has heads 0 to 3"),
        (lambda: mute("lamp", heads=[(9, 0)]), "there is no layer 9: this model has layers 0 to 1"),
        (lambda: mute("lamp", head_set="nosuch"), "there is no profile 'nosuch'"),
        (lambda: "lamp", "marks are a list of marks, not str: make one, such as boost('words', 4)"),
        (lambda: [3], "mark 1 of 1: a mark is an object with where, action"),
        (lambda: mute(Box(0, 0, 1, 1)), "LlamaForCausalLM has no patches: a mark on a box is for models that look at pictures"),
        (lambda: mute(Time(0, 1)), "LlamaForCausalLM has no frames: a mark on a time is for models that listen"),
    ],
)  # fmt: skip
def test_hostile_marks(worded, marks, words):
    with pytest.raises(MarkError) as caught, steer(worded, marks(), text=TEXTS[0]):
        pass
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_marks_on_words_need_the_words(worded):
    mark = mute("lamp")
    refused("the mark mute 'lamp' is on words: pass text=, the text that the model reads", worded, mark)
    needed = "marks on words need inputs=, what a fast tokenizer made of the text (or a model from load)"
    refused(needed, worded.model, mark, text=TEXTS[0])
    slow = {"input_ids": torch.tensor([[1, 2, 3, 4, 5]])}
    refused(needed, worded.model, mark, text=TEXTS[0], inputs=slow)
    refused(needed, replace(worded, tokenizer=None), mark, text=TEXTS[0])
    both = worded.tokenizer(TEXTS[:2], padding=True)
    refused("inputs hold 2 texts, and text 1", worded.model, mark, text=TEXTS[0], inputs=both)
    refused("inputs were made of another text: pass text= as the tokenizer was given it", worded.model, mark,
            text=TEXTS[0], inputs=worded.tokenizer(TEXTS[1]))  # fmt: skip


def test_marks_of_a_batch_that_do_not_fit(worded):
    mark = mute("lamp")
    refused("there are lists of marks for 3 texts, and text= holds 2", worded, [[mark]] * 3, text=TEXTS[:2])
    refused("there are lists of marks for 1 texts, and text= holds 2", worded, [[mark]], text=TEXTS[:2])
    refused("text= is an empty list: pass the texts that the model reads", worded, [mark], text=[])
    refused("the mark mute slots 1 is not on words, and a batch of texts has nothing else to mark", worded,
            mute(Slots((1,))), text=TEXTS[:2])  # fmt: skip
    refused("'lamp' is not in the text", worded, mark, text=TEXTS)  # the third one has none


@torch.no_grad()
def test_the_block_is_the_undo_and_refused_marks_leave_nothing(worded):
    tokens = worded.tokenizer(TEXTS[0], return_tensors="pt")
    before = worded.model(**tokens).logits
    with steer(worded, boost("lamp", 20), text=TEXTS[0]):
        assert not torch.equal(worded.model(**tokens).logits, before)
    refused("there is no layer 9", worded, mute("lamp", layers=[9]), text=TEXTS[0])
    with pytest.raises(ZeroDivisionError), steer(worded, mute("lamp"), text=TEXTS[0]):
        worded.model(**tokens)
        raise ZeroDivisionError
    assert torch.equal(worded.model(**tokens).logits, before)


# ------------------------------------------------------------------------------------------- one question, asked twice


def test_before_and_after_of_a_tiny_model(lettered):
    marks = [share("The door is green", 0.2), mute("red")]
    asked = ask_steered(lettered, LETTERS, marks, question=QUESTION, generate=6)
    assert asked.marks == tuple(marks)
    assert asked.before.heard.answer == look(lettered, LETTERS, question=QUESTION, generate=6).heard.answer
    assert asked.bent == [12, 12]  # two layers, six steps
    seen = asked.after.evidence
    assert seen.before is asked.before.evidence
    assert seen.guard == asdict(asked.guard)
    assert [(m.label, m.action, [seen.text.words[a:b] for a, b in m.words]) for m in seen.marks] == [
        ("share 20 %", "share", [["The", "door", "is", "green"]]),
        ("mute", "mute", [["red"]]),
    ]
    moved = seen.moved.map.row(0)
    want = seen.view("raw").map.row(0) - asked.before.evidence.view("raw").map.row(0)
    assert abs(moved - want).max() < 1e-3
    assert moved[seen.text.words.index("red")] < 0
    data = json.loads(json.dumps(asked.as_data(), allow_nan=False))
    assert data["moved"][0]["share"] == max((m["share"] for m in data["moved"]), key=abs)
    assert data["marks"] == [m.to_data() for m in marks]
    assert data["after"] == asked.after.heard.answer
    assert json.loads(json.dumps(as_data(seen)))["before"]["answer"] is not None


@torch.no_grad()
def test_guard_rails_are_their_definitions(lettered):
    """KL, plausibility and mass, worked out anew from whole passes, steered and not, over what was said."""
    mark = boost("door is green", 50.0)
    asked = ask_steered(lettered, LETTERS, mark, question=QUESTION, generate=6)
    heard, model = asked.after.heard, lettered.model
    assert heard.ids == asked.before.heard.ids
    ids = torch.tensor([heard.ids + heard.answer_ids[:-1]])
    first = len(heard.ids) - 1
    plain = model(ids).logits[0, first:].double().log_softmax(-1)
    place = heard.document
    inputs = lettered.tokenizer(heard.text)
    with steer(model, mark, text=heard.text, inputs=inputs, document=place), watch(model) as seen:
        bent = model(ids).logits[0, first:].double().log_softmax(-1)
    assert bent.argmax(-1).tolist() == heard.answer_ids
    assert asked.guard.kl == pytest.approx(float((bent.exp() * (bent - plain)).sum(-1).mean()), rel=1e-4)
    own = plain.gather(-1, torch.tensor(heard.answer_ids)[:, None])[:, 0] >= plain.amax(-1) + torch.tensor(0.1).log()
    assert asked.guard.plausible == pytest.approx(float(own.double().mean()))
    marked = torch.zeros(1, ids.shape[1], dtype=torch.bool)
    start = place[0] + LETTERS.index("door is green")
    # Tokens are letters; a token that holds nothing to be seen (a blank) is never marked.
    marked[0, start : start + 13] = torch.tensor([not c.isspace() for c in "door is green"])
    mass = torch.stack([shares(reading, marked)[0, :, first:].mean() for reading in seen.values()]).mean()
    assert asked.guard.mass[1] == pytest.approx(float(mass), abs=1e-5)
    assert asked.guard.mass[1] > asked.guard.mass[0]


def test_the_gate_restricts_what_can_be_said(lettered):
    mark = share("door", 0.9)
    free = ask_steered(lettered, LETTERS, mark, question=QUESTION, generate=6)
    gated = ask_steered(lettered, LETTERS, mark, question=QUESTION, generate=6, gate=1.0)
    assert free.guard.plausible < 1
    assert gated.guard.plausible == 1
    ids = torch.tensor([gated.after.heard.ids + gated.after.heard.answer_ids[:-1]])
    with torch.no_grad():
        plain = lettered.model(ids).logits[0, len(gated.after.heard.ids) - 1 :]
    assert plain.argmax(-1).tolist() == gated.after.heard.answer_ids  # only the favourites are left
    assert gated.after.heard.answer == gated.before.heard.answer
    with pytest.raises(InputError, match="^the gate is a part of the favourite's probability, above 0"):
        ask_steered(lettered, LETTERS, mark, question=QUESTION, generate=2, gate=0)


def test_nothing_is_left_in_the_model(lettered):
    model = copy.deepcopy(lettered.model)
    ask_steered(lettered, LETTERS, mute("red"), question=QUESTION, generate=3)
    for (name, old), (_, new) in zip(model.named_parameters(), lettered.model.named_parameters(), strict=True):
        assert torch.equal(old, new), name
        assert new.requires_grad
    assert [len(m._forward_hooks) for m in lettered.model.modules()] == [len(m._forward_hooks) for m in model.modules()]
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(model(ids).logits, lettered.model(ids).logits)


def test_a_profile_after_the_document_leaves_its_rows_alone(lettered):
    """Asked and answered: what stands in the text itself is read as it was."""
    profile = Profile("mine", "tiny", ((0, 0), (1, 1)), "boost", 8.0, (30.0, 2.0), queries="after")
    asked = ask_steered(lettered, LETTERS, profile.mark(mute("door")), question=QUESTION, generate=3, profile=profile)
    end = asked.before.heard.document[1]
    for path, steps in asked.after.heard.own.items():
        old, new = asked.before.heard.own[path][0].weights[:, :], steps[0].weights[:, :]
        assert (old[:, :, :end] - new[:, :, :end]).abs().max() < 1e-5
        assert (old[:, :, end:] - new[:, :, end:]).abs().max() > 1e-2
    assert asked.guard.mass[1] > asked.guard.mass[0]


@pytest.mark.parametrize(("own", "bent"), [({}, [2]), ({"steps": (1, 2)}, [1]), ({"steps": (0, 1)}, [1])])
def test_a_profile_names_the_steps_where_a_mark_names_none(lettered, own, bent):
    profile = Profile("mine", "tiny", ((0, 0),), "boost", 8.0, (30.0,), steps=(0, 2))
    mark = profile.mark(mute("door", **own))
    asked = ask_steered(lettered, LETTERS, mark, question=QUESTION, generate=4, profile=profile)
    assert asked.bent == bent


STRIPS = "{% for m in messages %}<{{ m['content'] | trim }}>{% endfor %}"


@pytest.mark.parametrize("lead", ["", "  \n "])
def test_a_chat_template_that_strips_the_text(lettered, lead):
    """Marks count their characters in the text that was given, blanks and all."""
    tokenizer = letters_tokenizer()
    tokenizer.chat_template = STRIPS
    model, text = replace(lettered, tokenizer=tokenizer), lead + LETTERS + " "
    at = text.index("door")
    asked = ask_steered(model, text, [mute(Span(at, at + 4)), boost("red", 3)], question=QUESTION, generate=3)
    seen = asked.after.evidence
    assert [seen.text.words[a:b] for m in seen.marks for a, b in m.words] == [["door"], ["red"]]
    assert asked.after.heard.ids == asked.before.heard.ids
    assert asked.guard.mass[1] > 0
    rows = dose_curve(asked, [30.0], generate=3)
    assert rows[0]["mass"][0] == asked.guard.mass[0]


def test_a_mark_that_bends_no_read_is_told(lettered):
    asked = ask_steered(lettered, LETTERS, mute("red", steps=(50, None)), question=QUESTION, generate=3)
    assert asked.bent == [0]
    assert "the mark mute 'red' (steps 50 to the end) bent no read: look at its scope" in asked.guard.warnings
    assert asked.after.heard.answer == asked.before.heard.answer
    assert asked.guard.kl == pytest.approx(0, abs=1e-5)
    assert asked.after.evidence.marks[0].scope == "steps 50 to the end"


def test_a_text_that_is_continued(lettered):
    asked = ask_steered(lettered, LETTERS, damp("red", 0.25, author="Ada", reason="old"), generate=3)
    told = asked.after.evidence.marks[0]
    assert (told.label, told.author, told.reason) == ("damp ×0.25", "Ada", "old")
    assert asked.after.evidence.question is None
    assert asked.guard.mass[1] < asked.guard.mass[0]


def test_the_dose_curve(lettered):
    asked = ask_steered(lettered, LETTERS, [boost("door", 2.0), mute("red")], question=QUESTION, generate=4)
    told = []
    rows = dose_curve(asked, [1.001, 2.0, 8.0], generate=4, each=told.append)
    assert told == rows
    assert [row["amount"] for row in rows] == [1.001, 2.0, 8.0]
    assert rows[1]["answer"] == asked.after.heard.answer
    assert rows[1]["kl"] == pytest.approx(asked.guard.kl)
    assert rows[1]["mass"] == pytest.approx(asked.guard.mass)
    assert rows[0]["mass"][1] < rows[1]["mass"][1] < rows[2]["mass"][1]
    with pytest.raises(MarkError, match="^boost needs a factor above 1, not 0.5"):
        dose_curve(asked, [0.5], generate=2)
    muted = replace(asked, marks=(mute("red"),))
    with pytest.raises(InputError) as caught:
        dose_curve(muted, [2.0])
    assert str(caught.value) == "mute has no strength: a dose curve needs a mark that boosts, damps or shares"


def test_a_profile_turns_with_the_dose(lettered):
    profile = Profile("mine", "tiny", ((0, 0), (1, 1)), "boost", 8.0, (64.0, 1.0), queries="after")
    asked = ask_steered(lettered, LETTERS, profile.mark(mute("door")), question=QUESTION, generate=3, profile=profile)
    rows = dose_curve(asked, [1.5, 8.0, 64.0], generate=3, profile=profile)
    assert rows[1]["mass"] == pytest.approx(asked.guard.mass)
    assert rows[0]["mass"][1] < rows[1]["mass"][1] < rows[2]["mass"][1]


def test_a_model_that_so_steered_says_nothing(lettered, monkeypatch):
    before = look(lettered, LETTERS, question=QUESTION, generate=3)
    tokenizer = letters_tokenizer()
    monkeypatch.setattr(
        "recuerdo.workbench.steering._answer", lambda *a, **k: (replace(before.heard, answer=" "), 0, 0)
    )
    with pytest.raises(ModelError, match="^so steered, tiny says nothing: mark more gently, or fewer layers$"):
        steer_again(before, (mute("red"),), generate=3)
    assert tokenizer is not None


def test_what_cannot_be_asked(lettered):
    encoder = Loaded("an encoder", "encoder", lettered.model, lettered.tokenizer, None)
    with pytest.raises(ModelError) as caught:
        ask_steered(encoder, LETTERS, mute("red"))
    assert str(caught.value) == (
        "an encoder does not answer: take a language model, or steer a call of yours with `steer`"
    )
    for marks, words in (
        ([], "there are no marks: mark some words of the text"),
        (mute("blue"), "'blue' is not in the text"),
        (mute(Quote("is", occurrence=3)), "'is' stands 2 times in the text: there is no occurrence 3"),
        ([mute("red"), mute("is red")], "two marks lie on one another"),
        (mute("red", layers=[2]), "there is no layer 2: this model has layers 0 to 1"),
        (mute(Span(0, 400)), "the mark ends at character 400, and the text has 35"),
    ):
        with pytest.raises(MarkError) as caught:
            ask_steered(lettered, LETTERS, marks, question=QUESTION, generate=2)
        assert words in str(caught.value)


def test_bad_marks_are_refused_before_the_model_runs(lettered, monkeypatch):
    monkeypatch.setattr("recuerdo.workbench.steering.look", lambda *a, **k: pytest.fail("the model ran"))
    for marks in (mute("blue"), [], [mute("red"), mute("red")], mute(Span(30, 36))):
        with pytest.raises(MarkError):
            ask_steered(lettered, LETTERS, marks, question=QUESTION)


# ---------------------------------------------------------------------------------------------------------- a real model


@pytest.fixture(scope="session")
def smollm2() -> Loaded:
    try:
        return recuerdo.load("smollm2")
    except recuerdo.errors.FetchError as error:
        pytest.skip(f"smollm2 is not here and cannot be fetched: {error}")


@pytest.mark.models
def test_a_real_model_gives_exactly_the_share(smollm2):
    """Share 0.2 is 0.2000 in each answer; the guard agrees with a whole pass; afterwards it is the same model."""
    mark = share("The door is green", 0.2)
    asked = ask_steered(smollm2, LETTERS, mark, question=QUESTION, generate=4)
    assert f"{asked.guard.mass[1]:.4f}" == "0.2000"
    assert 0 < asked.guard.mass[0] < 0.1
    assert asked.bent == [120]
    heard = asked.after.heard
    ids = torch.tensor([heard.ids + heard.answer_ids[:-1]])
    tokens = smollm2.tokenizer(heard.text, add_special_tokens=False)
    assert tokens["input_ids"] == heard.ids
    options = {"use_cache": False, "logits_to_keep": len(heard.answer_ids)}
    with torch.no_grad():
        plain = smollm2.model(ids, **options).logits[0].log_softmax(-1)
        with steer(smollm2.model, mark, text=heard.text, inputs=tokens, document=heard.document):
            bent = smollm2.model(ids, **options).logits[0].log_softmax(-1)
    assert bent.argmax(-1).tolist() == heard.answer_ids
    assert asked.guard.kl == pytest.approx(float((bent.exp() * (bent - plain)).sum(-1).mean()), abs=1e-3)
    again = look(smollm2, LETTERS, question=QUESTION, generate=4).heard
    assert again.answer_ids == asked.before.heard.answer_ids
    for path, steps in asked.before.heard.own.items():
        assert all(torch.equal(a.weights[:, :], b.weights[:, :]) for a, b in zip(steps, again.own[path], strict=True))


@pytest.mark.models
def test_the_shipped_profile_turns_the_answer(smollm2):
    """What the demo shows."""
    marked = "Previously, the lighthouse of Vell was painted red."
    text = f"{marked} Now the lighthouse of Vell is painted green."
    profile = load_profile("smollm2-facts")
    asked = ask_steered(
        smollm2, text, profile.mark(boost(marked, 4.0)), question="What colour is the lighthouse of Vell?",
        generate=8, profile=profile,
    )  # fmt: skip
    assert "red" not in asked.before.heard.answer
    assert "red" in asked.after.heard.answer
    assert asked.guard.warnings == []
    assert asked.guard.mass[1] > 2 * asked.guard.mass[0]
