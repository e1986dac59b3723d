"""MemN2N against its definition, written out question by question in plain loops."""

import math

import pytest
import torch

from recuerdo.data.stories import Encoder, Question, Stories, Story, Vocabulary, batch
from recuerdo.errors import InputError
from recuerdo.models.memn2n import MemN2N
from recuerdo.read import Share, bending, watch

PER_QUESTION = ("question", "before", "answer", "parts", "facts", "task")
TEXT = ("mary went to the kitchen", "john took the milk", "mary went to the garden", "john went to the office")


def told(sentences: int = 4, questions: tuple[int, ...] = (2, 4)) -> Stories:
    """Two stories of different length, the first with several questions."""
    lines = tuple(tuple(TEXT[i % 4].split()) for i in range(sentences))
    first = Story(lines, tuple(Question(("where", "is", "mary"), "garden", n, (0,)) for n in questions))
    second = Story(lines[1:2], (Question(("where", "is", "the", "milk"), "john", 1, (0,)),))
    encoder = Encoder(Vocabulary.of([first, second]))
    return batch([encoder.encode(first), encoder.encode(second)])


def made(stories: Stories, **rules) -> MemN2N:
    torch.manual_seed(3)
    model = MemN2N(int(stories.words.max()) + 1, 5, width=8, answer_words=(2, 0, 4, 3, 0), **rules).double().eval()
    with torch.no_grad():
        model.encode.words[1:] *= 8.0  # so that the hops look at something
        model.ages.vectors *= 8.0
    return model


def sentence_vector(model: MemN2N, words: torch.Tensor, table: int) -> torch.Tensor:
    """Sum of l_j * E w_j, with the weights of the paper's code."""
    longest, d = 12, model.encode.width
    total = torch.zeros(d, dtype=torch.double)
    for j, word in enumerate(words.tolist()):
        if word:
            for i in range(d):
                place = (i + 1 - (d + 1) / 2) * (j + 1 - (longest + 1) / 2)
                total[i] += (1 + 4 * place / (d * longest)) * model.encode.words[word, table * d + i]
    return total


def answers_of(model: MemN2N) -> torch.Tensor:
    last = len(model.hops) if model.tying == "adjacent" else 1
    width = model.encode.width
    tied = zip(model.answers.words.tolist(), model.answers.own, strict=True)
    return torch.stack([model.encode.words[w, last * width : (last + 1) * width] if w else own for w, own in tied])


def by_hand(model: MemN2N, stories: Stories, b: int, q: int) -> torch.Tensor:
    """Logits of one question, from the newest sentence back."""
    hops = len(model.hops)
    n = int(stories.before[b, q])
    question = stories.words[stories.question[b, q]]
    u = sentence_vector(model, question, 0 if model.tying == "adjacent" else 2)
    for hop in range(hops):
        a, c = (hop, hop + 1) if model.tying == "adjacent" else (0, 1)
        scores, values = [], []
        for age in range(min(n, model.ages.memory)):
            words = stories.words[stories.sentence[b, n - 1 - age]]
            key = sentence_vector(model, words, a) + model.ages.vectors[age, a]
            scores.append(key @ u)
            values.append(sentence_vector(model, words, c) + model.ages.vectors[age, c])
        weights = torch.stack(scores)
        if not model.linear:
            # The slots of the memory that nothing was written to hold zeros, and are looked at with the others.
            weights = torch.exp(weights) / (torch.exp(weights).sum() + model.ages.memory - len(scores))
        read = sum(w * v for w, v in zip(weights, values, strict=True))
        u = (u if model.between is None else model.between @ u) + read
    return answers_of(model) @ u


@pytest.mark.parametrize("tying", ["adjacent", "layerwise"])
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("memory", [2, 50])
def test_every_question_is_answered_as_the_paper_writes_it(tying, linear, memory):
    stories = told()
    model = made(stories, tying=tying, memory=memory, hops=2)
    model.linear = linear
    logits = model(stories)
    assert logits.shape == (2, 2, 5)
    for b, q in ((0, 0), (0, 1), (1, 0)):
        torch.testing.assert_close(logits[b, q], by_hand(model, stories, b, q), rtol=1e-5, atol=1e-4)


