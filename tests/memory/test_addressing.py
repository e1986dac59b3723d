"""Addressing against the sums that the papers write, slot by slot."""

import math

import pytest
import torch
from torch.nn import functional as F

from recuerdo.memory.addressing import (
    allocation,
    content,
    cosine,
    gate,
    overwrite,
    retention,
    sharpen,
    sharpen_order,
    shift,
    strength,
    used,
)


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def places(*shape, seed=0):
    return torch.softmax(2 * randn(*shape, seed=seed), -1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_cosine_is_that_of_masked_keys_with_masked_rows(masked, known):
    memory, key = randn(2, 7, 5), randn(2, 3, 5, seed=1)
    mask = rand(2, 3, 5, seed=2) if masked else None
    found = cosine(memory, key, mask, memory.square() if known else None)
    m = torch.ones(2, 3, 5) if mask is None else mask
    wanted = F.cosine_similarity((key * m)[:, :, None], memory[:, None] * m[:, :, None], dim=-1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_content_is_the_softmax_of_sharp_cosines():
    memory, key, sharp = randn(2, 7, 5), randn(2, 3, 5, seed=1), 1 + 9 * rand(2, 3, seed=2)
    wanted = torch.softmax(F.cosine_similarity(key[:, :, None], memory[:, None], dim=-1) * sharp[..., None], -1)
    torch.testing.assert_close(content(memory, key, sharp), wanted, rtol=1e-4, atol=1e-5)


def test_a_mask_hides_what_the_key_asks_for():
    memory = torch.tensor([[[1.0, 0.0, 5.0, -3.0], [0.0, 1.0, 0.1, 0.2]]])
    key, half = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]), torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    assert cosine(memory, key, half)[0, 0].tolist() == pytest.approx([1.0, 0.0], abs=1e-5)
    assert cosine(memory, key)[0, 0, 0] < 0.2


@pytest.mark.parametrize("zero", ["memory", "key", "mask", "all"])
def test_zeros_have_finite_weights_and_gradients(zero):
    given = {"memory": randn(1, 4, 3), "key": randn(1, 2, 3), "mask": rand(1, 2, 3)}
    parts = {n: torch.zeros_like(x) if zero in (n, "all") else x for n, x in given.items()}
    memory, key, mask = (parts[n].float().requires_grad_() for n in ("memory", "key", "mask"))
    weights = content(memory, key, torch.full((1, 2), 5.0), mask)
    (weights * randn(1, 2, 4, seed=3).float()).sum().backward()
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2))
    assert all(bool(x.grad.isfinite().all()) for x in (memory, key, mask))


def test_gating_keeps_the_rest_of_where_the_head_was():
    found, before, share = places(2, 3, 5), places(2, 3, 5, seed=1), rand(2, 3, seed=2)
    wanted = share[..., None] * found + (1 - share[..., None]) * before
    torch.testing.assert_close(gate(found, before, share), wanted)


@pytest.mark.parametrize("shifts", [1, 3, 5])
def test_a_shift_is_a_convolution_around_the_ring(shifts):
    weights, kernel = places(2, 3, 6), places(2, 3, shifts, seed=1)
    reach, wanted = shifts // 2, torch.zeros(2, 3, 6, dtype=torch.float64)
    for i in range(6):
        for j in range(-reach, reach + 1):
            wanted[..., i] += kernel[..., j + reach] * weights[..., (i - j) % 6]
    torch.testing.assert_close(shift(weights, kernel), wanted)


def test_one_further_is_the_next_slot_and_behind_the_last_comes_the_first():
    weights = F.one_hot(torch.tensor([[[3]]]), 4)[0].float()
    assert shift(weights, torch.tensor([[[0.0, 0.0, 1.0]]]))[0, 0].tolist() == [1, 0, 0, 0]
    assert shift(weights, torch.tensor([[[1.0, 0.0, 0.0]]]))[0, 0].tolist() == [0, 0, 1, 0]


