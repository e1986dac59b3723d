"""The reader of adaptive depth against its definition, written out sentence by sentence and question by question."""

import pytest
import torch
from torch.nn import functional as F

from recuerdo.data.stories import Encoder, Stories, Vocabulary, batch, parse
from recuerdo.errors import InputError
from recuerdo.models.universal import EAGER, Aged, Universal
from recuerdo.read import bending, mute, read, watch
from recuerdo.tasks.answer import Answer

STORIES = parse(
    "1 Mary went to the kitchen.\n2 John took the milk.\n3 Mary went to the garden.\n4 Where is Mary?\tgarden\t3\n"
    "5 John went to the office.\n6 Where is the milk?\toffice\t2 5\n"
    "1 Sandra took the apple there.\n2 What is Sandra carrying?\tapple\t1\n"
)
KNOWN = Vocabulary.of(STORIES)
ASKED = ((0, 0), (0, 1), (1, 0))


def told() -> Stories:
    encoder = Encoder(KNOWN)
    return batch([encoder.encode(story) for story in STORIES])


def made(steps=6, **rules) -> Universal:
    torch.manual_seed(1)
    model = Universal(len(KNOWN.words), len(KNOWN.answers), width=16, steps=steps, heads=2, ages=3, **rules).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        model.encode.words[0] = 0.0
    return model.eval()


def vector(model, words):
    return sum(model.encode.words[word] * model.encode.places[j] for j, word in enumerate(words.tolist()) if word)


def step_by_hand(model, rows, step, hide):
    """Rows are pairs (state, how many sentences stand before it); the first ones are the sentences themselves."""
    look, out = model.look, []
    normed = [model.norm_read(x + step) for x, _ in rows]
    for (x, before), y in zip(rows, normed, strict=True):
        found = []
        for head in range(2):
            at, seen = slice(8 * head, 8 * head + 8), [j for j in range(before) if j != hide]
            query = look.query(y)[at]
            scores = [query @ look.pair(normed[j])[at] / 8**0.5 + look.ages[head, min(before - 1 - j, 2)] for j in seen]
            values = [look.pair(normed[j])[16:][at] for j in seen]
            weights = torch.softmax(torch.stack(scores), 0) if seen else []
            found.append(sum((w * v for w, v in zip(weights, values, strict=True)), torch.zeros(8).double()))
        x = x + look.out(torch.cat(found))
        out.append((x + model.think(model.norm_think(x)), before))
    return out


def by_hand(model, stories, b, q, hide=None):
    """(logits, steps, what was left) of one question."""
    before = int(stories.before[b, q])
    rows = [(vector(model, stories.words[stories.sentence[b, i]]), i) for i in range(before)]
    rows.append((vector(model, stories.words[stories.question[b, q]]) + model.asked, before))
    spent, found = 0.0, 0.0
    for n, step in enumerate(model.step, 1):
        rows = step_by_hand(model, rows, step, hide)
        state = model.norm_say(rows[-1][0])
        stop = torch.sigmoid(model.stop(state)).item()
        if spent + stop >= 0.99 or n == len(model.step):
            return model.say(found + (1 - spent) * state), n, 1 - spent
        spent, found = spent + stop, found + stop * state
    raise AssertionError


@pytest.mark.parametrize("most", [2, 6])
def test_every_question_is_answered_as_it_is_defined(most):
    stories, model = told(), made(steps=most)
    logits = model(stories)
    steps = []
    for b, q in ASKED:
        expected, n, _ = by_hand(model, stories, b, q)
        torch.testing.assert_close(logits[b, q], expected)
        steps.append(n)
    assert model.ponder == pytest.approx(sum(steps) / 3)
    assert steps == [2, 2, 2] if most == 2 else len(set(steps)) == 3  # so each stops by itself


