"""The captioner: step by step and all at once are one, each kind of attention takes what it says, and what is muted is
not known."""

import pytest
import torch
from torch.nn import functional

from recuerdo.errors import InputError, ShapeError
from recuerdo.models.captioner import Captioner
from recuerdo.nn.decoding import beam, greedy
from recuerdo.nn.grid import Convolved, covered, whereabouts, within
from recuerdo.read import bending, mute, watch

PIECES = 30


def made(features=0, **told):
    torch.manual_seed(0)
    return Captioner(PIECES, features, width=16, hidden=24, **told).eval()


def asked(features=0):
    torch.manual_seed(1)
    pictures = torch.rand(3, 4, 5, features) if features else torch.randint(0, 256, (3, 3, 32, 40)).byte()
    target = torch.randint(3, PIECES, (3, 6))
    target[1, 4:] = 0
    told = functional.pad(target[:, :-1], (1, 0), value=1).masked_fill(target == 0, 0)
    return pictures, told, target


@pytest.mark.parametrize("attention", ["soft", "hard", "none"])
@pytest.mark.parametrize("features", [0, 7])
def test_step_by_step_is_all_at_once(attention, features):
    model, (pictures, told, target) = made(features, attention=attention), asked(features)
    logits = model(pictures, told)
    said, each = model.begin(pictures), []
    for piece in told.unbind(1):
        each.append(model.step(piece, said))
    assert torch.allclose(torch.stack(each, 1)[told != 0], logits, atol=1e-5)
    loss = model.loss(pictures, told, target)["piece"]
    assert torch.allclose(loss, functional.cross_entropy(logits, target[target != 0]), atol=1e-5)


@pytest.mark.parametrize("attention", ["soft", "hard", "none"])
def test_ways_of_a_beam_are_the_same_caption(attention):
    model, (pictures, _, _) = made(attention=attention), asked()
    one = greedy(model, pictures, longest=7)
    assert [lines[0].pieces for lines in beam(model, pictures, longest=7, width=1)] == [line.pieces for line in one]
    wide = beam(model, pictures, longest=7, width=4)
    assert all(lines[0].score >= line.score - 1e-5 for lines, line in zip(wide, one, strict=True))
    alone = [beam(model, picture[None], longest=7, width=4)[0][0].pieces for picture in pictures]
    assert [lines[0].pieces for lines in wide] == alone


def test_a_sharp_look_is_the_power_of_its_weights_and_only_outside_of_training():
    plain, sharp, (pictures, told, _) = made(7), made(7, sharp=4.0), asked(7)
    with watch(plain) as one, watch(sharp) as two:
        plain(pictures, told[:, :1])
        sharp(pictures, told[:, :1])
    wide, narrow = (seen["look@0"].weights[:, :][:, 0, 0] for seen in (one, two))
    assert torch.allclose(narrow, wide**4 / (wide**4).sum(-1, keepdim=True), atol=1e-6)
    assert torch.equal(one["overview"].weights[:, :], two["overview"].weights[:, :])
    plain, sharp = (Captioner.train(model) for model in (made(7, dropout=0.0), made(7, dropout=0.0, sharp=4.0)))
    assert torch.equal(plain(pictures, told), sharp(pictures, told))


def test_a_soft_look_is_the_equation():
    """Against the formulas of the file's head, written out."""
    model, (pictures, told, _) = made(7), asked(7)
    with watch(model) as seen:
        logits = model(pictures, told)
    cells = model.norm(model.see(pictures) + model.where(whereabouts(4, 5, pictures))).flatten(1, 2)
    keys = model.key(cells)

    def read(query, score):
        return (torch.tanh(score.query(query)[:, None] + keys) @ score.vector).softmax(-1)

    first = (read(model.wanted.expand(3, -1), model.overview.score)[..., None] * cells).sum(1)
    state, memory = torch.tanh(model.first(first)).chunk(2, -1)
    mixed, rows = first, []
    for i, piece in enumerate(told.unbind(1)):
        word = model.piece(piece)
        state, memory = model.cell(torch.cat([word, mixed], -1), (state, memory))
        weights = read(state, model.look.score)
        assert torch.allclose(seen[f"look@{i}"].weights[:, :][:, 0, 0], weights, atol=1e-5)
        mixed = torch.sigmoid(model.gate(state)) * (weights[..., None] * cells).sum(1)
        rows.append(torch.tanh(model.out(torch.cat([word, state, mixed], -1))) @ model.table.T)
    assert torch.allclose(torch.stack(rows, 1)[told != 0], logits, atol=1e-5)
    assert list(seen)[0] == "overview"


