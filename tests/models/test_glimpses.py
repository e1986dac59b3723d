"""Several glimpses at several things: the same picture gives the same reads, what is shown is what was seen, and a
muted cell is looked at by no glimpse."""

import pytest
import torch

from recuerdo.errors import InputError, ShapeError
from recuerdo.models.glimpses import Glimpses
from recuerdo.nn.retina import Ground
from recuerdo.read import bending, mute, watch

SMALL = {"looks": 2, "size": 6, "scales": 2, "width": 8, "hidden": 16}


def made(**told):
    torch.manual_seed(0)
    return Glimpses(10, 3, **{**SMALL, **told}).eval()


def pictures(b=4, height=50, width=60):
    torch.manual_seed(1)
    return torch.randint(0, 256, (b, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("drawn", [False, True])
def test_every_look_has_its_place_and_its_weights(drawn):
    model, told = made(), pictures()
    with watch(model) as seen:
        reads = model(told, drawn=drawn)
    rows, columns = model.grid(told)
    assert (rows, columns) == (7, 8)
    assert reads.logits.shape == (4, 3, 2, 11)
    assert reads.places.shape == (4, 3, 2, 2)
    assert reads.weights.shape == (4, 3, 2, rows * columns)
    assert torch.allclose(reads.weights.sum(-1), torch.ones(4, 3, 2), atol=1e-5)
    assert list(seen) == [f"where@{i}" for i in range(6)]
    for i, path in enumerate(seen):
        assert torch.allclose(seen[path].weights[:, :][:, 0, 0], reads.weights[:, i // 2, i % 2])
    down, across = (0.5 * (reads.places + 1)).unbind(-1)
    cell = (down * rows).long() * columns + (across * columns).long()
    chosen = reads.weights.gather(-1, cell[..., None])[..., 0]
    assert torch.allclose(chosen.log(), reads.log_probs, atol=1e-5)
    if not drawn:
        assert torch.equal(chosen, reads.weights.amax(-1))


def test_the_same_picture_is_read_the_same_alone_and_among_others():
    model, told = made(), pictures()
    reads = model(told)
    for i in range(4):
        assert torch.allclose(model(told[i : i + 1]).logits[0], reads.logits[i], atol=1e-5)
    assert torch.allclose(model(told.float()).logits, reads.logits)


def test_sharp_pixels_come_from_glimpses_alone():
    """Pixels outside of all glimpses reach the answers as means of 4 x 4 only: to turn such a square around changes
    nothing."""
    model, told = made(), pictures(1, 64, 64)
    reads = model(told)
    seen = torch.zeros(64, 64, dtype=torch.bool)
    for down, across in Ground(told, 12).middle(reads.places.view(-1, 2)).tolist():
        seen[max(0, down - 6) : down + 6, max(0, across - 6) : across + 6] = True
    squares = seen.view(16, 4, 16, 4).any(3).any(1)
    changed = told.clone()
    for i, j in (~squares).nonzero().tolist():
        part = changed[0, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
        changed[0, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = part.flip(0, 1).clone()
    assert not torch.equal(changed, told)
    assert torch.allclose(model(changed).logits, reads.logits, atol=1e-5)


def test_a_muted_cell_is_looked_at_by_no_glimpse():
    model, told = made(), pictures(2)
    rows, columns = model.grid(told)
    out = torch.zeros(rows, columns, dtype=torch.bool)
    out[:, : columns // 2] = True
    with bending(model, lambda _, reading: [mute(out.flatten())]):
        reads = model(told)
        drawn = [model(told, drawn=True).places for _ in range(5)]
    assert reads.weights[..., out.flatten()].max() == 0
    assert min(float(places[..., 1].min()) for places in (reads.places, *drawn)) > -0.2


def test_gradients_reach_every_parameter():
    model, told = made().train(), pictures()
    reads = model(told, drawn=True)
    (reads.logits.sum() + reads.log_probs.sum() + reads.baselines.sum()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_what_cannot_be_is_told():
    with pytest.raises(InputError, match="classes, answers, looks, size, scales, width and hidden are 1 or more"):
        made(looks=0)
    with pytest.raises(ShapeError, match=r"pictures are \[b, height, width\], one pixel or more each, not \(3, 4\)"):
        made()(torch.zeros(3, 4))