def test_the_cost_is_that_of_the_paper_and_teaches_to_stop():
    stories, model = told(), made(cost=0.3).train()
    parts = Answer().loss(model, stories)
    spent = [by_hand(model, stories, b, q)[1:] for b, q in ASKED]
    assert parts["ponder"].item() == pytest.approx(0.3 * sum(n + rest for n, rest in spent) / 3)
    assert set(parts) == {"answer", "ponder"}
    parts["ponder"].backward()
    assert model.stop.bias.grad.item() < 0  # along the negative gradient: stop sooner
    model.eval()(stories)
    assert set(Answer().loss(model, stories)) == {"answer"}
    assert model.extra == {}


def test_dear_steps_are_few_and_the_limit_holds():
    stories, model = told(), made(steps=8, cost=0.5).train()
    model(stories)
    before = model.ponder
    rule = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        rule.zero_grad()
        model(stories)
        if model.ponder == 1:
            break  # one step is what it costs at least: nothing is left to learn
        model.extra["ponder"].backward()
        rule.step()
    assert model.ponder < before - 1
    with torch.no_grad():
        model.stop.bias.fill_(-50.0)
        model(stories)
    assert model.ponder == 8


def test_it_starts_at_four_steps():
    assert 4 * torch.tensor(EAGER).sigmoid() >= 0.99 > 3 * torch.tensor(EAGER).sigmoid()


def test_every_step_is_heard_and_a_question_that_stopped_reads_nothing():
    stories, model = told(), made()
    with watch(model) as seen:
        model(stories)
    steps = {(b, q): by_hand(model, stories, b, q)[1] for b, q in ASKED}
    most = max(steps.values())
    assert seen.paths == ["look"]
    assert [str(address) for address in seen] == [f"look@{n}" for n in range(most)]
    assert seen["look@0"].shape == (2, 2, 4 + 2, 4)  # heads; sentences and then questions; over sentences
    for n in range(most):
        weights = seen[f"look@{n}"].weights[:, :]
        for b, q in ASKED:
            row, before = weights[b, :, 4 + q], int(stories.before[b, q])
            torch.testing.assert_close(row.sum(-1), torch.full((2,), float(n < steps[b, q])).double())
            assert not row[:, before:].any()


def test_a_muted_sentence_is_as_if_nobody_could_read_it():
    stories, model = told(), made()
    with bending(model, lambda address, reading: [mute(torch.tensor([False, True, False, False]))]):
        bent = model(stories)
    for q in (0, 1):
        torch.testing.assert_close(bent[0, q], by_hand(model, stories, 0, q, hide=1)[0])
        assert bool((bent[0, q] - by_hand(model, stories, 0, q)[0]).abs().max() > 1e-4)
    torch.testing.assert_close(bent[1], model(stories)[1])  # it has one sentence only, which is another


def test_the_bias_of_a_rectangle_is_that_of_its_ages():
    table, before = torch.randn(2, 3), torch.tensor([[0, 1, 5], [2, 2, 7]])
    query, key, value = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 6, 4), torch.randn(2, 2, 6, 4)
    ages = (before[..., None] - 1 - torch.arange(6)).clamp(0, 2)
    written = torch.stack([torch.stack([head[a] for head in table]) for a in ages])  # [b, h, q, k]
    expected = read(query, key, value, bias=written, path="plain")
    for path in ("matmul", "tiled", "plain"):
        found = read(query, key, value, bias=Aged(table, before), path=path)
        torch.testing.assert_close(found.mixed, expected.mixed)
        torch.testing.assert_close(found.weights[1:, 2:5], expected.weights[1:, 2:5])


def test_everything_learns_and_padding_does_not():
    stories, model = told(), made().train()
    (F.cross_entropy(model(stories)[0], stories.answer[0]) + model.extra["ponder"]).backward()
    for name, parameter in model.named_parameters():
        assert float(parameter.grad.abs().max()) > 0, name
    assert float(model.encode.words.grad[0].abs().max()) == 0


def test_errors():
    with pytest.raises(InputError, match="makes at least 1 step at a cost of 0 or more, not 0 at 0.01"):
        Universal(5, 3, steps=0)
    with pytest.raises(InputError, match="at least 1 step at a cost of 0 or more, not 8 at -1"):
        Universal(5, 3, cost=-1)
    with pytest.raises(InputError, match="5 heads do not divide a width of 128"):
        Universal(5, 3, heads=5)
