"""Marian folders as Helsinki-NLP publishes them, made here: SentencePiece on both sides and a vocabulary of its own."""

import io
import json
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from recuerdo import load
from recuerdo.bridge.run import hear_pair
from recuerdo.errors import ModelError
from recuerdo.workbench.looking import look

FRENCH = ["le vieux chien voit l'arbre", "la maison est près de l'été", "un chien noir court sur la plage"]
ENGLISH = ["the old dog sees the tree", "the house is near the summer", "a black dog runs on the beach"]
pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")  # Transformers' advice
TEXT = "le chien voit  l'été, ﬁn"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import sentencepiece

    home, pieces = tmp_path_factory.mktemp("marian") / "opus-mt-fr-en", []
    home.mkdir()
    for name, lines in (("source", FRENCH), ("target", ENGLISH)):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines * 20), model_writer=model, vocab_size=60, hard_vocab_limit=False,
            minloglevel=2, num_threads=1,
        )  # fmt: skip
        (home / f"{name}.spm").write_bytes(model.getvalue())
        cut = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        pieces += [cut.id_to_piece(i) for i in range(3, cut.get_piece_size())]
    words = ["</s>", "<unk>", ">>en<<", *dict.fromkeys(reversed(pieces)), "<pad>"]
    (home / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64}
    pad = len(words) - 1
    ends = {"pad_token_id": pad, "eos_token_id": 0, "decoder_start_token_id": pad, "forced_eos_token_id": None}
    MarianMTModel(MarianConfig(vocab_size=len(words), **sizes, **heads, **ends)).save_pretrained(home)
    (home / "tokenizer_config.json").write_text(json.dumps({"source_lang": "fr", "target_lang": "en"}))
    return home


@pytest.mark.parametrize("text", [*FRENCH, TEXT, ">>en<< le chien", "中 ∀ dog"])
def test_ids_are_those_of_transformers_and_characters_those_of_the_text(folder, text):
    ours, theirs = load(folder).tokenizer, MarianTokenizer.from_pretrained(folder)
    told = ours(text)
    assert told["input_ids"] == theirs(text)["input_ids"]
    assert ours(text_target=text)["input_ids"] == theirs(text_target=text)["input_ids"]
    assert ours(text, add_special_tokens=False)["input_ids"] == told["input_ids"][:-1]
    spans = [span for span, odd in zip(told["offset_mapping"], told["special_tokens_mask"], strict=True) if not odd]
    pieces = theirs.spm_source.encode(theirs.remove_language_code(text)[1], out_type=str)
    for (first, last), piece in zip(spans, pieces, strict=True):
        letters = piece.removeprefix("▁")
        if letters.isascii() and not ("ﬁ" in text and letters in "fi"):  # one letter there, two pieces
            assert text[first:last] == letters


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from("abc lé'ﬁ中\U0001f600\t<>e\u0301"), max_size=20))
def test_every_piece_stands_in_the_text(folder, text):
    told = load_once(folder)(text)
    spans = told["offset_mapping"]
    assert len(spans) == len(told["input_ids"]) == len(told["special_tokens_mask"])
    assert all(0 <= first <= last <= len(text) for first, last in spans)
    assert [first for first, _ in spans[:-1]] == sorted(first for first, _ in spans[:-1])


KEPT = {}


def load_once(folder):
    if folder not in KEPT:
        KEPT[folder] = load(folder).tokenizer
    return KEPT[folder]


def test_the_map_of_a_translation_is_the_models_own_cross_attention(folder):
    loaded = load(folder)
    heard = hear_pair(loaded, TEXT, "the old dog")
    theirs = MarianTokenizer.from_pretrained(folder)
    model = MarianMTModel.from_pretrained(folder, attn_implementation="eager").eval()
    ids, out = theirs(TEXT)["input_ids"], theirs(text_target="the old dog")["input_ids"][:-1]
    begin = [model.config.decoder_start_token_id]
    with torch.no_grad():
        told = model(
            input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([begin + out[:-1]]), output_attentions=True
        )
    for layer, want in enumerate(told.cross_attentions):
        (reading,) = heard.cross[f"model.decoder.layers.{layer}.encoder_attn"]
        torch.testing.assert_close(reading.weights[:, :], want, atol=1e-5, rtol=0)
    assert heard.answer == "the old dog"


def test_look_translates_and_aligns(folder):
    seen = look(folder, "le chien voit l'arbre", target="the dog sees")
    assert seen.evidence.kind == "alignment"
    assert seen.evidence.queries.words == ["the", "dog", "sees"]
    assert len(seen.evidence.view("raw").map.dense()) >= 3
    said = look(folder, "le chien", generate=4)
    assert said.evidence.view("raw").map.dense().sum() > 0


def test_without_sentencepiece_the_error_names_the_way(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ModelError, match="which is not installed: pip install 'recuerdo.marian.'"):
        load(folder)


def test_a_folder_without_its_pieces_is_refused(folder, tmp_path):
    for name in ("config.json", "model.safetensors", "vocab.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(
        ModelError, match="is a Marian model without source.spm and target.spm: fetch them, they belong to it"
    ):
        load(tmp_path)
