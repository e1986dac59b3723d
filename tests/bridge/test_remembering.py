"""A memory inside a language model: the merge is the definition, the model is left as it was, and what is forgotten is
never said again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers

from recuerdo.bridge import remember_in
from recuerdo.bridge.attention import watch
from recuerdo.bridge.belief import EDGES, SHIFTS, Belief
from recuerdo.bridge.reads import reads_of
from recuerdo.bridge.recalling import Head
from recuerdo.bridge.run import Loaded
from recuerdo.bridge.states import KeyRule
from recuerdo.errors import InputError, ModelError, NothingHeard
from recuerdo.read import bending
from recuerdo.steer.marks import Mark
from recuerdo.steer.rule import Marked, Rule
from recuerdo.store.embedded import Embedded
from recuerdo.store.record import Rows, Where

sys.path.insert(0, str(Path(__file__).parent))
from families import build, tokens

FAMILIES = ("llama", "qwen2", "mistral", "gpt-neox", "gpt2", "gpt-j", "gemma2", "mistral, window")
SHARP = {"rule": KeyRule(0), "heads": (Head(0.0, 60.0, 0.6),)}
FLAT = (Head(0.5, 1.0, 0.0),)
TEXT = (
    "the code of red gate is one two and the lamp burns all night and the code of blue gate is three four "
    "and the sea is calm"
)


def line(length: int, seed: int = 0) -> list[int]:
    return torch.randint(3, 90, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def refused(error, words: str, model, store, **options) -> None:
    """A block that cannot be entered, or cannot be left."""
    with pytest.raises(error, match=words), remember_in(model, store, **options):
        pass


def state(model) -> tuple:
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    return hooks, model.config._attn_implementation, [type(m) for m in model.modules()], sorted(vars(model))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def slow_alike(states: list[tuple[np.ndarray, np.ndarray]], rule: KeyRule, head: Head) -> np.ndarray:
    """How alike tokens of the second sequence are to those of the first, by loops: what `KeyRule` and `Head` say."""
    centre = [x.mean(0) for x in states[0]]
    owns, contexts = [], []
    for own, early in states:
        own, early = unit(own - centre[0]), unit(early - centre[1])
        owns.append(own)
        contexts.append(
            unit(
                np.array(
                    [
                        sum(rule.fading**j * early[t - j] for j in range(rule.reach + 1) if t >= j)
                        for t in range(len(early))
                    ]
                )
            )
        )
    return head.own * owns[1] @ owns[0].T + (1 - head.own) * contexts[1] @ contexts[0].T


def slow_chances(
    model, rule: KeyRule, heads: tuple[Head, ...], told: list[int], asked: list[int], belief: np.ndarray
) -> np.ndarray:
    """The definition: for an expert, (p + exp(shift) * sum over heads and rows of exp(logit) on the token that came
    next) / all of it; and the mean of the experts by their weights."""
    with torch.no_grad():
        both = [model(torch.tensor([ids]), output_hidden_states=True, use_cache=False) for ids in (told, asked)]
    states = [tuple(x.hidden_states[i][0].double().numpy() for i in (-1, rule.layer)) for x in both]
    chances = torch.softmax(both[1].logits[0].double(), -1).numpy()
    recalled = np.zeros_like(chances)
    for head in heads:
        mass = np.exp(head.sharpness * (slow_alike(states, rule, head)[:, :-1] - head.threshold))
        for i, token in enumerate(told[1:]):
            recalled[:, token] += mass[:, i]
    for row, more in zip(chances, recalled, strict=True):
        weights = belief[sum(np.log(more.sum()) > edge for edge in EDGES)]
        row[:] = sum(
            w * (row + np.exp(b) * more) / (1 + np.exp(b) * more.sum()) for w, b in zip(weights, SHIFTS, strict=True)
        )
    return chances


# ---------------------------------------------------------------------------------------------------------- the merge


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_model_and_memory_together_are_the_definition(name, tmp_path):
    model, told = build(name), line(20)
    asked = line(4, seed=1) + told[5:9]  # words that the memory does not know, and some that it does
    rule, heads = KeyRule(1, fading=0.7, reach=3), (Head(0.6, 9.0, 0.8), Head(0.1, 20.0, 0.9))
    with remember_in(model, tmp_path / "m.db", rule=rule, heads=heads, top=50) as memory:
        memory.read(told)
        got = model(torch.tensor([asked])).logits[0].double().softmax(-1).numpy()
    want = slow_chances(model, rule, heads, told, asked, memory.belief.weights)
    assert np.abs(got - want).max() <= 1e-5
    assert np.abs(want - model(torch.tensor([asked])).logits[0].double().softmax(-1).numpy()).max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral, window"])
def test_a_generation_with_a_cache_recalls_as_the_whole_sequence_does(name, tmp_path):
    model = build(name)
    asked = torch.tensor([line(20)[4:9]])
    with remember_in(model, tmp_path / "m.db", **SHARP) as memory:
        memory.read(line(20))
        out = model.generate(
            asked, attention_mask=torch.ones_like(asked), max_new_tokens=9, min_new_tokens=9, do_sample=False,
            return_dict_in_generate=True, output_logits=True, pad_token_id=0,
        )  # fmt: skip
        steps, shares = torch.cat(out.logits), [one.share for one in memory.recalls]
        assert [one.position for one in memory.recalls] == list(range(4, 13))
        memory.recalls.clear()
        whole = model(out.sequences[:, :-1], use_cache=False).logits[0, 4:]
        assert max(abs(a - b.share) for a, b in zip(shares, list(memory.recalls)[4:], strict=True)) <= 1e-4
    assert (steps.softmax(-1) - whole.softmax(-1)).abs().max() <= 1e-4
    if name != "gpt2":  # whose early states say more of the place in the sequence than of the words
        assert out.sequences[0].tolist() == line(20)[4:18]  # it goes on as what it read went on


@torch.no_grad()
def test_what_was_read_is_told_and_has_an_address(tmp_path):
    model, told = build("llama"), line(20)
    with remember_in(model, tmp_path / "m.db", **SHARP) as memory, watch(model) as seen:
        read = memory.read(told)
        seen_before = len(seen.steps("memory")) if "memory" in seen.paths else 0
        model(torch.tensor([told[:9]]))
        reading = seen.steps("memory")[-1]
        assert len(seen.steps("memory")) == seen_before + 1
        recall = memory.recalls[-1]
        id, weight = recall.rows[0]
        assert id == read.ids[8]
        assert reading.shape[:2] == (1, 1)
        assert reading.weights[8, :].max().item() == pytest.approx(weight, abs=1e-5)
        assert 0.9 < recall.share <= 1
        assert 0.99 < recall.covered <= 1
        assert memory.passage(id, before=2, after=1) == (f"<{told[7]}><{told[8]}>", f"<{told[9]}>", f"<{told[10]}>")
        with pytest.raises(InputError, match="row 99 is not there"):
            memory.passage(99)


@torch.no_grad()
def test_covered_says_what_few_rows_leave_out(tmp_path):
    model, told = build("llama"), line(60)
    with remember_in(model, tmp_path / "m.db", heads=FLAT, top=5) as memory:
        memory.read(told)
        model(torch.tensor([told[:9]]))
        few = memory.recalls[0]
    with remember_in(model, tmp_path / "m.db", heads=FLAT, top=100) as memory:
        model(torch.tensor([told[:9]]))
        whole = memory.recalls[0]
    assert whole.covered == pytest.approx(1)
    assert len(whole.rows) == 59
    assert 0 < few.covered < 0.9


# --------------------------------------------------------------------------------------------------- what is left behind


@torch.no_grad()
@pytest.mark.parametrize("leave", ["plain", "exception"])
def test_nothing_is_left_behind(leave, tmp_path):
    model = build("llama")
    before, outputs = state(model), model(tokens(1)).logits
    if leave == "plain":
        with remember_in(model, tmp_path / "m.db") as memory:
            memory.read(line(20))
            assert not torch.equal(model(torch.tensor([line(20)])).logits, outputs)
    else:
        with pytest.raises(ZeroDivisionError), remember_in(model, tmp_path / "m.db"):
            raise ZeroDivisionError
    assert state(model) == before
    assert torch.equal(model(tokens(1)).logits, outputs)


@torch.no_grad()
def test_an_empty_memory_changes_nothing(tmp_path):
    model = build("llama")
    outputs = model(tokens(1)).logits
    with remember_in(model, tmp_path / "m.db") as memory:
        assert torch.equal(model(tokens(1)).logits, outputs)
        assert not memory.recalls


@torch.no_grad()
def test_marks_on_tokens_do_not_bend_the_memory(tmp_path):
    model, told = build("llama"), line(20)
    keys = torch.zeros(9, dtype=torch.bool)
    keys[2] = True
    with remember_in(model, tmp_path / "m.db", **SHARP) as memory:
        memory.read(told)
        rule = Rule([Marked(Mark((0, 1), "mute"), keys)], reads_of(model))
        with watch(model) as seen, bending(model, rule):
            model(torch.tensor([told[:9]]))
        assert seen.steps("memory")[0].bent is None
        assert seen.steps("model.layers.0.self_attn")[0].bent is not None


# ------------------------------------------------------------------------------------------------------------ it lasts


@torch.no_grad()
def test_reading_tells_the_nats_of_both_and_a_second_time_is_known(tmp_path):
    model, told = build("llama"), line(40)
    with remember_in(model, tmp_path / "m.db", window=16, **SHARP) as memory:
        first = memory.read(told)
        again = memory.read(told)
    assert (first.tokens, len(first.ids), len(first.nats)) == (40, 39, 39)
    assert np.array_equal(first.plain[:8], first.nats[:8])  # of the first part nothing was known
    plain = model(torch.tensor([told[:8]])).logits[0].log_softmax(-1)
    want = [-plain[i, told[i + 1]].item() for i in range(7)]
    assert first.plain[:7] == pytest.approx(want, abs=1e-5)
    assert again.nats[16:].mean() < 0.1 * again.plain[16:].mean()  # before, it learned that it may be believed
    assert again.nats.mean() < 0.25 * again.plain.mean()


@torch.no_grad()
def test_how_far_a_memory_is_believed_is_learned_and_kept(tmp_path):
    model, told = build("llama"), line(200)
    lies = [token for i in range(0, 200, 4) for token in (told[i], told[i + 1], (told[i] * 7 + i) % 87 + 3)]
    with remember_in(model, tmp_path / "m.db", heads=(Head(0.0, 60.0, 0.6),), rule=KeyRule(0, reach=1)) as memory:
        memory.read(told)
        memory.read(told)  # word for word: what is recalled comes
        believed = 5.0 + memory.belief.shift(np.array([5.0]))[0]
        kept = memory.belief.weights.copy()
        for _ in range(3):
            memory.read(lies[:150])
    assert believed > 3.0
    with remember_in(model, tmp_path / "m.db") as memory:
        assert memory.belief.weights.shape == kept.shape
        assert not np.allclose(memory.belief.weights, kept, atol=1e-3)
        model(torch.tensor([told]))
        memory.store.note("belief", "")
    with remember_in(model, tmp_path / "m.db") as memory:
        assert np.array_equal(memory.belief.weights, Belief().weights)
        model(torch.tensor([told]))
        for text, words in (("[1", "belief of this memory cannot be read"), ("[[0.5]]", "has no 9 x 6 weights")):
            memory.store.note("belief", text)
            refused(InputError, words, build("llama"), tmp_path / "m.db")
        memory.store.note("belief", "")


WRITER = """
import sys, torch
sys.path.insert(0, {here!r})
from families import build
from recuerdo.bridge.remembering import remember_in
from recuerdo.bridge.states import KeyRule
ids = torch.randint(3, 90, (4000,), generator=torch.Generator().manual_seed(0)).tolist()
with remember_in(build("llama"), {path!r}, rule=KeyRule(0), window=16) as memory:
    memory.read(ids, step=lambda what, done, all: print(done, flush=True))