def test_sharpening_is_a_power_that_sums_to_one():
    weights, power = places(2, 3, 6), 1 + 4 * rand(2, 3, seed=1)
    wanted = weights ** power[..., None]
    torch.testing.assert_close(sharpen(weights, power), wanted / wanted.sum(-1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_sharpening_an_order_that_is_next_to_nothing_gives_nothing_and_finite_gradients():
    weights = torch.tensor(
        [[[0.0, 0.0, 0.0], [1e-9, -1e-9, 0.0], [0.0, 0.5, 0.0], [0.3, 0.1, 0.0]]], requires_grad=True
    )
    power = torch.tensor([[2.0, 30.0, 2.0, 2.0]], requires_grad=True)
    out = sharpen_order(weights, power)
    out.square().sum().backward()
    assert out[0, 0].tolist() == [0, 0, 0]
    assert out[0, 1].abs().max() < 1e-5
    assert out[0, 2].tolist() == pytest.approx([0, 1, 0], abs=2e-3)
    assert out[0, 3].tolist() == pytest.approx([0.9, 0.1, 0], abs=3e-3)
    assert bool((out >= 0).all())
    assert weights.grad.abs().max() < 2e3
    assert bool(power.grad.isfinite().all())


def test_strengths_are_at_least_one():
    raw = torch.tensor([-50.0, 0.0, 3.0])
    assert strength(raw).tolist() == pytest.approx([1.0, 1 + math.log(2), 1 + math.log(1 + math.exp(3))])


# ---------------------------------------------------------------------------------------------------------------- DNC


def test_what_is_read_and_freed_is_not_retained():
    reads, free = places(2, 3, 5), rand(2, 3, seed=1)
    wanted = torch.ones(2, 5, dtype=torch.float64)
    for head in range(3):
        wanted = wanted * (1 - free[:, head, None] * reads[:, head])
    torch.testing.assert_close(retention(reads, free), wanted)


def test_usage_grows_by_writing_and_its_gradient_does_not_come_by_the_write():
    usage, written, retained = rand(2, 5), places(2, 5, seed=1).requires_grad_(), rand(2, 5, seed=2).requires_grad_()
    found = used(usage, written, retained)
    torch.testing.assert_close(found, (1 - (1 - usage) * (1 - written)) * retained)
    found.sum().backward()
    assert written.grad is None
    assert retained.grad is not None


def test_allocation_is_the_product_over_the_slots_that_are_freer():
    usage = rand(3, 6)
    wanted = torch.zeros_like(usage)
    for b in range(3):
        order = sorted(range(6), key=lambda i: float(usage[b, i]))
        left = 1.0
        for slot in order:
            wanted[b, slot] = (1 - usage[b, slot]) * left
            left *= usage[b, slot]
    torch.testing.assert_close(allocation(usage), wanted, rtol=1e-4, atol=1e-5)


def test_allocation_has_the_gradient_of_the_product():
    usage = rand(2, 6).requires_grad_()
    assert torch.autograd.gradcheck(allocation, (usage,))


def test_allocation_of_a_new_and_of_a_full_memory():
    new, full = torch.zeros(1, 4, requires_grad=True), torch.ones(1, 4, requires_grad=True)
    assert float(allocation(new).detach().max()) == pytest.approx(1.0, abs=1e-5)
    assert float(allocation(new).detach().sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(allocation(full).detach().sum()) == pytest.approx(0.0, abs=1e-5)
    (allocation(new).square().sum() + allocation(full).square().sum()).backward()
    assert bool(new.grad.isfinite().all())
    assert bool(full.grad.isfinite().all())


@pytest.mark.parametrize("freed", [False, True])
def test_overwriting_erases_then_writes(freed):
    memory, weights, erase, value = randn(2, 4, 3), places(2, 4), rand(2, 3, seed=1), randn(2, 3, seed=2)
    retained = rand(2, 4, seed=3) if freed else None
    wanted = torch.zeros_like(memory)
    for n in range(4):
        for w in range(3):
            kept = memory[:, n, w] * (1 if retained is None else retained[:, n]) * (1 - weights[:, n] * erase[:, w])
            wanted[:, n, w] = kept + weights[:, n] * value[:, w]
    torch.testing.assert_close(overwrite(memory, weights, erase, value, retained), wanted)


def test_gradients_are_right():
    memory, weights, erase, value = randn(2, 4, 3), places(2, 4), rand(2, 3, seed=1), randn(2, 3, seed=2)
    parts = [x.requires_grad_() for x in (memory, weights, erase, value, rand(2, 4, seed=3))]
    assert torch.autograd.gradcheck(overwrite, parts)
    assert torch.autograd.gradcheck(overwrite, parts[:4])
    key, mask = randn(2, 2, 3, seed=4).requires_grad_(), rand(2, 2, 3, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(cosine, (parts[0], key, mask))
    assert torch.autograd.gradcheck(cosine, (parts[0], key))
