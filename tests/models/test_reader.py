"""What the reader promises. `tests/contracts/test_stories.py` has what all models of stories do."""

import pytest
import torch

from recuerdo.data.stories import PARTS, Encoder, Stories, Vocabulary, batch, parse
from recuerdo.errors import InputError
from recuerdo.models import reader as module
from recuerdo.models.reader import Heads, Reader, SentenceEncoder
from recuerdo.read import allow, bending, mute, read, watch
from recuerdo.read.mask import as_mask
from recuerdo.tasks.answer import Answer, said
from recuerdo.tasks.hops import over_sentences

STORIES = parse(
    "1 Mary went to the kitchen.\n2 John took the milk.\n3 Mary went to the garden.\n4 Where is Mary?\tgarden\t3\n"
    "5 John went to the office.\n6 Where is the milk?\toffice\t2 5\n"
    "1 Sandra took the apple and the milk.\n2 What is Sandra carrying?\tapple,milk\t1\n"
)
KNOWN = Vocabulary.of(STORIES)


def told() -> Stories:
    encoder = Encoder(KNOWN)
    return batch([encoder.encode(story) for story in STORIES])


def made(**rules) -> Reader:
    torch.manual_seed(0)
    sizes = {"width": 16, "steps": 2, "nearest": 2, "heads": 2, "size": 4} | rules
    model = Reader(len(KNOWN.words), len(KNOWN.answers), **sizes).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def test_an_answer_is_said_word_by_word():
    stories, model = told(), made()
    logits = model(stories)
    assert logits.shape == (2, 2, PARTS, len(KNOWN.words))
    taught = torch.full_like(logits, -9.0).scatter(-1, stories.parts[..., None], 9.0)
    assert bool(said(taught, stories).all())
    words = [KNOWN.words[i] for i in taught[1, 0].argmax(-1).tolist()]
    assert words == ["apple", "milk", "<pad>"]


def test_every_step_is_heard_and_nothing_is_read_before_it_was_told():
    stories, model = told(), made()
    with watch(model) as seen:
        model(stories)
    assert set(seen.paths) == {"encode", "look.nearest", "look.softmax"}
    for path in ("look.nearest", "look.softmax"):
        assert len(seen.steps(path)) == 2
        for reading in seen.steps(path):
            assert reading.shape == (2, 2, 4 + 2, 4)  # sentences, then questions; over sentences
            weights = reading.weights[:, :]
            for b in range(2):
                before = [0, 1, 2, 3, *stories.before[b].tolist()]
                for row, n in enumerate(before):
                    assert not weights[b, :, row, n:].any()
                    total = weights[b, :, row].sum(-1)
                    if path == "look.softmax":
                        torch.testing.assert_close(total, torch.full((2,), float(n > 0)).double())
                    assert bool((total < 1 + 1e-12).all())


def test_the_nearest_match_takes_what_it_wants_first():
    """By hand: from the last sentence back, each takes its share of what the later ones have left."""
    torch.manual_seed(0)
    heads = Heads(8, 2, 4, nearest=True).double()
    rows, sentences = torch.randn(1, 3, 8).double(), torch.randn(1, 5, 8).double()
    seen = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()
    with watch(torch.nn.ModuleDict({"heads": heads})) as heard:
        model_out = heads(rows, sentences, allow(seen[None, None]))
    out = torch.zeros(3, 8).double()
    for row in range(3):
        for head in range(2):
            query = heads.query(rows[0, row]).view(2, 4)[head]
            left = 1.0
            for j in reversed(range(5)):
                if not seen[row, j]:
                    continue
                key, value = heads.pair(sentences[0, j]).view(2, 2, 4)[:, head]
                take = torch.sigmoid(query @ key / 2 + heads.shift[head, 0, 0])
                out[row, 4 * head : 4 * head + 4] += left * take * value
                left = left * (1 - take)
    torch.testing.assert_close(model_out[0], heads.out(out))
    assert not heard.silent


def test_keys_start_as_queries_do():
    heads = Heads(8, 2, 4, nearest=False)
    x = torch.randn(8)
    difference = heads.query(x) - heads.pair(x)[:8] - heads.query.bias + heads.pair.bias[:8]
    torch.testing.assert_close(difference, torch.zeros(8))


def masked_reader(monkeypatch, hidden):
    """Every read over the sentences of a story is made without `hidden` [s]; those over words are as they were."""

    def without(query, key, value, *, mask=None, **rules):
        over_sentences = key.shape[2] == len(hidden) and query.shape[2] == len(hidden) + 2
        mask = as_mask(mask) & allow(~hidden) if over_sentences else mask
        return read(query, key, value, mask=mask, **rules)

    monkeypatch.setattr(module, "read", without)