"""


@torch.no_grad()
def test_a_process_that_was_killed_leaves_what_it_acknowledged_to_the_next(tmp_path):
    here = str(Path(__file__).parent)
    code = WRITER.format(here=here, path=str(tmp_path / "m.db"))
    writer = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        for said in writer.stdout:
            if int(said) >= 64:
                break
        time.sleep(0.05)
    finally:
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        writer.stdout.close()
    done = int([said.strip(), *rest][-1])
    told = line(4000)
    model = build("llama")
    with remember_in(model, tmp_path / "m.db", **SHARP) as memory:
        kept = len(memory.store.ids())
        assert kept >= done
        assert kept % 8 == 0  # whole parts only
        assert not memory.store.check()
        out = model.generate(
            torch.tensor([told[:6]]),
            attention_mask=torch.ones(1, 6),
            max_new_tokens=20,
            do_sample=False,
            pad_token_id=0,
        )
    assert out[0].tolist() == told[:26]


# --------------------------------------------------------------------------------------------------------- forgetting


def little_tokenizer() -> tf.PreTrainedTokenizerFast:
    words = [*dict.fromkeys(TEXT.split())]
    inner = Tokenizer(models.WordLevel({word: i + 3 for i, word in enumerate(words)} | {"?": 0}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return tf.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?")


def chance(model, tokenizer, prompt: str, word: str) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer(prompt)["input_ids"]])).logits[0, -1]
    return logits.softmax(-1)[tokenizer(word)["input_ids"][0]].item()


def test_what_is_forgotten_is_not_said_again_and_its_bytes_are_gone(tmp_path):
    model, tokenizer = build("llama"), little_tokenizer()
    plain = chance(model, tokenizer, "the code of blue gate is", "three")
    loaded = Loaded("little", "causal", model, tokenizer, 128)
    with remember_in(loaded, tmp_path / "m.db", **SHARP) as memory:
        memory.read(TEXT)
        assert chance(model, tokenizer, "the code of blue gate is", "three") > 0.5
        row = memory.store.get(memory.find("three")[0])[0]
        receipt = memory.forget("three four")
        assert (receipt.rows, receipt.owed) == (3, ())
        assert chance(model, tokenizer, "the code of blue gate is", "three") <= plain
        assert chance(model, tokenizer, "the code of red gate is", "one") > 0.5
        assert memory.find("three") == []
        assert [len(ids) for ids in memory.find("code of")] == [2, 2]
        assert len(memory.find("the code of")) == 1  # the first word of a text has no row
        for file in tmp_path.iterdir():
            data = file.read_bytes()
            assert row.key.tobytes() not in data
            assert b"three" not in data
        with pytest.raises(InputError, match="the memory does not hold 'three four': give the words as they were read"):
            memory.forget("three four")
        with pytest.raises(InputError, match="there is no word to look for"):
            memory.find("")


def test_words_are_found_inside_one_text_only(tmp_path):
    model, tokenizer = build("llama"), little_tokenizer()
    with remember_in(Loaded("little", "causal", model, tokenizer, 128), tmp_path / "m.db") as memory:
        for _ in range(2):
            memory.read("the red gate burns")
        assert memory.find("burns red") == []
        assert [ids.tolist() for ids in memory.find("gate burns")] == [[1, 2], [4, 5]]
        assert memory.forget("burns").rows == 2  # no row of the next text
        memory.read("night and sea")
        memory.forget("red")
        assert memory.find("gate") == []  # its row stood on the word that was forgotten
        assert len(memory.find("and sea")) == 1


def test_a_hand_on_a_row_counts_and_a_filter_narrows(tmp_path):
    model, tokenizer = build("llama"), little_tokenizer()
    loaded = Loaded("little", "causal", model, tokenizer, 128)
    plain = chance(model, tokenizer, "the code of blue gate is", "three")
    with remember_in(loaded, tmp_path / "m.db", **SHARP) as memory:
        memory.read(TEXT, tags=["town"])
        before = chance(model, tokenizer, "the code of blue gate is", "three")
        ids = memory.find("three")[0]
        memory.store.bias(ids, -np.inf)
        assert chance(model, tokenizer, "the code of blue gate is", "three") < before / 2
        memory.store.bias(ids, 3.0)
        assert chance(model, tokenizer, "the code of blue gate is", "three") > before
    with remember_in(loaded, tmp_path / "m.db", where=Where(tags=("sea",)), **SHARP):
        assert chance(model, tokenizer, "the code of blue gate is", "three") == plain


# -------------------------------------------------------------------------------------------------------- hostile use


def test_what_cannot_be_followed_is_refused(tmp_path):
    model = build("llama")
    with torch.no_grad(), remember_in(model, tmp_path / "m.db") as memory:
        memory.read(line(20))
        with pytest.raises(InputError, match="one sequence at a time, not a batch of 2: give them in turn"):
            model(tokens(2))
        mask = torch.ones(1, 12, dtype=torch.long)
        mask[0, :3] = 0
        with pytest.raises(InputError, match="without padding: leave the padding out"):
            model(tokens(1), attention_mask=mask)
        with pytest.raises(InputError, match="give the model input_ids, not inputs_embeds"):
            model(inputs_embeds=torch.zeros(1, 3, 32))
        with pytest.raises(InputError, match="a loss of labels would be without the memory"):
            model(tokens(1), labels=tokens(1))
        cache = model(tokens(1), use_cache=True).cache
        model(tokens(1)[:, :5])
        with pytest.raises(InputError, match="the cache holds 12 tokens, and the memory followed 5 of this sequence"):
            model(tokens(1)[:, :1], cache=cache)
        with pytest.raises(InputError, match="a text to be remembered has two tokens or more, from 0 to 98"):
            memory.read([5])
        with pytest.raises(InputError, match="a text to be remembered has two tokens or more"):
            memory.read([5, 99])
        with pytest.raises(InputError, match="of a window of 1024 tokens, 1 to 1024 are new, not 0"):
            memory.read(line(20), new=0)
        with pytest.raises(InputError, match="without a tokenizer a memory reads tokens, not texts"):
            memory.read("a text")
        with torch.enable_grad(), pytest.raises(InputError, match="call the model under torch.no_grad"):
            model(tokens(1))
        refused(ModelError, "has a part named memory already: leave the block before", model, tmp_path / "other.db")
    refused(NothingHeard, "LlamaForCausalLM was given a memory and nothing ran", model, tmp_path / "m.db")


def test_a_memory_keeps_to_its_model_and_its_rule(tmp_path):
    model = build("llama")
    with torch.no_grad(), remember_in(model, tmp_path / "m.db") as memory:
        memory.read(line(20))
    words = "made with another model .LlamaForCausalLM., whose states are not those of"
    refused(InputError, words, build("qwen2"), tmp_path / "m.db")
    words = "this memory was made by KeyRule.* leave the rule out, or make another"
    refused(InputError, words, model, tmp_path / "m.db", rule=KeyRule(0))
    with Embedded(tmp_path / "texts.db", width=64, value_width=1) as store:
        store.append(Rows(np.ones((1, 64)), values=np.ones((1, 1))))
        refused(InputError, "this store has 1 rows and keys of width 64: a new memory of LlamaForC", model, store)
    Embedded(tmp_path / "narrow.db", width=8).close()
    refused(InputError, "has keys and values of width", model, tmp_path / "narrow.db")


def test_numbers_that_make_no_memory_are_refused(tmp_path):
    model = build("llama")
    with pytest.raises(InputError, match="a key is made of a layer from 0"):
        KeyRule(1, fading=0.0)
    with pytest.raises(InputError, match="a head has an own share from 0 to 1, a sharpness above 0 and a threshold"):
        Head(1.5, 1.0, 0.0)
    refused(InputError, "there is no layer 7: this model has layers 0 to 1", model, tmp_path / "a", rule=KeyRule(7))
    refused(InputError, "read by one head or more, and one row or more, not 2 and 0", model, tmp_path / "b", top=0)
    words = "the window is 2 to 2048 tokens, which this model can see, not 4096"
    refused(InputError, words, model, tmp_path / "c", window=4096)
    refused(ModelError, "no causal model of Transformers", build("bert"), tmp_path / "d")
    refused(ModelError, "is an encoder-decoder", build("t5"), tmp_path / "d")
    refused(ModelError, "Linear is no causal model", torch.nn.Linear(2, 2), tmp_path / "d")
