"""The DNC that hears stories: what it is fed, when it answers, and what it may know."""

import pytest
import torch

from recuerdo.data.stories import Encoder, Stories, Story, Vocabulary, batch, parse
from recuerdo.errors import InputError
from recuerdo.memory.link import Dense
from recuerdo.models.dnc import StoryDNC
from recuerdo.read import bending, mute, watch

STORIES = parse(
    "1 Mary went to the kitchen.\n2 John took the milk.\n3 Where is Mary?\tkitchen\t1\n4 Mary went to the garden.\n"
    "5 John went to the office.\n6 Where is the milk?\toffice\t2 5\n7 Mary slept.\n"
    "1 Sandra took the apple there.\n2 What is Sandra carrying?\tapple\t1\n"
)
KNOWN = Vocabulary.of(STORIES)
ASKED = ((0, 0), (0, 1), (1, 0))


def told(*stories: Story) -> Stories:
    encoder = Encoder(KNOWN)
    return batch([encoder.encode(story) for story in stories or STORIES])


def made(**rules) -> StoryDNC:
    torch.manual_seed(0)
    sizes = {"width": 6, "hidden": 10, "memory": (5, 4, 2)} | rules
    return StoryDNC(len(KNOWN.words), len(KNOWN.answers), **sizes).double().eval()


def inputs(model, stories, b, q):
    """One sequence by itself: [1, before + 1 + think, width + 1]."""

    def vector(row):
        words = enumerate(stories.words[row].tolist())
        return sum(model.encode.words[w] * model.encode.places[j] for j, w in words if w)

    n = int(stories.before[b, q])
    rows = [*(vector(stories.sentence[b, i]) for i in range(n)), vector(stories.question[b, q])]
    rows += [torch.zeros(6).double()] * model.think
    flags = torch.tensor([0.0] * n + [1.0] * (1 + model.think)).double()
    return torch.cat([torch.stack(rows), flags[:, None]], 1)[None]


@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
@pytest.mark.parametrize("think", [0, 3])
@pytest.mark.parametrize("link", ["history", "history-2", "none", Dense()])
def test_a_question_is_answered_at_the_end_of_a_sequence_of_its_own(think, link, controller):
    stories, model = told(), made(think=think, link=link, controller=controller)
    logits = model(stories)
    assert logits.shape == (2, 2, len(KNOWN.answers))
    for b, q in ASKED:
        torch.testing.assert_close(logits[b, q], model.dnc(inputs(model, stories, b, q))[0, -1])
    assert bool((logits[1, 1] == 0).all())  # there is no such question


def test_no_question_is_written_into_the_story():
    model, first = made(), STORIES[0].questions[0]
    other = Story(STORIES[0].sentences, (type(first)(("where", "is", "milk"), "office", 2), STORIES[0].questions[1]))
    torch.testing.assert_close(model(told(other))[0, 1], model(told(STORIES[0]))[0, 1])
    assert not torch.allclose(model(told(other))[0, 0], model(told(STORIES[0]))[0, 0])


def test_without_any_question_there_is_nothing_to_say():
    logits = made()(told(Story(STORIES[0].sentences, ()), Story(STORIES[1].sentences, ())))
    assert logits.shape == (2, 0, len(KNOWN.answers))


def test_reads_and_writes_are_heard_for_each_story_and_then_for_each_question():
    stories, model = told(), made()
    with watch(model) as seen:
        model(stories)
    assert sorted(seen.paths) == ["dnc.memory.read", "dnc.memory.write"]
    assert len(seen.steps("dnc.memory.read")) == 4 + 1 + 3  # as far as somebody asks, the question, three blanks
    assert seen["dnc.memory.write@3"].shape == (2, 1, 1, 5)  # stories, heads, one look, slots
    for b, q in ASKED:  # what a question hears is what it would hear by itself
        n, row = int(stories.before[b, q]), ASKED.index((b, q))
        with watch(model) as alone:
            model.dnc(inputs(model, stories, b, q))
        for i, (step, at) in enumerate([*((i, b) for i in range(n)), *((4 + i, row) for i in range(4))]):
            ours, own = seen.steps("dnc.memory.read")[step], alone.steps("dnc.memory.read")[i]
            torch.testing.assert_close(ours.weights[:, :][at], own.weights[:, :][0])


def test_a_muted_slot_is_not_read():
    stories, model = told(STORIES[1]), made(link=None)
    slot = torch.tensor([True, False, False, False, False])

    def unread(address, reading):
        return [mute(slot)] if address.path == "dnc.memory.read" else []

    with bending(model, unread), watch(model) as seen:
        bent = model(stories)
    assert not torch.allclose(bent, model(stories))
    assert not any(bool(r.weights[:, :][..., 0].any()) for r in seen.steps("dnc.memory.read"))


def test_the_kit_is_on_and_can_be_changed():
    kit = made().dnc.memory.kit
    assert (kit.masks, kit.deallocation, kit.norm, kit.sharpening) == (True, True, True, False)
    assert kit.bypass > 0
    assert made(kit={"norm": False, "sharpening": True}).dnc.memory.kit.sharpening
    model, stories = made(), told()
    assert torch.equal(model(stories), model(stories))
    torch.manual_seed(0)
    assert not torch.equal(model.train()(stories), model(stories))  # dropout past the memory


def test_everything_learns_and_padding_does_not():
    stories, model = told(), made(kit={"sharpening": True})
    model(stories).logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert float(parameter.grad.abs().max()) > 0, name
    assert float(model.encode.words.grad[0].abs().max()) == 0


def test_errors():
    with pytest.raises(InputError, match="a DNC thinks for 0 or more steps after a question, not -1"):
        made(think=-1)
    with pytest.raises(InputError, match="there is no link 'chain': choose history, history-16"):
        made(link="chain")
    with pytest.raises(InputError, match="a DNC needs sizes of 1 or more, not hidden=0"):
        made(hidden=0)
