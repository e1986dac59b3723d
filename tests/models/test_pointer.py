"""The pointer-generator: all at once it is what it is step by step; it copies; and what it reads is seen."""

import pytest
import torch
from torch.nn import functional

from recuerdo.models.pointer import PointerGenerator
from recuerdo.nn.decoding import beam, greedy
from recuerdo.read import watch

SOURCE = torch.tensor([[5, 6, 7, 8, 9, 2], [6, 6, 4, 2, 0, 0]])
TARGET = torch.tensor([[7, 8, 2], [4, 2, 0]])
TOLD = torch.tensor([[1, 7, 8], [1, 4, 0]])


@pytest.fixture(params=[True, False])
def model(request):
    torch.manual_seed(0)
    made = PointerGenerator(12, width=8, hidden=6, coverage=request.param, dropout=0.0)
    torch.nn.init.constant_(made.align.again, -2.0)
    return made.eval()


def step_by_step(model, source, told):
    said, found = model.begin(source), []
    for pieces in told.T:
        found.append(model.step(pieces, said))
    return torch.stack(found, 1)


def test_all_at_once_is_step_by_step(model):
    logs = step_by_step(model, SOURCE, TOLD)
    torch.testing.assert_close(logs.exp().sum(-1), torch.ones(2, 3))  # probabilities of all pieces
    there = TARGET != 0
    wanted = -logs.gather(2, TARGET[..., None])[..., 0][there].mean()
    torch.testing.assert_close(model.loss(SOURCE, TOLD, TARGET)["piece"], wanted)


def test_it_is_the_paper_s_equation_by_hand(model):
    """P = p softmax(logits) + (1 - p) a, of the first step, in plain torch."""
    with torch.no_grad(), watch(model) as seen:
        said = model.begin(SOURCE)
        words = model.piece(torch.tensor([[1], [1]]))
        state, _ = model.cell(words, said.state)
        logs = model.step(torch.tensor([1, 1]), said)
    weights = seen["align"].weights[:, :][:, 0]
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 1))
    assert (weights[1, 0, 4:] == 0).all()  # padding is not read
    there = torch.cat([words, state, weights @ said.states], -1)[:, 0]
    p = torch.sigmoid(model.share(there))
    made = functional.softmax(torch.tanh(model.out(there)) @ model.piece.weight.T, -1)
    wanted = p * made
    for row in range(2):
        for place, piece in enumerate(SOURCE[row].tolist()):
            wanted[row, piece] += (1 - p[row, 0]) * weights[row, 0, place]
    torch.testing.assert_close(logs.exp(), wanted)


def test_coverage_is_the_sum_of_what_was_read(model):
    with watch(model) as seen:
        model.loss(SOURCE, TOLD, TARGET)
    weights = seen["align"].weights[:, :][:, 0]
    said = model.begin(SOURCE)
    for at in range(3):
        torch.testing.assert_close(said.seen, weights[:, :at].sum(1), atol=1e-6, rtol=1e-5)
        model.step(TOLD[:, at], said)
    parts = model.loss(SOURCE, TOLD, TARGET)
    assert ("twice" in parts) == model.coverage
    if model.coverage:
        before = weights.cumsum(1) - weights
        wanted = torch.minimum(weights, before).sum(-1)[TARGET != 0].mean()
        torch.testing.assert_close(parts["twice"], wanted, atol=1e-6, rtol=1e-5)


def test_every_parameter_learns(model):
    model.train()
    sum(model.loss(SOURCE, TOLD, TARGET, smoothing=0.1).values()).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert idle == ([] if model.coverage else ["align.again"])
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_what_was_read_and_what_was_copied(model):
    weights = model.alignments(SOURCE, TARGET)["saying"]
    assert weights.shape == (2, 3, 6)
    copied = model.copying(SOURCE, TARGET)
    assert copied.shape == weights.shape
    assert (copied >= 0).all()
    assert (copied.sum(-1) <= 1 + 1e-6).all()
    assert (copied[SOURCE[:, None] != TARGET[..., None]] == 0).all()
    said = model.begin(SOURCE)
    for at in range(3):  # of what a step says: all that is not generated is given out as it was read
        likely = model.step(TOLD[:, at], said).exp().gather(1, TARGET[:, at, None])
        ways, stands = (
            model._ways(TOLD[:, : at + 1], model.begin(SOURCE)),
            (TARGET[:, at, None] == SOURCE) & (SOURCE != 0),
        )
        given = (likely * copied[:, at] / weights[:, at])[stands]
        wanted = (1 - ways.generated[:, -1:]).expand(-1, 6)[stands]
        torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-4)
    assert (model.copying(SOURCE, torch.full_like(TARGET, 11)) == 0).all()  # what does not stand there is not copied
    torch.nn.init.constant_(model.share.bias, -30.0)  # never generates
    lines = greedy(model, SOURCE, longest=5)
    assert all(set(line.pieces) <= set(row.tolist()) for line, row in zip(lines, SOURCE, strict=True))
    torch.testing.assert_close(model.copying(SOURCE, TARGET).sum(-1)[TARGET != 0], torch.ones(5))


def test_said_the_same_alone_and_among_others(model):
    together = beam(model, SOURCE, longest=6, width=3)
    alone = [beam(model, row[row != 0][None], longest=6, width=3)[0] for row in SOURCE]
    for one, two in zip(together, alone, strict=True):
        assert [line.pieces for line in one] == [line.pieces for line in two]


def test_it_learns_to_copy():
    """Say the two pieces behind piece 4 again: no generator of so few steps knows which."""
    torch.manual_seed(0)
    model = PointerGenerator(40, width=24, hidden=32, dropout=0.0, coverage=False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    draw = torch.Generator().manual_seed(0)

    def batch():
        source = torch.randint(5, 40, (64, 10), generator=draw)
        at = torch.randint(0, 7, (64,), generator=draw)
        source[torch.arange(64), at], source[:, -1] = 4, 2
        wanted = torch.stack([source[torch.arange(64), at + 1], source[torch.arange(64), at + 2]], 1)
        return source, torch.cat([wanted, torch.full((64, 1), 2)], 1)

    for _ in range(250):
        source, target = batch()
        loss = model.loss(source, functional.pad(target[:, :-1], (1, 0), value=1), target)["piece"]
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    source, target = batch()
    said = greedy(model.eval(), source, longest=5)
    right = sum(line.pieces == row[:2].tolist() for line, row in zip(said, target, strict=True))
    assert right >= 55
    assert model.copying(source, target)[:, :2].sum(-1).mean() > 0.5