def test_a_hard_look_takes_one_cell_the_likeliest_or_drawn():
    model, (pictures, told, target) = made(7, attention="hard"), asked(7)
    said = model.begin(pictures)
    look = model._look(said.state[0], said)
    best = look.weights.argmax(-1)
    assert torch.equal(look.mixed, said.values[:, 0][torch.arange(3), best])
    model.train()
    torch.manual_seed(0)
    drawn = [model._look(said.state[0], said) for _ in range(60)]
    cells = said.values[:, 0]
    taken = {int((cells[0] == one.mixed[0]).all(-1).nonzero()[0]) for one in drawn}
    assert len(taken) > 5
    parts = model.loss(pictures, told, target)
    assert set(parts) == {"piece", "looks", "baseline"}
    sum(parts.values()).backward()
    assert model.look.score is not model.overview.score
    assert all(p.grad is not None for name, p in model.named_parameters() if name.startswith("look"))


def test_an_even_look_costs_what_the_paper_says():
    model, (pictures, told, target) = made(7, evenly=0.5), asked(7)
    parts = model.loss(pictures, told, target)
    weights = model.alignments(pictures, target)["saying"] * (target != 0)[..., None]
    assert torch.allclose(parts["evenly"], 0.5 * (1 - weights.sum(1)).square().mean(), atol=1e-6)


@pytest.mark.parametrize("attention", ["soft", "hard"])
def test_what_is_muted_is_not_known(attention):
    """Given cells that are muted in all reads, nothing of the caption depends on them."""
    model, (pictures, told, _) = made(7, attention=attention), asked(7)
    out = within((0.0, 0.0, 0.5, 1.0), 4, 5)
    changed = pictures.clone()
    changed.view(3, 20, 7)[:, out] = 9.0
    with bending(model, lambda *_: [mute(out)]):
        assert torch.allclose(model(changed, told), model(pictures, told), atol=1e-6)
    assert not torch.allclose(model(changed, told), model(pictures, told), atol=1e-3)


def test_a_cell_of_the_convolutions_knows_31_pixels():
    torch.manual_seed(0)
    see, picture = Convolved(16), torch.randint(0, 256, (1, 3, 80, 80)).float().requires_grad_()
    cells = see(picture)
    assert cells.shape == (1, 10, 10, 16)
    (slope,) = torch.autograd.grad(cells[0, 5, 4].sum(), picture)
    down, across = slope[0].abs().sum(0).nonzero().unbind(1)
    assert (down.min(), down.max(), across.min(), across.max()) == (25, 55, 17, 47)


def test_boxes_are_cells():
    assert within((0.0, 0.5, 0.5, 1.0), 2, 4).tolist() == [False] * 4 + [True, True, False, False]
    assert within((0.0, 0.0, 0.01, 0.01), 2, 2).tolist() == [True, False, False, False]
    assert covered(0.0, 1.0, 3).all()


def test_what_cannot_be_is_told():
    with pytest.raises(InputError, match="there is no attention 'firm' of captions: choose soft, hard, none"):
        Captioner(PIECES, attention="firm")
    with pytest.raises(InputError, match="width and hidden are 4 or more; features and evenly are 0 or more"):
        Captioner(PIECES, evenly=-1.0)
    with pytest.raises(InputError, match="and evenly are 0 or more; sharp is above 0"):
        Captioner(PIECES, sharp=0.0)
    with pytest.raises(ShapeError, match=r"cells are \[b, rows, columns, 7\], not \(2, 3, 8, 8\)"):
        made(7).begin(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ShapeError, match=r"pictures are \[b, 3, height, width\], 8 pixels or more, not \(2, 3, 8, 7\)"):
        made().begin(torch.zeros(2, 3, 8, 7))
    assert made(attention="none").alignments(*asked()[::2]) == {}
