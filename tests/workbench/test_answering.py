"""Answers from a memory: what stands before the model, what it read, how the memory's weights divide it, and what is
not in the memory. Logic over tiny random models; the real ones at the end."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from recuerdo.bridge.run import load, prompt_of
from recuerdo.cli.app import app
from recuerdo.errors import InputError, ModelError
from recuerdo.read import Address, bend, read
from recuerdo.workbench.answering import (
    BRIEF,
    EPISODES,
    LEAD,
    Before,
    Follow,
    Until,
    answer,
    answer_from,
    shares_of_words,
    sure_of,
)
from recuerdo.workbench.remembering import Memory

TOWN = "The harvest festival is held in September. Ada leads it.\n\nThe library closes at six. Bob has the key."
MORE = "\n\nThe baker sells bread. It is good.\n\nA cat sleeps in the library."
KEY = "Who has the key?"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """An encoder and a language model of two layers, random weights, over the same words: their folders."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models")
    texts = [TOWN, MORE, "Who ? Carl Question : Answer", BRIEF.replace(",", " ,"), LEAD.replace(chr(34), " " + chr(34))]
    words = sorted(set(" ".join(texts).replace(".", " . ").replace("?", " ? ").split()))
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(names)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(names), max_position_embeddings=64, **sizes)).save_pretrained(folder / "words")
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        folder / "words"
    )
    inner.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    for name, length in (("says", 512), ("short", 68)):
        torch.manual_seed(1)
        config = LlamaConfig(vocab_size=len(names), max_position_embeddings=length, **sizes)
        LlamaForCausalLM(config).save_pretrained(folder / name)
        PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
            folder / name
        )
    return folder


@pytest.fixture
def memory(tmp_path, models):
    with Memory(tmp_path / "notes.db", encoder=str(models / "words")) as made:
        made.remember(TOWN + MORE)
        yield made


def test_the_model_gets_what_every_hop_found(memory, models):
    asked = memory.ask(KEY, hops=2)
    first, second = (hop[0].record.id for hop in asked.hops)
    assert first != second
    assert [one.record.id for one in asked.episodes[:2]] == [first, second]
    assert len({one.record.id for one in asked.episodes}) == len(asked.episodes)
    each = [one for hop in asked.hops for one in hop]
    assert all(one.weight == max(x.weight for x in each if x.record.id == one.record.id) for one in asked.episodes)
    said = answer_from(memory, asked, model=str(models / "says"), least=0.0)
    assert {first, second} <= {one.id for one in said.told}


# --------------------------------------------------------------------------------------------------- what is read


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**31), st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(sum))
def test_episodes_are_read_as_the_memory_weighs_them(rows, seed, weights):
    """The last row against the definition: one softmax over all keys, then one inside each episode."""
    draw = torch.Generator().manual_seed(seed)
    n = 12
    q, k, v = (torch.randn(1, 2, size, 4, generator=draw, dtype=torch.float64) for size in (rows, n, n))
    of = torch.tensor([-1, 0, 0, 0, -1, 1, 1, -1, 2, 2, 2, -1])
    reading = read(q, k, v)
    rule = Follow([of == i for i in range(3)], weights)
    bent = bend(reading, rule(Address("x", 0), reading))
    plain = reading.weights[:, :]
    total = sum(weights)
    want = plain.clone()
    inside = plain[..., -1, :][..., of >= 0].sum(-1)
    for i, weight in enumerate(weights):
        part = plain[..., -1, of == i]
        want[..., -1, of == i] = part / part.sum(-1, keepdim=True) * (inside * (weight / total))[..., None]
    torch.testing.assert_close(bent.weights[:, :], want, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(bent.mixed, want @ v, atol=1e-9, rtol=1e-6)


def test_an_answer_that_follows_reads_by_the_weights_in_every_layer_and_head(memory, models):
    loaded = load(str(models / "says"))
    asked = memory.ask(KEY)
    before = Before.of(loaded, KEY, asked.hops[-1][:EPISODES])
    assert [before.text[a:b] for a, b in before.spans] == [one.record.text for one in before.episodes]
    weights = np.array([one.weight for one in before.episodes])
    heard, keys = before.heard(True), before.keys()
    assert heard.text[slice(*heard.document)] == before.text
    for steps in heard.own.values():
        for step in steps:
            row = step.weights[step.shape[2] - 1 :, :][0, :, 0]
            parts = torch.stack([row[:, : len(some)][:, some].sum(-1) for some in keys], 1).numpy()
            np.testing.assert_allclose(
                parts / parts.sum(1, keepdims=True), np.tile(weights / weights.sum(), (4, 1)), atol=1e-5
            )
    alone = before.heard(False)
    assert before.heard(False).answer_ids == alone.answer_ids
    assert loaded.model.config._attn_implementation_internal != "recuerdo"


def test_shares_of_what_was_read(memory, models):
    told = answer(memory, KEY, model=str(models / "says"), least=0.0)
    assert told.known
    assert len(told.told) == EPISODES
    assert told.look is not None
    assert sum(one.read for one in told.told) in (0, pytest.approx(1, abs=1e-6))
    raw = told.look.evidence.view("raw").map.row(0)
    assert sum(one.raw for one in told.told) == pytest.approx(float(raw.sum()), abs=1e-6)
    assert [one.id for one in told.told] == [one.record.id for one in told.asked.hops[-1][:EPISODES]]
    data = json.loads(json.dumps(told.as_json()))
    assert data["answer"]["text"] == told.answer
    assert data["answer"]["agrees"] is (data["answer"]["cited"] == told.told[0].id)
    assert data["hops"][0][0]["id"] == told.told[0].id
    for one in told.told:
        assert one.sentence in memory.store.get([one.id])[0].text


def test_a_hand_moves_what_an_answer_reads_that_follows(memory, models):
    loaded = load(str(models / "says"))
    before = answer(memory, KEY, model=loaded, least=0.0)
    last = before.told[-1].id
    memory.pin([last])
    after = answer(memory, KEY, model=loaded, least=0.0)
    share = [{one.id: one.raw for one in told.told}[last] for told in (before, after)]
    assert share[1] > 2 * share[0]
    memory.mute([last])
    assert last not in [one.id for one in answer(memory, KEY, model=loaded, least=0.0).told]


def test_a_model_with_little_room_reads_fewer_episodes(memory, models):
    assert len(Before.of(load(str(models / "short")), KEY, memory.ask(KEY).hops[-1][:EPISODES]).episodes) < EPISODES


# ------------------------------------------------------------------------------------------------------ not in memory


def test_what_is_not_in_the_memory_is_not_invented(memory):
    told = answer(memory, KEY, model="no-such-model", least=2.1)
    assert not told.known
    assert told.as_json()["answer"]["text"] is None
    memory.forget(memory.store.ids())
    assert answer(memory, KEY, model="no-such-model").sure == 0


def test_the_shares_of_words():
    def share(question, text):
        return shares_of_words(question, [text, question]) == [pytest.approx(text_share), 1.0]

    for question, text, text_share in (
        ("Who has the keys?", "Bob has one key.", 1),
        ("When do libraries close?", "The library closes.", 1),
        ("Which dog chased a cat?", "A cat sleeps.", 1 / 3),
        ("Who is it?", "It is Bob.", 2 / 3),
    ):
        assert share(question, text), question
    assert shares_of_words("?!", ["Bob"]) == [0]


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=40), st.lists(st.text(max_size=40), max_size=3))
def test_shares_of_words_of_any_text(question, texts):
    found = shares_of_words(question, texts)
    assert len(found) == len(texts)
    assert all(0 <= share <= 1 for share in found)


