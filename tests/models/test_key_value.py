"""The key-value memory network against its definition, in plain loops."""

import pytest
import torch

from recuerdo.data.stories import Encoder, Question, Stories, Story, Vocabulary, batch
from recuerdo.errors import InputError
from recuerdo.models.key_value import KeyValue
from recuerdo.nn.sentences import position_weights
from recuerdo.read import watch

TEXT = ("mary went to the kitchen", "john took the milk", "mary went to the garden")


def told() -> tuple[Stories, Vocabulary]:
    lines = tuple(tuple(line.split()) for line in TEXT)
    asked = tuple(Question(("where", "is", "mary"), "garden", n, (0,)) for n in (1, 3))
    stories = [Story(lines, asked), Story(lines[1:2], (Question(("who", "has", "milk"), "john", 1, (0,)),))]
    vocabulary = Vocabulary.of(stories)
    encoder = Encoder(vocabulary)
    return batch([encoder.encode(story) for story in stories]), vocabulary


def made(**rules) -> tuple[KeyValue, Stories]:
    stories, vocabulary = told()
    torch.manual_seed(1)
    words = [vocabulary.index()[answer] for answer in vocabulary.answers]
    model = KeyValue(len(vocabulary.words), len(words), width=6, answer_words=words, **rules).double().eval()
    with torch.no_grad():
        for table in (model.keys.words, model.values.words, model.ages.vectors):
            table *= 6.0
        model.values.places += torch.rand_like(model.values.places)
    return model, stories


def bag(table: torch.Tensor, places: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    return sum(table[word] * places[j] for j, word in enumerate(words.tolist()) if word)


@pytest.mark.parametrize("hops", [1, 3])
def test_every_question_is_answered_as_the_paper_writes_it(hops):
    model, stories = made(hops=hops)
    fixed = position_weights(12, 6).double()
    logits = model(stories)
    for b, q in ((0, 0), (0, 1), (1, 0)):
        n = int(stories.before[b, q])
        asked = bag(model.keys.words, fixed, stories.words[stories.question[b, q]])
        lines = [stories.words[stories.sentence[b, i]] for i in range(n)]
        ages = [n - 1 - i for i in range(n)]
        keys = torch.stack(
            [bag(model.keys.words, fixed, w) + model.ages.vectors[a, 0] for w, a in zip(lines, ages, strict=True)]
        )
        values = [
            bag(model.values.words, model.values.places, w) + model.ages.vectors[a, 1]
            for w, a in zip(lines, ages, strict=True)
        ]
        for hop in range(hops):
            weights = torch.exp(keys @ asked)
            weights = weights / (weights.sum() + 50 - n)  # beside the empty slots
            found = sum(w * v for w, v in zip(weights, values, strict=True))
            asked = model.turns[hop] @ (asked + found)
        expected = model.values.words[model.answers.words] @ asked
        torch.testing.assert_close(logits[b, q], expected, rtol=1e-5, atol=1e-5)


def test_keys_find_and_values_tell():
    """A key that changes moves the look; a value that changes does not."""
    model, stories = made(hops=1)

    def look() -> torch.Tensor:
        with watch(model) as seen:
            model(stories)
        return seen["hops.0"].weights[:, :]

    before = look()
    assert before.shape == (4, 1, 1, 3)
    with torch.no_grad():
        model.values.words[2:] += 1.0
    assert torch.equal(look(), before)
    with torch.no_grad():
        model.keys.words[2:] *= 2.0
    assert not torch.allclose(look(), before)


def test_everything_learns():
    model, stories = made()
    model.train()
    model(stories).logsumexp(-1).sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not float(p.grad.abs().max()) > 0]
    assert silent == ["answers.own"]  # every answer is a word here
    assert float(model.keys.words.grad[0].abs().max()) == float(model.values.words.grad[0].abs().max()) == 0


def test_errors():
    with pytest.raises(InputError, match="a memory network needs at least 1 hop, not 0"):
        KeyValue(5, 3, hops=0)
    with pytest.raises(InputError, match="2 answer_words for 3 answers: give each its word, or 0"):
        KeyValue(5, 3, answer_words=[1, 2])
