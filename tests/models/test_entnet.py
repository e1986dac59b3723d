"""The recurrent entity network against its definition, in plain loops, and what its slots must do."""

import pytest
import torch

from recuerdo.data.stories import Encoder, Question, Stories, Story, Vocabulary, batch
from recuerdo.errors import InputError
from recuerdo.memory.entities import unit
from recuerdo.models.entnet import EntNet
from recuerdo.read import bending, mute, watch

TEXT = ("mary went to the kitchen", "john took the milk", "mary went to the garden")


def told() -> tuple[Stories, Vocabulary]:
    lines = tuple(tuple(line.split()) for line in TEXT)
    asked = tuple(Question(("where", "is", "mary"), "garden", n, (0,)) for n in (1, 3))
    stories = [Story(lines, asked), Story(lines[1:2], (Question(("who", "has", "milk"), "john", 1, (0,)),))]
    vocabulary = Vocabulary.of(stories)
    encoder = Encoder(vocabulary)
    return batch([encoder.encode(story) for story in stories]), vocabulary


def made(stories: Stories, vocabulary: Vocabulary, *, tied: bool = False, slots: int = 3) -> EntNet:
    torch.manual_seed(2)
    names = [vocabulary.index()[name] for name in ("mary", "john")] if tied else []
    model = EntNet(len(vocabulary.words), 4, width=6, slots=slots, entities=names).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        model.encode.words[0] = 0.0
        model.slope.fill_(0.3), model.memory.slope.fill_(0.6)
    return model


def prelu(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0, x, slope * x)


def by_hand(model: EntNet, stories: Stories, b: int, q: int) -> torch.Tensor:
    def bag(words: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return sum(model.encode.words[word] * places[j] for j, word in enumerate(words.tolist()) if word)

    keys = model.keys if model.keys is not None else model.encode.words[model.entities]
    slots = list(keys)
    for i in range(int(stories.before[b, q])):
        s = bag(stories.words[stories.sentence[b, i]], model.encode.places)
        for j, (h, w) in enumerate(zip(slots, keys, strict=True)):
            gate = 1 / (1 + torch.exp(-(s @ h + s @ w)))
            new = prelu(model.memory.content @ h + model.memory.key @ w + model.memory.sentence @ s, model.memory.slope)
            h = h + gate * new
            slots[j] = h / h.norm()
    asked = bag(stories.words[stories.question[b, q]], model.ask)
    weights = torch.exp(torch.stack([asked @ h for h in slots]))
    found = sum(w * h for w, h in zip(weights / weights.sum(), slots, strict=True))
    return model.answers.own @ prelu(asked + model.found @ found, model.slope)


@pytest.mark.parametrize("tied", [False, True])
def test_every_question_is_answered_as_the_paper_writes_it(tied):
    stories, vocabulary = told()
    model = made(stories, vocabulary, tied=tied)
    logits = model(stories)
    for b, q in ((0, 0), (0, 1), (1, 0)):
        torch.testing.assert_close(logits[b, q], by_hand(model, stories, b, q), rtol=1e-6, atol=1e-6)


def test_gates_and_the_look_are_heard():
    stories, vocabulary = told()
    model = made(stories, vocabulary)
    with watch(model) as seen:
        model(stories)
    assert seen.paths == ["memory.write", "recall"]
    assert len(seen.steps("memory.write")) == 3  # one for each sentence
    assert seen["memory.write@0"].shape == (2, 1, 1, 3)
    assert seen["recall"].shape == (4, 1, 1, 3)
    torch.testing.assert_close(seen["recall"].weights[:, :].sum(-1), torch.ones(4, 1, 1).double())


def test_a_slot_that_may_not_be_written_keeps_its_content():
    stories, vocabulary = told()
    model = made(stories, vocabulary)
    muted = mute(torch.tensor([True, False, True]))
    told_first = model.encode(stories.words)[:, 0][stories.sentence[:, :1]]
    with bending(model.memory, lambda address, reading: [muted]), watch(model.memory) as seen:
        states = model.memory(told_first, model.keys)
    torch.testing.assert_close(states[:, 1, [0, 2]], unit(model.keys)[[0, 2]].expand(2, 2, 6))
    assert not torch.allclose(states[:, 1, 1], unit(model.keys)[1].expand(2, 6))
    assert torch.equal(seen["write"].weights[:, :][:, 0, 0, [0, 2]], torch.zeros(2, 2).double())


def test_contents_have_length_one_after_every_sentence():
    stories, vocabulary = told()
    model = made(stories, vocabulary)
    sentences = model.encode(stories.words)[:, 0][stories.sentence]
    states = model.memory(sentences, model.keys)
    assert states.shape == (2, 4, 3, 6)
    torch.testing.assert_close(states[:, 1:].norm(dim=-1), torch.ones(2, 3, 3).double(), rtol=1e-6, atol=1e-6)


def test_nothing_to_normalise_has_finite_gradients():
    x = torch.zeros(3, 4, requires_grad=True)
    y = unit(x)
    assert torch.equal(y, torch.zeros(3, 4))
    y.sum().backward()
    assert bool(x.grad.isfinite().all())


def test_what_comes_after_a_question_does_not_change_its_answer():
    stories, vocabulary = told()
    model = made(stories, vocabulary)
    changed = Stories(
        stories.words,
        stories.sentence.clone(),
        stories.question,
        stories.before,
        stories.answer,
        stories.parts,
        stories.facts,
        stories.task,
    )
    changed.sentence[0, 1:] = changed.sentence[0, 0]
    assert torch.equal(model(changed)[0, 0], model(stories)[0, 0])
    assert not torch.equal(model(changed)[0, 1], model(stories)[0, 1])


def test_everything_learns():
    stories, vocabulary = told()
    model = made(stories, vocabulary)
    model(stories).logsumexp(-1).sum().backward()
    assert all(float(p.grad.abs().max()) > 0 for p in model.parameters())
    assert float(model.encode.words.grad[0].abs().max()) == 0


def test_errors():
    with pytest.raises(InputError, match="an entity network needs at least 1 slot, not 0"):
        EntNet(5, 3, slots=0)