def test_questions_of_one_story_are_answered_as_if_each_stood_alone():
    stories = told()
    model = made(stories)
    together = model(stories)
    for q in (0, 1):
        alone = Stories(stories.words, stories.sentence, *(getattr(stories, n)[:, q : q + 1] for n in PER_QUESTION))
        torch.testing.assert_close(model(alone)[:1, 0], together[:1, q])


def test_what_comes_after_the_question_or_is_too_old_is_not_read():
    stories = told(8, (6,))
    model = made(stories, memory=3)
    with watch(model) as seen:
        model(stories)
    weights = seen["hops.0"].weights[:, :]
    assert weights.shape == (2, 1, 1, 8)  # a column for every sentence of the story
    assert (weights[0, 0, 0] > 0).tolist() == [False, False, False, True, True, True, False, False]
    assert seen.paths == ["hops.0", "hops.1", "hops.2"]


def test_a_hop_can_be_steered():
    stories = told()
    model = made(stories, hops=1)
    marked = torch.tensor([True, False, False, False])
    with watch(model) as seen:
        model(stories)
    share = 0.9 * seen["hops.0"].weights[:, :][1, 0, 0].sum(-1, keepdim=True)  # of what the sentences get together
    with bending(model, lambda address, reading: [Share(marked, 0.9)]), watch(model) as seen:
        bent = model(stories)
    assert not torch.allclose(bent, model(stories))
    torch.testing.assert_close(seen["hops.0"].mass(marked[:, None].double())[1, 0, 0], share)


def test_a_question_before_every_sentence_reads_nothing():
    stories = told(4, (0, 4))
    model = made(stories, hops=2)
    question = sentence_vector(model, stories.words[stories.question[0, 0]], 0)
    torch.testing.assert_close(model(stories)[0, 0], answers_of(model) @ question)


def test_empty_sentences_shift_the_ages_and_keep_their_order():
    stories = told()
    model = made(stories, memory=30, noise=0.2)
    before = torch.full((4000,), 10)
    back = torch.arange(10).expand(4000, 10)
    assert torch.equal(model.ages.shifted(back, before), back)  # not training
    model.train()
    torch.manual_seed(0)
    ages = model.ages.shifted(back, before)
    steps = ages.diff(dim=1)
    assert bool((steps > 0).all())  # older stays older
    span = ages.amax(1)
    assert ages.min() == 0
    assert span.max() == 11  # ten sentences and at most two empty ones
    # Of m = 0, 1, 2 equally likely empty ones, all C(10 + m, m) orders equally likely: chance that nothing moved.
    chance = (1 + 1 / 11 + 1 / math.comb(12, 2)) / 3
    found = (ages == back).all(1).double().mean().item()
    assert found == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / 4000))


def test_ages_stay_inside_the_memory():
    model = made(told(), memory=10, noise=0.5).train()
    ages = model.ages.shifted(torch.arange(10).expand(200, 10), torch.full((200,), 40))
    assert ages.max() == 9


def test_padding_never_learns_and_everything_else_does():
    stories = told()
    model = made(stories, tying="layerwise").train()
    model(stories).logsumexp(-1).sum().backward()
    assert float(model.encode.words.grad[0].abs().max()) == 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


def test_gradients_of_the_linear_start_are_finite_where_nothing_is_read():
    stories = told(4, (0, 4))
    model = made(stories).train()
    model.linear = True
    model(stories).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


def test_errors():
    with pytest.raises(InputError, match="a memory network needs at least 1 hop, not 0"):
        MemN2N(5, 3, hops=0)
    with pytest.raises(InputError, match="memory=0, noise=0.1: at least 1 sentence, and noise from 0 to below 1"):
        MemN2N(5, 3, memory=0)
    with pytest.raises(InputError, match="there is no tying 'both': choose adjacent or layerwise"):
        MemN2N(5, 3, tying="both")
