"""The task of answering: what comes when, what counts as right, what is seen, and what a mark does."""

import json
from itertools import islice

import pytest
import torch

from recuerdo.data.stories import Encoder, batch
from recuerdo.errors import InputError
from recuerdo.read import bending
from recuerdo.tasks.answer import MODELS, Answer, said, story_lines
from recuerdo.tasks.hops import heard, off_the_facts

STORY = "Mary moved to the bathroom. John went to the hallway. Mary went back to the garden."
SMALL = {
    "memn2n": {"width": 12},
    "key_value": {"width": 12},
    "entnet": {"width": 12, "slots": 4},
    "reader": {"width": 32, "steps": 2, "nearest": 1, "heads": 1, "size": 8},
}


def same(a, b) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("words", "sentence", "question", "answer"))


@pytest.mark.parametrize("given", [{}, {"lines": 120}, {"lines": 120, "names": "found", "again": (4,)}])
def test_a_batch_depends_on_seed_and_number_only(given):
    task = Answer("own", tasks=(1, 4), **given)
    first = list(islice(task.batches(seed=3), 120))  # more than one round
    for start in (1, 7, 110):
        assert same(next(Answer("own", tasks=(1, 4), **given).batches(seed=3, start=start)), first[start])
    assert not same(first[0], next(task.batches(seed=4)))


