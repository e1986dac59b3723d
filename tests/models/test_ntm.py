"""The NTM against the equations of its paper, and what every memory must keep to."""

import pytest
import torch
from torch.nn import functional as F

from recuerdo.errors import InputError
from recuerdo.models.lstm import LSTM
from recuerdo.models.ntm import EMPTY, NTM
from recuerdo.read import Share, bending, watch


def ntm(seed=0, memory=(6, 4, 2), **arguments):
    torch.manual_seed(seed)
    return NTM(3, 2, hidden=8, memory=memory, **arguments).double()


def x(batch=2, steps=7, seed=1):
    return torch.randn(batch, steps, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(order, memory, before):
    """One step of one sequence, head by head: the memory after, the places, and what was read."""
    key, strength, share, power, kernel, erase, value = order
    places = []
    for h in range(len(before)):
        likeness = F.cosine_similarity(key[h][None], memory, dim=-1)
        found = share[h] * torch.softmax(strength[h] * likeness, 0) + (1 - share[h]) * before[h]
        moved = sum(kernel[h, j + 1] * found.roll(j) for j in (-1, 0, 1))
        places.append(moved ** power[h] / (moved ** power[h]).sum())
    write = places[-1]
    memory = memory * (1 - write[:, None] * erase[None]) + write[:, None] * value[None]
    return memory, places, torch.cat([place @ memory for place in places[:-1]])


@torch.no_grad()
def test_a_step_is_that_of_the_paper():
    model, steps = ntm(feedback=False), x()
    torch.nn.init.normal_(model.interface.weight)
    hidden = model.controller(steps)[0]
    orders, out = model._orders(hidden), model(steps)
    for b in range(2):
        memory = torch.full((6, 4), EMPTY).double()
        before = [F.one_hot(torch.tensor(0), 6).double()] * 3
        for t in range(7):
            memory, before, read = by_hand([part[b, t] for part in orders], memory, before)
            wanted = model.output(torch.cat([hidden[b, t], read]))
            torch.testing.assert_close(out[b, t], wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("feedback", [True, False])
@torch.no_grad()
def test_every_sequence_starts_afresh_and_alone(feedback):
    model, steps = ntm(feedback=feedback), x(batch=3)
    once = model(steps)
    assert once.shape == (3, 7, 2)
    assert torch.equal(model(steps), once)
    torch.testing.assert_close(torch.cat([model(one[None]) for one in steps]), once)
    torch.testing.assert_close(model(steps[:, :4]), once[:, :4])


def test_reads_and_writes_have_addresses_and_looking_changes_nothing():
    model, steps = ntm(), x()
    plain = model(steps)
    with watch(model) as seen:
        assert torch.equal(model(steps), plain)
    assert seen.paths == ["write", "read"]
    assert seen["read@6:1"].shape == (2, 2, 1, 6)
    torch.testing.assert_close(seen["read@6"].weights[:, :].sum(-1), torch.ones(2, 2, 1).double())


@torch.no_grad()
def test_steering_a_read_changes_what_comes_out_and_where_the_head_goes_on():
    model, steps, third = ntm(), x(), torch.arange(6) == 3
    plain = model(steps)

    def rule(address, reading):
        return [Share(third, 1.0)] if (address.path, address.step) == ("read", 3) else []

    with bending(model, rule):
        bent = model(steps)
    assert torch.equal(bent[:, :3], plain[:, :3])
    assert (bent[:, 4:] - plain[:, 4:]).abs().max() > 1e-4


@torch.no_grad()
def test_half_precision_around_it_changes_nothing():
    model, steps = ntm().float(), x().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(steps), ntm().float()(steps))
        narrow = model(steps.bfloat16())
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow, model(steps.bfloat16().float()))


def test_gradients_are_finite_after_hundred_steps_and_reach_all_parameters():
    model = ntm().float()
    model(100 * x(steps=100).float()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert bool(parameter.grad.isfinite().all()), name
        assert parameter.grad.abs().max() > 0, name


def test_what_cannot_be_built_is_said():
    with pytest.raises(InputError, match=r"an NTM needs sizes of 1 or more, not hidden=0, memory=\(6, 4, 1\)"):
        NTM(3, 2, hidden=0, memory=(6, 4, 1))
    for shifts in (2, 7, 0):
        with pytest.raises(InputError, match=f"shifts are an odd number.*not {shifts}"):
            NTM(3, 2, memory=(6, 4, 1), shifts=shifts)


def test_the_baseline_is_an_lstm():
    assert LSTM(3, 2, hidden=8)(x().float()).shape == (2, 7, 2)
    with pytest.raises(InputError, match="an LSTM needs sizes of 1 or more, not hidden=8, layers=0"):
        LSTM(3, 2, hidden=8, layers=0)
