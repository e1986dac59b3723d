"""Teaching: losses that are their definitions, a tiny model that learns to look, and a model that is saved and read again."""

import errno
import json
import sys

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recuerdo.bridge import load, watch
from recuerdo.bridge.adapt import save, training
from recuerdo.errors import InputError, MarkError, ModelError
from recuerdo.read import Odds, Share, bend, read
from recuerdo.steer import Box, Feedback, boost, damp, mute, share
from recuerdo.workbench import cases, teaching
from recuerdo.workbench.cases import Aim, Known, Numbers, aim_loss, case_of, figures
from recuerdo.workbench.teaching import Lesson, teach

PEOPLE = ("ada", "bob", "eve", "joe")
FEEDBACK = [
    Feedback(
        marks=(boost(f"{name} is {colour}", 20.0),),
        text=f"{name} was red. {name} is {colour}.",
        question=f"{name}?",
        answer=colour,
    )
    for name, colour in zip(PEOPLE, ("blue", "gold", "grey", "pink"), strict=True)
]
QUICK = {"steps": 12, "rank": 4, "lr": 0.02}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A language model of two layers over bytes."""
    path = tmp_path_factory.mktemp("tiny") / "tiny"
    names = ["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>").save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(names), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=200, bos_token_id=0, eos_token_id=0, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def tiny(folder):
    return load(folder)


def weights(loaded):
    return {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# -------------------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize(
    "of", [lambda keys: Odds(keys, 6.0), lambda keys: Odds(keys, 0.1), lambda keys: Share(keys, 0.7)]
)
def test_the_aim_is_the_share_of_the_bent_read(of):
    """The loss is the KL of two parts, number by number, in the chosen rows; and 0, without slope, where it is met."""
    draw = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 6, 8, generator=draw).unbind(0)
    query.requires_grad_()
    keys = torch.tensor([0, 1, 1, 0, 0, 0], dtype=torch.bool)
    plain = read(query, key, value)
    wanted = bend(read(query.detach(), key, value), of(keys)).bent.after[..., 0]
    active = (torch.arange(6) >= 3).expand(1, 2, 6)
    mass = plain.weights[:, :][..., 1:3].sum(-1)
    parts = wanted * (wanted / mass).log() + (1 - wanted) * ((1 - wanted) / (1 - mass)).log()
    loss = aim_loss(plain, Aim(keys, wanted, active))
    assert torch.allclose(loss, parts[:, :, 3:].mean(), atol=1e-6)
    assert loss > 0.05
    (slope,) = torch.autograd.grad(loss, query, retain_graph=True)
    assert slope[:, :, 3:].abs().sum() > 0
    assert not slope[:, :, :3].any()
    met = aim_loss(plain, Aim(keys, mass.detach(), active))
    (slope,) = torch.autograd.grad(met, query)
    assert met.abs() < 1e-6
    assert slope.abs().max() < 1e-6


def test_a_mute_aims_at_nothing():
    draw = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 6, 8, generator=draw).unbind(0)
    keys = torch.tensor([0, 1, 1, 0, 0, 0], dtype=torch.bool)
    plain = read(query, key, value)
    rest = plain.weights[:, :][..., [0, 3, 4, 5]].sum(-1)
    loss = aim_loss(plain, Aim(keys, torch.zeros(1, 2, 6), torch.ones(1, 2, 6, dtype=torch.bool)))
    assert torch.allclose(loss, -rest.log().mean(), atol=1e-6)


def test_what_was_known_is_the_divergence_of_next_words(tiny, monkeypatch):
    """With all words remembered it is KL; with a few, these and one for all others."""
    ids = tiny.tokenizer("ada was red")["input_ids"]
    with torch.no_grad():
        own = tiny.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    other = (own + torch.randn(own.shape, generator=torch.Generator().manual_seed(0))).log_softmax(-1)
    monkeypatch.setattr(cases, "KEPT", 10**6)
    known = Known.of(tiny, ids)
    assert torch.allclose(known.nats(other), (own.exp() * (own - other)).sum(-1).mean(), rtol=1e-3)
    assert abs(known.far(tiny)) < 1e-5
    monkeypatch.setattr(cases, "KEPT", 5)
    top = own.topk(5).indices
    few = [
        torch.cat([p, (1 - p.sum(-1, keepdim=True))], -1)
        for p in (own.gather(-1, top).exp(), other.gather(-1, top).exp())
    ]
    want = (few[0] * (few[0] / few[1]).log()).sum(-1).mean()
    assert torch.allclose(Known.of(tiny, ids).nats(other), want, rtol=1e-3)


def test_a_case_aims_at_what_steering_gives(tiny):
    case = case_of(tiny, FEEDBACK[0], Lesson())
    text = "".join(tiny.tokenizer.decode([i]) for i in case.ids)
    assert text == "ada was red. ada is blue.\n\nQuestion: ada?\nAnswer:"
    assert "".join(c for c, marked in zip(text, case.towards.tolist(), strict=True) if marked) == "adaisblue"
    assert tiny.tokenizer.decode(case.answer) == " blue"
    assert text[case.later] == "\n"  # the blank behind the text, before the question
    assert list(case.aims) == ["model.layers.0.self_attn", "model.layers.1.self_attn"]
    (aim,) = case.aims["model.layers.0.self_attn"]
    with torch.no_grad(), watch(tiny.model) as seen:
        tiny.model(case.given)
    mass = seen["model.layers.0.self_attn"].log_mass(aim.keys).exp()
    odds = aim.share / (1 - aim.share) / (mass / (1 - mass))
    assert torch.allclose(
        odds[:, :, case.later :], torch.tensor(20.0), rtol=1e-3
    )  # the first layer reads the same words
    assert not aim.active[:, :, : case.later].any()
    assert aim.active[:, :, case.later :].all()
    assert case.asked["later_mass"] > figures(tiny, case)["later_mass"]


def test_scopes_and_layers_narrow_what_is_taught(tiny):
    entry = Feedback(
        marks=(boost("ada is", 4, heads=[(1, 0)]), damp("red", 0.5)), text=FEEDBACK[0].text, question="ada?"
    )
    case = case_of(tiny, entry, Lesson())
    assert [len(aims) for aims in case.aims.values()] == [1, 2]
    boosted = next(aim for aim in case.aims["model.layers.1.self_attn"] if int(aim.keys.sum()) == len("adais"))
    assert boosted.active[0, 0, case.later :].all()
    assert not boosted.active[0, 1].any()
    assert bool(case.away[8])
    assert list(case_of(tiny, entry, Lesson(layers=(0,))).aims) == ["model.layers.0.self_attn"]
    with pytest.raises(MarkError, match=f"feedback {FEEDBACK[0].id}: its marks bend no read that is to be taught"):
        case_of(tiny, FEEDBACK[0], Lesson(layers=()))


def test_a_text_without_a_question_is_taught_behind_its_marks(tiny):
    marked = Feedback(marks=(boost("was", 4),), text="ada was red.")
    case = case_of(tiny, marked, Lesson())
    assert (case.later, case.answer) == (5, [])
    spoken = Feedback(marks=(boost("was", 4),), text="ada was", answer="red")
    case = case_of(tiny, spoken, Lesson())
    assert case.later == len(case.ids) - 1
    assert tiny.tokenizer.decode(case.answer) == " red"


# ------------------------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_taught_model_looks_and_answers_without_steering(tiny, tmp_path, method):
    before = weights(tiny)
    lesson = Lesson(method, **(QUICK if method == "lora" else {"steps": 12, "lr": 0.01}))
    taught = teach(tiny, FEEDBACK, lesson=lesson, out=tmp_path / "taught")
    assert same(weights(tiny), before)  # what was handed over stays as it is
    rose, asked = (some.later_mass - taught.before.later_mass for some in (taught.after, taught.asked))
    assert rose > 0.25 * asked > 0.1
    assert taught.after.log_probability > taught.before.log_probability + 0.5
    assert taught.steps[-1].parts["mass"] < taught.steps[0].parts["mass"]
    assert taught.after.damage > 0
    assert (taught.before.damage, taught.held_before) == (pytest.approx(0, abs=1e-5), None)
    # What lies in the folder is a model like any other, and the one that was measured.
    names = {file.name for file in (tmp_path / "taught").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "teaching.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl")) or "adapter" in name]
    again = load(tmp_path / "taught")
    assert weights(again).keys() == before.keys()
    assert all(torch.equal(x, taught.model.model.state_dict()[name]) for name, x in again.model.state_dict().items())
    seen = Numbers.of([figures(again, case_of(tiny, entry, lesson)) for entry in FEEDBACK])
    assert seen.later_mass == pytest.approx(taught.after.later_mass, abs=1e-5)
    assert seen.right == taught.after.right
    card = json.loads((tmp_path / "taught/teaching.json").read_text())
    assert card == json.loads(json.dumps(taught.as_data()))
    assert card["feedback"] == [entry.id for entry in FEEDBACK]
    assert card["lesson"]["method"] == method
    assert card["losses"][0]["step"] == 1


def test_the_same_seed_teaches_the_same(tiny):
    one, two, other = (teach(tiny, FEEDBACK[:2], lesson=Lesson(**{**QUICK, "steps": 2}, seed=s)) for s in (0, 0, 1))
    assert one.as_data() == two.as_data()
    assert same(weights(one.model), weights(two.model))
    assert not same(weights(one.model), weights(other.model))


def test_some_feedback_is_held_out(tiny):
    taught = teach(tiny, FEEDBACK, lesson=Lesson(**{**QUICK, "steps": 2}, check=0.25))
    assert len(taught.held_ids) == 1
    assert set(taught.ids) | set(taught.held_ids) == {entry.id for entry in FEEDBACK}
    assert not set(taught.ids) & set(taught.held_ids)
    assert (taught.before.texts, taught.held_before.texts, taught.held_after.texts) == (3, 1, 1)
    assert taught.held_asked.later_mass > taught.held_before.later_mass


def test_damp_and_mute_teach_to_look_away(tiny):
    marks = (mute("ada was red"),)
    entry = Feedback(marks=marks, text=FEEDBACK[0].text, question="ada?")
    taught = teach(tiny, [entry], lesson=Lesson(**QUICK))
    assert taught.asked.away_mass == pytest.approx(0, abs=1e-6)
    assert taught.after.away_mass < 0.5 * taught.before.away_mass
    assert taught.before.log_probability is taught.before.answer_mass is taught.before.later_mass is None


def test_feedback_with_an_answer_only_is_taught_too(tiny):
    entry = Feedback(marks=(), text="ada was red.", question="ada?", answer="blue")
    taught = teach(tiny, [entry], lesson=Lesson(**QUICK))
    assert taught.after.log_probability > taught.before.log_probability + 0.5
    assert "mass" not in taught.steps[0].parts


def test_the_answer_of_the_steered_model_is_learned_only_when_asked(tiny):
    entry = Feedback(marks=FEEDBACK[0].marks, text=FEEDBACK[0].text, question="ada?")
    quick = {**QUICK, "steps": 1}
    assert "answer" not in teach(tiny, [entry], lesson=Lesson(**quick)).steps[0].parts
    assert "answer" in teach(tiny, [entry], lesson=Lesson(**quick, own_answers=True)).steps[0].parts


def test_the_weights_of_the_losses_turn_them_off(tiny):
    for name in ("mass", "answer", "keep"):
        lesson = Lesson(**{**QUICK, "steps": 1}, **{f"{name}_weight": 0.0})
        assert set(teach(tiny, FEEDBACK[:1], lesson=lesson).steps[0].parts) == {"mass", "answer", "keep"} - {name}


def test_progress_is_told(tiny):
    told = []
    teach(tiny, FEEDBACK[:2], lesson=Lesson(**{**QUICK, "steps": 2}), progress=lambda *what: told.append(what))
    assert {what for what, _, _ in told} == {"hearing", "measuring before", "teaching", "measuring after"}
    assert ("teaching", 2, 2) in told


# --------------------------------------------------------------------------------------------------------- left half way


def test_a_lesson_that_is_left_leaves_the_model_as_it_was(tiny, tmp_path, monkeypatch):
    """Ctrl-C in the middle: no folder, no adapter, the same weights and addresses."""
    before, frozen = weights(tiny), [p.requires_grad for p in tiny.model.parameters()]

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), training(tiny.model, "lora", reads=["model.layers.0.self_attn"]) as learned:
        with torch.no_grad():
            for parameter in learned:
                parameter.add_(1.0)
        raise KeyboardInterrupt
    assert same(weights(tiny), before)
    assert [p.requires_grad for p in tiny.model.parameters()] == frozen
    monkeypatch.setattr(teaching, "fit", interrupt)
    with pytest.raises(KeyboardInterrupt):
        teach(tiny, FEEDBACK, lesson=Lesson(**QUICK), out=tmp_path / "taught")
    assert list(tmp_path.iterdir()) == []


def test_adapters_are_in_the_reads_that_are_named_only(tiny):
    reads = ["model.layers.1.self_attn"]
    with training(tiny.model, "lora", reads=reads, rank=3) as learned:
        names = [name for name, p in tiny.model.named_parameters() if p.requires_grad]
        assert len(names) == len(learned) == 8
        assert all(name.startswith("model.layers.1.self_attn.") and "lora" in name for name in names)
    assert not hasattr(tiny.model, "peft_config")


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FULL, "is full, and nothing was saved: make room, or name a folder on another disk"),
        (
            PermissionError(errno.EACCES, "Permission denied"),
            "cannot be written (Permission denied): name another folder",
        ),
    ],
)
def test_a_disk_that_fails_leaves_nothing_behind(tiny, tmp_path, monkeypatch, error, words):
    def fails(folder, **_):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(tiny.model, "save_pretrained", fails)
    with pytest.raises(ModelError) as caught:
        save(tiny, tmp_path / "taught")
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_words_of_the_writer_of_weights_are_understood(tiny, tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def fails(folder, **_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(tiny.model, "save_pretrained", fails)
    with pytest.raises(ModelError, match="is full, and nothing was saved"):
        save(tiny, tmp_path / "taught")


# -------------------------------------------------------------------------------------------------------------- refused

ENTRY = FEEDBACK[0]
REFUSED = {
    "no feedback": (lambda: teach("smollm2", []), InputError, "no feedback to teach: keep some with `recuerdo steer --keep`"),
    "unknown method": (
        lambda: teach("smollm2", [ENTRY], lesson=Lesson("lorra")), InputError, "there is no method 'lorra': choose lora or full"
    ),
    "no steps": (lambda: Lesson(steps=0), InputError, "at least 1 step"),
    "no rank": (lambda: Lesson(rank=0), InputError, "the rank is 0 and the batch 2: both are 1 or more"),
    "no weights": (lambda: Lesson(mass_weight=0, answer_weight=0), InputError, "mass or answer counts: raise one of them"),
    "all held out": (lambda: Lesson(check=1), InputError, "held out is 1: give 0 or more, and less than 1"),
    "one held out": (
        lambda: teach("smollm2", [ENTRY], lesson=Lesson(check=0.5)), InputError, "one feedback cannot be held out and taught"
    ),
    "marks of another text": (
        lambda: teach("smollm2", [Feedback(marks=(boost("zoe", 4),), text=ENTRY.text)]), MarkError, "'zoe' is not in the text"
    ),
    "marks on pictures": (
        lambda: teach("smollm2", [Feedback(marks=(mute(Box(0, 0, 0.5, 1)),), text="x")]),
        MarkError, "is not on words: choose others to teach (--only)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_taught_is_said_before_a_model_is_loaded(case):
    call, kind, words = REFUSED[case]
    with pytest.raises(kind) as error:
        call()
    assert words in str(error.value)


def test_marks_that_do_not_fit_name_their_feedback():
    entry = Feedback(marks=(share("zoe", 0.3),), text=ENTRY.text)
    with pytest.raises(MarkError, match=f"feedback {entry.id}: "):
        teach("smollm2", [ENTRY, entry])


def test_layers_that_are_not_there(tiny):
    with pytest.raises(InputError, match="there is no layer 2: tiny has layers 0 to 1"):
        teach(tiny, [ENTRY], lesson=Lesson(layers=(2,)))
    taught = teach(tiny, [ENTRY], lesson=Lesson(layers=(-1,), steps=1, lr=0.01))
    changed = [name for name, x in weights(tiny).items() if not torch.equal(x, taught.model.model.state_dict()[name])]
    assert taught.lesson.layers == (1,)
    assert changed
    assert all("layers.1.self_attn" in name for name in changed)


def test_models_that_do_not_answer(tiny):
    from dataclasses import replace

    with pytest.raises(ModelError, match="tiny does not answer: teach a language model, or train this one with"):
        teach(replace(tiny, kind="encoder"), [ENTRY])


def test_an_empty_answer(tiny):
    entry = Feedback(marks=(), text=ENTRY.text, question="x?", answer=" ")
    with pytest.raises(InputError, match=f"feedback {entry.id}: the wanted answer is empty"):
        teach(tiny, [entry])


def test_lora_without_peft_says_what_to_install(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"LoRA needs the package peft: pip install 'recuerdo\[teach\]', or choose"):
        teach(tiny, [ENTRY])
    assert teach(tiny, [ENTRY], lesson=Lesson("full", steps=1)).steps


def test_attention_without_linear_layers():
    model = BertModel(BertConfig(hidden_size=16, num_attention_heads=2, num_hidden_layers=1, intermediate_size=16))
    with (
        pytest.raises(
            ModelError, match="BertModel holds no linear layer that LoRA could adapt: choose the method full"
        ),
        training(model, "lora", reads=["nowhere"]),
    ):
        pass


def test_folders_that_cannot_be_used(tiny, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/note").write_text("x")
    for name, words in (
        ("file", "is a file: name a folder that is not there yet"),
        ("kept", "is not empty, and nothing is overwritten: name another one"),
        ("no/where", "to make where in: make it first"),
    ):
        with pytest.raises(InputError, match=words):
            teach("smollm2", [ENTRY], out=tmp_path / name)
    (tmp_path / "empty").mkdir()
    assert save(tiny, tmp_path / "empty").is_dir()
    assert load(tmp_path / "empty").kind == "causal"
