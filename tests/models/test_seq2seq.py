"""The recurrent translator: piece by piece it is what it is all at once, and its parts are those of torch."""

import pytest
import torch

from recuerdo.errors import InputError
from recuerdo.models.seq2seq import ATTENTIONS, Seq2Seq
from recuerdo.read import watch

SOURCE = torch.tensor([[5, 6, 7, 8, 2], [9, 5, 2, 0, 0]])
TOLD = torch.tensor([[1, 10, 11, 12], [1, 13, 0, 0]])
KINDS = [
    {"attention": "none"},
    {"attention": "none", "cell": "lstm"},
    *({"attention": name} for name in ATTENTIONS),
    {"attention": "additive", "cell": "lstm"},
    {"attention": "general", "feeding": False},
    {"attention": "dot", "feeding": False, "cell": "lstm"},
]


def made(**more):
    torch.manual_seed(0)
    return Seq2Seq(20, width=6, hidden=8, dropout=0.0, **more).eval()


@pytest.mark.parametrize("more", KINDS, ids=str)
def test_said_piece_by_piece_it_is_the_same(more):
    model = made(**more)
    with torch.no_grad():
        whole, said = model(SOURCE, TOLD), model.begin(SOURCE)
        each = torch.stack([model.step(TOLD[:, i], said) for i in range(4)], 1)
        torch.testing.assert_close(each[TOLD > 0], whole, atol=1e-5, rtol=1e-5)
        said = model.begin(SOURCE)
        model.step(TOLD[:, 0], said)
        rows = torch.tensor([1, 0, 1])
        torch.testing.assert_close(model.step(TOLD[rows, 1], said.take(rows)), each[rows, 1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("more", KINDS, ids=str)
def test_padding_changes_nothing_and_gradients_reach_all(more):
    model = made(**more)
    whole = model(SOURCE, TOLD)
    torch.testing.assert_close(whole[4:], model(SOURCE[1:, :3], TOLD[1:, :2]), atol=1e-5, rtol=1e-5)
    whole.square().sum().backward()
    silent = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert silent <= ({"key.weight"} if more["attention"] == "none" else set())


@pytest.mark.parametrize("more", KINDS, ids=str)
def test_what_was_read_is_seen(more):
    model = made(**more)
    maps = model.alignments(SOURCE, torch.tensor([[10, 11, 12, 2], [13, 2, 0, 0]]))
    if more["attention"] == "none":
        assert maps == {}
        return
    weights = maps["saying"]
    assert weights.shape == (2, 4, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4))
    assert not weights[1, :, 3:].any()
    with torch.no_grad(), watch(model) as seen:
        model.hear(SOURCE, TOLD)
    assert all(str(place).startswith("align") for place in seen)
    assert len(seen) == (4 if model.feeding else 1)


def test_additive_attention_is_that_of_the_paper():
    model = made()
    with torch.no_grad():
        said = model.begin(SOURCE)
        score = model.align.score
        state = said.state[0][0]
        energy = torch.tanh(score.query(state)[:, None] + model.key(said.states)) @ score.vector
        weights = energy.masked_fill(SOURCE == 0, -torch.inf).softmax(-1)
        mixed = (weights[:, None] @ said.states)[:, 0]
        word = model.piece(TOLD[:, 0])
        after, _ = model.cell(torch.cat([word, mixed], -1)[:, None], state[None])
        right = torch.tanh(model.out(torch.cat([word, after[:, 0], mixed], -1))) @ model.piece.weight.T
        torch.testing.assert_close(model.step(TOLD[:, 0], said), right, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.alignments(SOURCE, TOLD)["saying"][:, 0], weights, atol=1e-5, rtol=1e-5)


def test_without_attention_the_source_is_one_vector():
    """Sources that differ only in what their states are, not in where they end, cannot be told apart."""
    model = made(attention="none")
    with torch.no_grad():
        said, other = model.begin(SOURCE), model.begin(SOURCE)
        other.states = torch.randn_like(other.states)
        other.keys = torch.randn_like(other.keys)
        torch.testing.assert_close(model.step(TOLD[:, 0], said), model.step(TOLD[:, 0], other))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"attention": "hard"}, "there is no attention 'hard': choose additive, general, dot, location or none"),
        ({"cell": "rnn"}, "there is no cell 'rnn': choose gru or lstm"),
        ({"attention": "location", "feeding": False}, "location-aware attention goes step by step"),
    ],
)
def test_what_there_is_not(more, words):
    with pytest.raises(InputError, match=words):
        made(**more)


@pytest.mark.parametrize("more", KINDS, ids=str)
def test_products_may_be_in_bfloat16(more):
    """As recipes train it: near what it says in float32, with a gradient everywhere."""
    model = made(**more)
    with torch.no_grad():
        exact = model.hear(SOURCE, TOLD)
    with torch.autocast("cpu", torch.bfloat16):
        states = model.hear(SOURCE, TOLD)
        with torch.no_grad():
            said = model.begin(SOURCE)
            assert model.step(TOLD[:, 0], said).isfinite().all()
    torch.testing.assert_close(states.float(), exact, atol=0.05, rtol=0)
    states.float().sum().backward()
    assert all(
        p.grad.isfinite().all() and p.grad.any() for part in (model.encoder, model.out) for p in part.parameters()
    )


@pytest.mark.parametrize("more", [{"attention": "additive"}, {"attention": "general", "feeding": False}], ids=str)
def test_what_is_guided_is_what_is_read(more):
    model = made(**more)
    states, weights = model.guided(SOURCE, TOLD)
    torch.testing.assert_close(states, model.hear(SOURCE, TOLD))
    target = torch.tensor([[10, 11, 12, 2], [13, 2, 0, 0]])
    wanted = model.alignments(SOURCE, target)["saying"]
    torch.testing.assert_close(weights[0], wanted[0, :3])
    torch.testing.assert_close(weights[1, :1], wanted[1, :1])
    weights[..., 0].sum().backward()
    assert model.key.weight.grad.abs().sum() > 0


def test_what_cannot_be_guided():
    with pytest.raises(InputError, match="has no attention that could be guided: leave guided at 0"):
        made(attention="none").guided(SOURCE, TOLD)
