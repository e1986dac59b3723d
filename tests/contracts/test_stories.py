"""What every model of stories promises: a question knows the sentences before it, and nothing else of the batch."""

from functools import partial

import pytest
import torch

from recuerdo.data.stories import Encoder, Stories, Story, Vocabulary, batch, parse
from recuerdo.tasks.answer import MODELS, Answer

STORIES = parse(
    "1 Mary went to the kitchen.\n2 John took the milk.\n3 Where is Mary?\tkitchen\t1\n4 Mary went to the garden.\n"
    "5 John went to the office.\n6 Where is Mary?\tgarden\t4\n7 Where is the milk?\toffice\t2 5\n8 Mary slept.\n"
    "1 Sandra took the apple and the milk there.\n2 What is Sandra carrying?\tapple,milk\t1\n",
    task=2,
)
ENCODER = Encoder(Vocabulary.of(STORIES))
EACH = {
    "memn2n": {"width": 8, "memory": 6},
    "key_value": {"width": 8, "memory": 6},
    "entnet": {"width": 8, "slots": 3},
    "reader": {"width": 16, "steps": 2, "size": 4},
    "universal": {"width": 16, "steps": 3, "heads": 2},
    "story_dnc": {"width": 8, "hidden": 12, "memory": (5, 6, 2)},
}
alike = partial(torch.testing.assert_close, rtol=1e-8, atol=1e-10)


def told(*stories: Story) -> Stories:
    return batch([ENCODER.encode(story) for story in stories])


def made(name: str) -> torch.nn.Module:
    """The model, with parameters large enough for everything to matter."""
    torch.manual_seed(4)
    known = ENCODER.vocabulary
    model = MODELS[name](len(known.words), len(known.answers), **EACH[name]).double().eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            parameter += 0.2 * torch.randn_like(parameter)
            if path.endswith(".words"):
                parameter[0] = 0.0  # padding
    return model


def test_every_model_is_here():
    assert set(EACH) == set(MODELS)


@pytest.mark.parametrize("name", EACH)
def test_what_comes_after_a_question_does_not_change_its_answer(name):
    story, model = STORIES[0], made(name)
    changed = Story((*story.sentences[:2], *[STORIES[1].sentences[0]] * 3), story.questions)
    before, after = model(told(story)), model(told(changed))
    alike(before[:, 0], after[:, 0])
    assert bool((before[:, 1] - after[:, 1]).abs().max() > 1e-4)


@pytest.mark.parametrize("name", EACH)
def test_a_story_is_answered_alike_in_every_batch(name):
    model = made(name)
    alone, together = model(told(STORIES[1])), model(told(*STORIES))
    alike(alone[0, 0], together[1, 0])
    longer = Story(STORIES[0].sentences * 5, (), 2)  # no question at all
    alike(model(told(longer, *STORIES))[1:], together)
    assert bool(together.isfinite().all())


@pytest.mark.parametrize("name", EACH)
def test_questions_of_a_story_are_answered_as_one_by_one(name):
    model, (story, _) = made(name), STORIES
    together = model(told(story))[0]
    for number in range(3):
        alike(model(told(story.ask(number)))[0, 0], together[number])


@pytest.mark.parametrize("name", EACH)
def test_a_question_before_all_sentences_has_an_answer(name):
    model, first = made(name), STORIES[1].questions[0]
    nothing = Story((), (type(first)(first.words, first.answer, 0),))
    logits = model(told(nothing, STORIES[0]))
    assert bool(logits.isfinite().all())
    assert bool((logits[0, 0] - logits[0, 0].mean()).abs().max() > 1e-3)


@pytest.mark.parametrize("name", ["reader", "universal", "story_dnc", "memn2n"])
def test_the_order_of_words_is_known(name):
    model, (story, _) = made(name), STORIES
    asked = story.ask(0)
    turned = Story((asked.sentences[0][::-1], *asked.sentences[1:]), asked.questions)
    assert bool((model(told(asked)) - model(told(turned))).abs().max() > 1e-4)


@pytest.mark.parametrize("name", EACH)
def test_ten_times_the_rate_leaves_numbers(name):
    model, stories = made(name).float().train(), told(*STORIES)
    rule = torch.optim.AdamW(model.parameters(), 0.01)
    losses = []
    for step in range(20):
        torch.manual_seed(step)
        loss = torch.stack(list(Answer().loss(model, stories).values())).sum()
        rule.zero_grad()
        loss.backward()
        for path, parameter in model.named_parameters():
            assert parameter.grad is not None, path
            assert bool(parameter.grad.isfinite().all()), path
        rule.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