def test_a_muted_sentence_is_as_if_nobody_could_read_it(monkeypatch):
    stories, model = told(), made(nearest=0)
    hidden = torch.tensor([False, True, False, False])
    plain = model(stories)
    with bending(model, lambda address, _: [mute(hidden)] if address.path == "look.softmax" else []):
        bent = model(stories)
    masked_reader(monkeypatch, hidden)
    torch.testing.assert_close(bent, model(stories))
    assert not torch.allclose(bent[0], plain[0])


def test_heads_of_the_nearest_match_leave_a_muted_sentence_out_and_look_as_much():
    stories, model = told(), made(steps=1)
    hidden = torch.tensor([False, True, False, False])
    with watch(model) as before:
        model(stories)
    with bending(model, lambda address, _: [mute(hidden)] if "nearest" in address.path else []), watch(model) as seen:
        model(stories)
    plain, bent = (x["look.nearest"].weights[:, :][0, :, 4:] for x in (before, seen))  # of the first story's questions
    assert not bent[..., 1].any()
    torch.testing.assert_close(bent.sum(-1), plain.sum(-1))
    ratio = bent[..., [0, 2]] / plain[..., [0, 2]]
    torch.testing.assert_close(ratio[..., 0], ratio[..., 1])


def test_a_question_recalls_what_was_told_before_it_by_linear_hops():
    stories, model = told(), made(recall=2)
    with watch(model) as seen:
        model(stories)
    assert set(seen.paths) == {"encode", "recall.hops.0", "recall.hops.1", "look.nearest", "look.softmax"}
    vectors = model.recall.encode(stories.words)
    for b, q in ((0, 0), (0, 1), (1, 0)):
        u = vectors[stories.question[b, q], 0]
        rows = stories.sentence[b, : stories.before[b, q]]
        for hop in range(2):
            weights = vectors[rows, hop] @ u
            heard = seen[f"recall.hops.{hop}"].weights[:, :][b, 0, q]
            torch.testing.assert_close(heard[: len(rows)], weights)
            assert not heard[len(rows) :].any()
            u = u + weights @ vectors[rows, hop + 1]
        expected = model.recall.out(model.recall.norm(u))
        mask = allow((torch.arange(4) < stories.before[..., None])[:, None])
        torch.testing.assert_close(model.recall(stories, mask)[b, q], expected)


def test_the_hops_of_recall_are_shown_as_parts_of_what_was_added_up_and_a_muted_sentence_has_none():
    stories, model = told(), made(recall=2)
    with watch(model) as seen:
        model(stories)
    maps = over_sentences(seen, stories)
    raw = seen["recall.hops.0"].weights[:, :][:, 0]
    torch.testing.assert_close(maps["recall.hops.0"][0], raw[0].abs() / raw[0].abs().sum(-1, keepdim=True))
    hidden = torch.tensor([True, False, False, False])
    with (
        bending(model, lambda address, _: [mute(hidden)] if address.path.startswith("recall") else []),
        watch(model) as seen,
    ):
        bent = model(stories)
    assert not over_sentences(seen, stories)["recall.hops.0"][..., 0].any()
    assert not torch.allclose(bent[0], model(stories)[0])


def test_a_marked_sentence_changes_the_answer():
    stories, model = told(), made()
    hidden = torch.tensor([True, False, False, False])
    with bending(model, lambda address, _: [mute(hidden)] if address.path.startswith("look") else []):
        bent = model(stories)
    assert not torch.allclose(bent[0, 0], model(stories)[0, 0])


def test_a_sentence_is_its_words_in_their_places():
    torch.manual_seed(0)
    encode = SentenceEncoder(9, 16, heads=4, pools=2, longest=6, dropout=0.0).double().eval()
    words = torch.tensor([[2, 3, 4, 0], [4, 3, 2, 0], [2, 3, 4, 5], [0, 0, 0, 0]])
    vectors = encode(words)
    assert not torch.allclose(vectors[0], vectors[1])
    assert not torch.allclose(vectors[0], vectors[2])
    torch.testing.assert_close(encode(words[:1, :3]), vectors[:1])  # padding counts nothing
    torch.testing.assert_close(encode(torch.tensor([[2, 3, 4, 0, 0, 0]])), vectors[:1])
    assert bool(vectors.isfinite().all())


@pytest.mark.parametrize("kinds", [{"nearest": 0, "heads": 2}, {"nearest": 2, "heads": 0}, {"dropout": 0.2}])
def test_everything_learns(kinds):
    stories, model = told(), made(**kinds).train()
    Answer().loss(model, stories)["answer"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


def test_errors():
    with pytest.raises(InputError, match="a reader needs at least 1 step and 1 head, not 0 and 8"):
        Reader(5, 3, steps=0)
    with pytest.raises(InputError, match="a reader needs at least 1 step and 1 head, not 6 and 0"):
        Reader(5, 3, nearest=0, heads=0)
