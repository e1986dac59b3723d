"""Questions with wanted answers as a batch: every number in it equals the one of each item alone."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recuerdo.bridge.batch import batch_of
from recuerdo.bridge.run import Loaded
from recuerdo.errors import InputError, ModelError

WORDS = ["</s>", "the", "lamp", "is", "red", ".", "door", "green", "what", "?", "colour", "of", "<u>", "</u>", "ok",
         "Question:", "Answer:"]  # fmt: skip
TEMPLATE = "{% for m in messages %}<u> {{ m['content'] | trim }} </u>{% endfor %} ok "
ITEMS = [
    ("the lamp is red .", "what colour ?", "red"),
    ("the door is green . the lamp is red .", "what is the colour of the door ?", "the door is green"),
    ("the lamp .", None, "is red"),
]


def loaded(template: str | None = None, limit: int | None = 64) -> Loaded:
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="</s>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="</s>", unk_token="</s>")
    tokenizer.chat_template = template
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.3, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return Loaded("tiny", "causal", LlamaForCausalLM(config).eval(), tokenizer, limit)


@pytest.fixture(scope="module")
def plain() -> Loaded:
    return loaded()


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_prompts_are_padded_on_the_left(template):
    model = loaded(template)
    batch = batch_of(model, ITEMS)
    for i, (text, _, answer) in enumerate(ITEMS):
        row, start = batch.ids[i], batch.first[i]
        said = batch.said[i].bool()
        assert batch.there[i].tolist() == [0] * start + [1] * (len(row) - start)
        assert model.tokenizer.decode(row[said]) == answer
        assert said.tolist() == sorted(said.tolist())  # the answer is last
        assert len(batch.offsets[i]) == len(row) - start - int(said.sum())
        a, b = batch.documents[i]
        assert batch.texts[i][a:b] == text
        pieces = [batch.texts[i][x:y] for x, y in batch.offsets[i]]
        assert pieces == model.tokenizer.convert_ids_to_tokens(row[start:][~said[start:]])
    assert 0 in batch.first


def test_columns_are_tokens_of_each_prompt(plain):
    batch = batch_of(plain, ITEMS)
    keys = [torch.tensor([word == "lamp" for word in tokens_of(batch, i)]) for i in range(3)]
    found = batch.columns(keys)
    assert found.shape == batch.ids.shape
    assert torch.equal(found, (batch.ids == WORDS.index("lamp")) & batch.there.bool() & ~batch.said.bool())


def tokens_of(batch, i: int) -> list[str]:
    return [batch.texts[i][a:b] for a, b in batch.offsets[i]]


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_what_stands_behind_the_document(template):
    batch = batch_of(loaded(template), ITEMS)
    for i in range(3):
        end = batch.documents[i][1]
        prompt = [start >= end for start, _ in batch.offsets[i]]
        prompt[-1] = True  # the row that chooses the first word of the answer, also where no question was asked
        assert batch.behind()[i].tolist() == [False] * batch.first[i] + prompt + [True] * int(batch.said[i].sum())


def test_the_log_probability_of_an_answer_is_that_of_the_item_alone(plain):
    """Padding and the other items do not count."""
    batch = batch_of(plain, ITEMS)
    with torch.no_grad():
        found = batch.answer_log_probability(plain.model)
    for i in range(3):
        ids, said = batch.ids[i][batch.first[i] :], batch.said[i][batch.first[i] :].bool()
        with torch.no_grad():
            chances = plain.model(ids[None]).logits[0, :-1].double().log_softmax(-1)
        want = chances.gather(-1, ids[1:, None])[:, 0][said[1:]].mean()
        assert found[i].item() == pytest.approx(want.item(), abs=2e-5)


def test_wrong_items(plain):
    torch.manual_seed(0)
    tiny = BertModel(BertConfig(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                num_attention_heads=1))  # fmt: skip
    with pytest.raises(ModelError, match="^an encoder does not answer: profiles and lessons are for language models$"):
        batch_of(Loaded("an encoder", "encoder", tiny, plain.tokenizer, None), ITEMS)
    with pytest.raises(InputError, match="^too long for tiny: 8 tokens and 1 to generate, and it takes 8"):
        batch_of(loaded(limit=8), [("the lamp is red . the lamp is", None, "red")])
    with pytest.raises(InputError, match="the text is empty"):
        batch_of(plain, [("", None, "red")])
