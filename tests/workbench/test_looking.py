"""A look from words to evidence, over tiny models of every kind that read text."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recuerdo.bridge.run import hear_pair, load
from recuerdo.errors import InputError, ModelError
from recuerdo.explain.views import FLOOR
from recuerdo.workbench.looking import look

TEXT = "the cat sat on the mat . then it ran home ."
WORDS = ["<pad>", "</s>", "<unk>", "the", "cat", "sat", "on", "mat", ".", "then", "it", "ran", "home", "who", "?"]


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """A T5 of two layers."""
    from transformers import T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("pair") / "t5"
    torch.manual_seed(0)
    sizes = {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 16}
    config = T5Config(vocab_size=len(WORDS), **sizes, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def causal(tmp_path_factory) -> Path:
    """A Llama of two layers, without a chat template."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("causal") / "llama"
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(WORDS), **sizes, max_position_embeddings=64, eos_token_id=1, pad_token_id=0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def test_an_alignment_is_the_cross_attention_that_wrote_each_word(pair):
    seen = look(pair, TEXT, target="then the cat ran")
    evidence = seen.evidence
    assert evidence.kind == "alignment"
    assert evidence.view().name == "aside"
    assert evidence.queries.words == ["then", "the", "cat", "ran"]
    loaded = load(pair)
    loaded.model.set_attn_implementation("eager")
    ids = torch.tensor([loaded.tokenizer(TEXT)["input_ids"]])
    out = loaded.tokenizer("then the cat ran")["input_ids"][:-1]
    with torch.no_grad():
        told = loaded.model(
            input_ids=ids, decoder_input_ids=torch.tensor([[0, *out[:-1]]]), output_attentions=True
        ).cross_attentions
    want = torch.stack(told).mean((0, 2))[0, :, :-1].numpy()  # the last source token is </s>, no word
    got = evidence.view("raw").map.dense()[1:]
    assert np.abs(got - np.where(want >= FLOOR, want, 0)).max() < 1e-5
    seen.draw_map()
    assert evidence.map.cells.shape == (4, ids.shape[1])


def test_a_pair_writes_its_own_target_when_none_is_given(pair):
    loaded = load(pair)
    with pytest.raises(InputError, match="there is no target to align: pass --target"):
        hear_pair(loaded, TEXT, "</s>")
    loaded.model.generation_config.suppress_tokens = [0, 1, 2]  # an untrained model would write nothing else
    heard = hear_pair(loaded, TEXT, None, generate=5)
    assert len(heard.answer_tokens) == 5
    assert heard.cross


def test_a_continuation_and_a_text_of_the_same_model(causal):
    text = look(causal, TEXT)
    assert text.evidence.kind == "text"
    assert text.evidence.views[0].map.shape == (1 + len(text.evidence.text), len(text.evidence.text))
    more = look(causal, TEXT, question="who ?", generate=4)
    assert more.evidence.kind == "answer"
    assert more.heard.tokens[: len(more.heard.offsets)][-1] != ""
    for layer in more.selection.layers:
        assert layer.queries == len(more.heard.offsets) + len(layer.steps) - 1


@pytest.mark.parametrize("view", ["value", "rollout", "gradient"])
def test_views_on_request_come_first(causal, view):
    seen = look(causal, TEXT, question="who ?", generate=4).put_first(view)
    assert [v.name for v in seen.evidence.views] == [view, "lift", "aside", "raw"]
    assert np.isfinite(seen.evidence.view().map.value).all()
    assert all(p.requires_grad for p in seen.loaded.model.parameters())


def test_a_tile_is_the_mean_of_all_heads(causal):
    seen = look(causal, TEXT)
    rows, cols = slice(2, 9), slice(1, 5)
    want = np.mean([s.weights[:, :][0].mean(0).numpy() for layer in seen.selection.layers for s in layer.steps], 0)
    assert np.abs(seen.tile(rows, cols) - want[rows, cols]).max() < 1e-6


def test_errors_name_the_way_out(causal, pair):
    with pytest.raises(InputError, match="the text is empty"):
        look(causal, "  ")
    with pytest.raises(InputError, match="there is no layer 2: llama has layers 0 to 1"):
        look(causal, TEXT, layer=2)
    with pytest.raises(InputError, match="there is no head 7: llama has heads 0 to 1"):
        look(causal, TEXT, head=7)
    with pytest.raises(InputError, match="there is no view 'x': choose lift, aside, raw, value, rollout or gradient"):
        look(causal, TEXT).put_first("x")
    with pytest.raises(ModelError, match="nothing to take a gradient of: ask a question"):
        look(causal, TEXT).put_first("gradient")
    with pytest.raises(ModelError, match="llama has no target side"):
        look(causal, TEXT, target="x")
    with pytest.raises(InputError, match="too long for llama: .* Shorten the text to about"):
        look(causal, TEXT * 9)
    with pytest.raises(InputError, match="rollout needs the self-attention"):
        look(pair, TEXT, target="then").put_first("rollout")


def test_modules_that_were_not_heard_are_told(causal, monkeypatch):
    from recuerdo.bridge import run

    heard = run.hear_text
    monkeypatch.setattr("recuerdo.workbench.looking.hear_text", lambda *a, **k: told(heard(*a, **k)))

    def told(found):
        found.silent = ["model.layers.0.self_attn"]
        return found

    assert look(causal, TEXT).evidence.selection == "mean over all layers and heads (1 module not heard)"