def test_a_pinned_row_does_not_hide_what_is_known(memory):
    sure = sure_of(memory, memory.ask(KEY))
    assert sure > 1
    memory.pin([0])
    assert memory.ask(KEY).hops[0][0].record.id == 0
    assert sure_of(memory, memory.ask(KEY)) == pytest.approx(sure)


def test_nothing_stands_before_a_model_without_an_episode(models):
    with pytest.raises(InputError) as error:
        Before.of(load(str(models / "says")), KEY, [])
    assert "there is no episode to answer from" in str(error.value)


def test_an_encoder_does_not_answer(memory, models):
    with pytest.raises(ModelError) as error:
        answer(memory, KEY, model=str(models / "words"), least=0.0)
    assert "words does not answer: take a language model, such as smollm2" in str(error.value)


# ------------------------------------------------------------------------------------------------------------- prompts


def test_an_answer_can_be_begun(models):
    loaded = load(str(models / "says"))
    text, place, asked, special = prompt_of(loaded, TOWN, KEY, "It is")
    assert text == f"{TOWN}\n\nQuestion: {KEY}\nAnswer: It is"
    assert (text[slice(*place)], text[slice(*asked)], special) == (TOWN, KEY, True)
    loaded.tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    text, place, asked, special = prompt_of(loaded, TOWN, KEY, "It is")
    assert text == f"<user>{TOWN}\n\n{KEY}<assistant>It is"
    assert (text[slice(*place)], text[slice(*asked)], special) == (TOWN, KEY, False)


def test_a_model_stops_at_a_mark(models):
    loaded = load(str(models / "says"))
    until, scores = Until(loaded, ("key",)), torch.zeros(1, len(loaded.tokenizer))
    ids = loaded.tokenizer("the key", return_tensors="pt")["input_ids"]
    assert until(ids, scores) is scores  # what stood before counts for nothing
    more = torch.cat([ids, ids[:, :1]], 1)
    assert until(more, scores) is scores
    assert int(until(torch.cat([more, ids[:, 1:]], 1), scores).argmax()) == loaded.model.generation_config.eos_token_id


# --------------------------------------------------------------------------------------------------------------- door


def test_the_door(tmp_path, monkeypatch, models):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECUERDO_MEMORY", raising=False)

    def run(*words, stdin=None):
        done = CliRunner().invoke(app, list(map(str, words)), input=stdin)
        assert done.exit_code == 0, done.output
        return done.output

    run("remember", "-", "--encoder", models / "words", stdin=TOWN)
    model = ("--model", models / "says", "--least", "0")
    told = run("ask", KEY, "--answer", *model)
    assert "of 2 rows were looked at" in told
    assert "the answer read" in told
    data = json.loads(run("ask", KEY, "--answer", *model, "--json"))
    assert data["answer"]["followed"]
    assert not json.loads(run("ask", KEY, "--answer", "--plain", *model, "--json"))["answer"]["followed"]
    assert len(data["answer"]["episodes"]) == 2
    told = run("ask", KEY, "--answer", "--model", models / "says", "--least", "2.5")
    assert told.startswith("not in memory")
    failed = CliRunner().invoke(app, ["ask", KEY, "--plain"])
    assert "--follow, --plain and --least are about an answer: add --answer" in str(failed.exception)


@pytest.mark.models
def test_a_small_language_model_answers_from_the_memory(tmp_path):
    with Memory(tmp_path / "notes.db") as memory:
        memory.remember(
            "The harvest festival is held in September. Ada leads it.\n\nThe library closes at six. Bob has the key."
        )
        told = answer(memory, "Who has the key of the library?")
        assert told.answer == "Bob"
        assert told.cited is not None
        assert told.cited.sentence == "Bob has the key."
        assert told.agrees
        assert not answer(memory, "What did the doctor prescribe for the horse?").known