def test_a_round_brings_every_training_question_once():
    task = Answer("own", tasks=(1,), batch=50)
    stories = task._stories()
    questions = sum(len(story.questions) for story in stories)
    got = list(islice(task.batches(seed=0), -(-questions // 50)))
    assert sum(len(part) for part in got) == questions
    whole = Answer("own", tasks=(1,), lines=100)
    seen = 0
    for n, part in enumerate(whole.batches(seed=0)):
        seen += len(part)
        if seen >= questions:
            break
    assert seen == questions
    assert n > 5


def test_names_change_only_in_training_and_only_within_their_groups():
    task = Answer("own", tasks=(1,), lines=200, names="found")
    known, stories = task._vocabulary(), task._stories()
    plain = {tuple(story.sentences) for story in stories}
    told = next(task.batches(seed=0))
    rows = [tuple(tuple(known.words[w] for w in told.words[i] if w) for i in line if i) for line in told.sentence]
    assert sum(row in plain for row in rows) < len(rows) / 4
    assert all(task.check(Oracle(), "valid")[name] == 0 for name in ("error", "failed"))
    forms = {tuple(len(words) for words in story.sentences) for story in stories}
    assert all(tuple(map(len, row)) in forms for row in rows)


def test_some_stories_stay_the_same_and_are_half_of_what_comes(monkeypatch):
    monkeypatch.setattr("recuerdo.tasks.answer.SAME", 10)
    task = Answer("own", tasks=(1, 5), lines=200, names="found", same=(1,))
    known, stories = task._vocabulary(), task._stories()
    number = {task: sum(story.task == task for story in stories) for task in (1, 5)}
    lasting = {tuple(story.sentences) for story in [s for s in stories if s.task == 1][:10]}
    came = {1: [], 5: []}
    batches = task.batches(seed=0)
    while sum(map(len, came.values())) < 2 * number[1] + number[5]:
        told = next(batches)
        for line, which in zip(told.sentence, told.task[:, 0].tolist(), strict=True):
            came[which].append(tuple(tuple(known.words[w] for w in told.words[i] if w) for i in line if i))
    assert (len(came[1]), len(came[5])) == (2 * number[1], number[5])
    again = sum(row in lasting for row in came[1])
    assert number[1] <= again < 1.1 * number[1]  # one under other names may be one of them by chance
    with pytest.raises(InputError, match="beside names that are found"):
        Answer("own", tasks=(1,), same=(1,))


def test_a_whole_answer_gets_the_new_name_too():
    task = Answer("own", tasks=(1, 8), lines=200, names="found")
    known, batches = task._vocabulary(), list(islice(task.batches(seed=0), 20))
    told = [
        ("" if a < 0 else known.answers[a], ",".join(known.words[w] for w in parts if w))
        for stories in batches
        for a, parts in zip(stories.answer[stories.question > 0], stories.parts[stories.question > 0], strict=True)
    ]
    assert len({answer for answer, _ in told}) > 6
    assert all(answer == parts for answer, parts in told if answer)
    assert sum(not answer for answer, _ in told) < len(told) / 10  # a list that no training story has is no class


class Oracle(torch.nn.Module):
    """Knows the answers: logits of the parts from the batch itself."""

    def forward(self, stories):
        return 20.0 * torch.nn.functional.one_hot(stories.parts, 300).float()


def test_what_counts_as_wrong_and_as_solved():
    task = Answer("own", tasks=(1, 6), lines=200)
    right = task.check(Oracle(), "valid")
    assert (right["error"], right["failed"], right["task 1"], right["task 6"]) == (0.0, 0.0, 0.0, 0.0)

    class Stubborn(torch.nn.Module):
        def forward(self, stories):
            return torch.nn.functional.one_hot(torch.zeros_like(stories.answer), 9).float()

    answers = task._vocabulary().answers
    wrong = task.check(Stubborn(), "valid")
    valid = [q.answer for story in task._valid() for q in story.questions if story.task == 6]
    assert wrong["task 6"] == pytest.approx(100 * (1 - valid.count(answers[0]) / len(valid)))
    assert wrong["failed"] == 2
    assert wrong["error"] == pytest.approx((wrong["task 1"] + wrong["task 6"]) / 2)


def test_every_word_of_an_answer_counts():
    task = Answer("own", tasks=(8,), lines=200)
    stories = next(iter(task.split("valid")))
    logits = Oracle()(stories)
    several = (stories.parts > 0).sum(-1) > 1
    assert several.any()
    logits[..., 1, :] = logits[..., 1, :].roll(1, -1)
    there = stories.question > 0
    assert not said(logits, stories)[there].any()


@pytest.mark.parametrize("name", SMALL)
def test_every_model_learns_answers_and_is_seen(name):
    """Some steps bring the loss down; predict shows a weight for each sentence; a muted one gets none."""
    torch.manual_seed(0)
    task = Answer("own", tasks=(1,), batch=64, lines=200 if name == "reader" else 0)
    model = task.model(name, **SMALL[name])
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for stories in islice(task.batches(seed=0), 30 if name == "reader" else 200):
        loss = sum(task.loss(model, stories).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    model.eval()
    seen = task.predict(model, STORY, "Where is Mary?")
    assert len(seen.sentences) == 3
    assert sum(p for _, p in seen.chances) <= 1 + 1e-5
    if name == "entnet":  # it reads its slots, not the sentences
        assert seen.hops == ()
        with pytest.raises(InputError, match="EntNet does not read sentences: boost and mute cannot reach it"):
            task.predict(model, STORY, "Where is Mary?", mute=["mary went back to the garden"])
        return
    assert seen.hops
    assert all(len(hop.weights) == 3 for hop in seen.hops)
    steered = task.predict(model, STORY, "Where is Mary?", mute=["mary went back to the garden"])
    assert all(hop.weights[2] == 0 for hop in steered.hops)
    assert steered.before == seen
    assert steered.chances != seen.chances
    boosted = task.predict(model, STORY, "Where is Mary?", boost=["John went to the hallway."])
    assert boosted.totals()[1] > seen.totals()[1]


def test_slots_are_no_sentences_however_many_there_are():
    task = Answer("own", tasks=(1,))
    assert task.predict(task.model("entnet", width=12, slots=3), STORY, "Where is Mary?").hops == ()


@pytest.mark.parametrize("name", ["memn2n", "key_value", "reader", "universal"])
def test_a_mark_bends_the_hops_and_nothing_else(name, monkeypatch):
    """Six sentences whose longest has six words: the reads over words have as many keys as those over sentences."""
    story = "Mary went. " * 5 + "Mary went back to the garden."
    task = Answer("own", tasks=(1,), lines=200)
    torch.manual_seed(0)
    model = task.model(name, **SMALL.get(name, {"width": 32, "steps": 2})).eval()
    asked = []

    def spying(model, rule):
        def spy(address, reading):
            bends = rule(address, reading)
            asked.append((address.path, reading.shape[3], bool(bends)))
            return bends

        return bending(model, spy)

    monkeypatch.setattr("recuerdo.tasks.answer.bending", spying)
    task.predict(model, story, "Where is Mary?", mute=["Mary went back to the garden."])
    assert {keys for _, keys, _ in asked} == {6}
    assert all(bent == path.startswith(("hops.", "look")) for path, _, bent in asked)
    assert any(bent for _, _, bent in asked)


def test_hops_are_those_of_each_question_alone():
    task = Answer("own", tasks=(1,), lines=200)
    torch.manual_seed(1)
    model = task.model("reader", **SMALL["reader"]).eval()
    story = task._valid()[0]
    encoder = Encoder(task._vocabulary())
    together = heard(model, batch([encoder.encode(story)]))[1]
    for n, question in enumerate(story.questions):
        alone = heard(model, batch([encoder.encode(story.ask(n))]))[1]
        assert torch.allclose(together[:, 0, n, : question.before], alone[:, 0, 0], atol=1e-5)
        assert not together[:, 0, n, question.before :].any()


def test_evidence_is_counted_over_right_answers_of_solved_tasks():
    class Pointer(torch.nn.Module):
        """Answers rightly and reads the sentence of the first fact."""

        def forward(self, stories):
            from recuerdo.read import read

            first = stories.facts.float().argmax(-1)
            score = 50.0 * torch.nn.functional.one_hot(first, stories.facts.shape[-1]).float()
            value = torch.zeros(*stories.sentence.shape, 1)[:, None]
            self.look(score[:, None], read, value)
            return 20.0 * torch.nn.functional.one_hot(stories.parts, 300).float()

        def __init__(self):
            super().__init__()

            class Look(torch.nn.Module):
                def forward(self, score, read, value):
                    zero = torch.zeros(score.shape[0], 1, score.shape[2], 1)
                    return read(zero, torch.zeros_like(value), value, bias=score)

            self.look = Look()

    found = Answer("own", tasks=(1, 2), lines=200).evidence(Pointer(), "valid")
    assert found["task 1, one fact: most read"] == 100
    assert found["one fact: all among hops"] == 100
    assert found["two facts: most read"] == 100
    assert found["two facts: all among hops"] == 0


def test_the_loss_on_facts_is_the_distance_of_all_hops_together_from_equal_shares():
    stories = next(Answer("own", tasks=(1, 2), lines=200).split("valid"))
    facts = stories.facts.float()
    count = facts.sum(-1, keepdim=True)
    assert off_the_facts((facts / count.clamp_min(1))[None], stories).item() == pytest.approx(0, abs=1e-6)
    # Each of two facts at a hop of its own is as good; half of the reading elsewhere costs log 2; no facts, no loss.
    two = stories.facts.sum(-1) == 2
    stories.facts[~two] = False
    facts = stories.facts.float()
    first = torch.nn.functional.one_hot(facts.argmax(-1), facts.shape[-1]) * facts
    assert off_the_facts(torch.stack([first, facts - first]), stories).item() == pytest.approx(0, abs=1e-6)
    elsewhere = (~stories.facts).float() / (~stories.facts).sum(-1, keepdim=True)
    half = torch.stack([facts / 2, elsewhere])
    assert off_the_facts(half, stories).item() == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-5)
    stories.facts[:] = False
    assert off_the_facts(half, stories).item() == 0


def test_a_recipe_may_train_the_maps_on_the_facts():
    task = Answer("own", tasks=(1,), lines=200, facts=0.5)
    torch.manual_seed(0)
    model = task.model("reader", width=32, steps=2)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _, stories in zip(range(60), task.batches(seed=0), strict=False):
        parts = task.loss(model, stories)
        assert set(parts) == {"answer", "facts"}
        optimiser.zero_grad()
        sum(parts.values()).backward()
        optimiser.step()
        losses.append(float(parts["facts"].detach()))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    with pytest.raises(InputError, match="does not read sentences"):
        task.loss(task.model("entnet", width=8), stories)


def test_stories_as_people_write_them():
    assert story_lines("1 Mary moved.\n2 John went.\n3 Where is Mary?\tbathroom\t1\n") == ["Mary moved.", "John went."]
    assert story_lines("Mary moved. John went!\n\n") == ["Mary moved.", "John went!"]


def test_the_page_and_the_words():
    task = Answer("own", tasks=(1,), lines=200)
    torch.manual_seed(0)
    model = task.model("reader", **SMALL["reader"]).eval()
    found = task.predict(model, STORY + " <b>Zeus</b> left.", "Where is Mary?", boost=["John went to the hallway."])
    assert "words it never met: b, zeus" in found.text()
    assert "steered: boost: John went to the hallway." in found.text()
    assert "hop 2" in found.text()
    page = found.html()
    assert "&lt;b&gt;Zeus" in page
    assert "<b>Zeus" not in page
    assert json.loads(json.dumps(found.as_json()))["before"]["question"] == "Where is Mary?"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"size": "5k"}, "there is no size '5k' of stories: choose 1k, 10k, own"),
        ({"names": "new"}, "names are kept or found, not 'new'"),
        ({"tasks": (0,)}, r"tasks are numbers from 1 to 20, not \(0,\)"),
        ({"holdout": 1.0}, "holdout is above 0 and below 1, batch at least 1, lines and newest at least 0"),
        ({"tasks": (1,), "again": (2,)}, r"only tasks that are learned can come again, not \(2,\)"),
    ],
)
def test_what_cannot_be(given, words):
    with pytest.raises(InputError, match=words):
        Answer(**given)


def test_errors_of_asking(monkeypatch):
    task = Answer("own", tasks=(1,))
    model = task.model("memn2n", width=8)
    with pytest.raises(InputError, match="there is no model 'gpt' for stories: choose memn2n, key_value, entnet"):
        task.model("gpt")
    with pytest.raises(InputError, match="a story has at least one sentence, and a question at least one word"):
        task.predict(model, " ", "Where?")
    with pytest.raises(InputError, match=r"the story has no sentence 'Zeus left\.': give one as it stands there"):
        task.predict(model, STORY, "Where is Mary?", mute=["Zeus left."])
    with pytest.raises(InputError, match="is marked twice: boost it or mute it, once"):
        line = "John went to the hallway."
        task.predict(model, STORY, "Where is Mary?", mute=[line], boost=[line])
    with pytest.raises(InputError, match="all sentences are muted: leave one to be read"):
        task.predict(model, "Mary went home.", "Where is Mary?", mute=["mary went home"])
    monkeypatch.delenv("RECUERDO_DATA", raising=False)
    with pytest.raises(InputError, match="bAbI is needed and no folder of data is known"):
        next(Answer("1k").batches(seed=0))
    assert set(SMALL) <= set(MODELS)
