"""The contract of a bend: a bent read equals its definition, written out in float64, in all that can be asked of it.

The definition: inside a region of keys the weights keep their proportions; the masses of the regions become what is asked.
"""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from recuerdo.errors import ReadError, ShapeError
from recuerdo.read import (
    Additive,
    Alibi,
    Bend,
    Cosine,
    Mask,
    Odds,
    Reading,
    Share,
    SoftCapped,
    allow,
    bend,
    bending,
    causal,
    entmax15,
    hard,
    lengths,
    linear,
    monotonic,
    mute,
    plain_read,
    read,
    scaled_dot,
    sigmoid,
    softmax,
    sparsemax,
    window,
)

B, H, G, D = 2, 4, 2, 16
N = 53  # keys
TOLERANCE = 1e-5
PATHS = ("auto", "matmul", "fused", "tiled", "plain")


def keys(n: int, *spans: tuple[int, int]) -> Tensor:
    marked = torch.zeros(n, dtype=torch.bool)
    for start, end in spans:
        marked[start:end] = True
    return marked


# ------------------------------------------------------------------------------------------------------ the definition


class Dense(NamedTuple):
    """mixed [b, h, q, e], weights [b, h, q, k], the share of every region before and after [b, h, q, r]; who is seen."""

    mixed: Tensor
    weights: Tensor
    before: Tensor
    after: Tensor
    visible: Tensor


class Kept:
    """A normaliser that keeps the scores it was given."""

    sequential = False

    def __init__(self, normalise):
        self.normalise = normalise

    def __call__(self, scores, previous=None):
        self.scores = scores
        return self.normalise(scores)


def shares_of(logs: Tensor, bends: tuple[Bend, ...]) -> Tensor:
    """What every region of a row shall have, from its log-masses [b, h, q, r + 1], the rest last."""
    visible = ~torch.isneginf(logs)
    fixed, asked, odds = torch.zeros_like(visible), torch.zeros_like(logs), torch.zeros_like(logs)
    for i, one in enumerate(bends):
        here = torch.ones_like(visible[..., 0])
        if one.heads is not None:
            here = here & one.heads[:, None]
        if one.rows is not None:
            here = here & (one.rows if one.rows.dim() == 1 else one.rows[:, None])
        if isinstance(one, Share):
            amount = torch.as_tensor(one.amount, dtype=logs.dtype)
            fixed[..., i], asked[..., i] = here & visible[..., i], amount if amount.dim() == 0 else amount[:, None]
        else:
            factor = torch.as_tensor(one.amount, dtype=logs.dtype).log()
            odds[..., i] = torch.where(
                here, factor if factor.dim() == 0 else factor[:, None], torch.zeros_like(logs[..., 0])
            )
    given = (asked * fixed).sum(-1, keepdim=True)
    free = visible & ~fixed
    divided = softmax((logs + odds).masked_fill(~free, -torch.inf)) * (1 - given)
    only = torch.where(given > 0, asked * fixed / given.masked_fill(given <= 0, 1.0), softmax(logs))
    return torch.where(free.any(-1, keepdim=True), torch.where(fixed, asked, divided), only)


def dense(query, key, value, bends, *, mask=None, bias=None, score=scaled_dot, normalise=softmax) -> Dense:
    kept = Kept(normalise)
    plain = plain_read(query, key, value, mask=mask, bias=bias, score=score, normalise=kept)
    logs = kept.scores
    if normalise is not softmax:
        logs = plain.weights.masked_fill(plain.weights <= 0, 1.0).log().masked_fill(plain.weights <= 0, -torch.inf)
    of = torch.full((query.shape[0], key.shape[2]), len(bends))
    for i, one in enumerate(bends):
        of = torch.where(one.keys, i, of)
    parts = [logs.masked_fill((of != i)[:, None, None], -torch.inf) for i in range(len(bends) + 1)]
    empty = [torch.isneginf(part).all(-1) for part in parts]
    masses = torch.stack(
        [part.masked_fill(none[..., None], 0.0).logsumexp(-1).masked_fill(none, -torch.inf)
         for part, none in zip(parts, empty, strict=True)], -1
    )  # fmt: skip
    after = shares_of(masses, bends)
    weights = sum(softmax(part) * after[..., i, None] for i, part in enumerate(parts))
    weights = weights * plain.weights.sum(-1, keepdim=True)
    mixed = weights @ value.repeat_interleave(query.shape[1] // key.shape[1], 1)
    return Dense(mixed, weights, softmax(masses)[..., :-1], after[..., :-1], ~torch.isneginf(masses))


# ----------------------------------------------------------------------------------------------------------- the cases

Bends = tuple[Bend, ...]


def several(q: int, k: int) -> Bends:
    return (
        Share(keys(k, (3, 9)), 0.2),
        Odds(keys(k, (12, 20)), 5.0),
        mute(keys(k, (25, 30))),
        Share(keys(k, (31, 33), (40, 41)), 0.5),
        Odds(keys(k, (42, 44)), 0.1),
    )


def heads_and_rows(q: int, k: int) -> Bends:
    return (
        Share(keys(k, (5, 15)), 0.4, heads=torch.tensor([True, False, True, False]), rows=keys(q, (q // 2, q))),
        Odds(keys(k, (20, 22)), 9.0, heads=torch.tensor([False, False, True, True])),
        mute(keys(k, (30, 31)), rows=torch.stack([keys(q, (0, q // 3)), keys(q, (q // 2, q - 1))])),
    )


def given_away(q: int, k: int) -> Bends:
    return Share(keys(k, (4, 20)), 0.5), Share(keys(k, (30, 40)), 0.5)


ACTIONS: dict[str, Callable[[int, int], Bends]] = {
    "share .3": lambda q, k: (Share(keys(k, (10, 20)), 0.3),),
    "share 0": lambda q, k: (Share(keys(k, (10, 20)), 0.0),),
    "share 1": lambda q, k: (Share(keys(k, (10, 20)), 1.0),),
    "share by head": lambda q, k: (
        Share(keys(k, (10, 20)), torch.tensor([0.3, 0.0, 1.0, 0.05])),
        Share(keys(k, (30, 40)), torch.tensor([0.6, 0.2, 0.0, 0.9])),
    ),
    "mute": lambda q, k: (mute(keys(k, (10, 20))),),
    "boost": lambda q, k: (Odds(keys(k, (10, 20)), 20.0),),
    "boost by head": lambda q, k: (Odds(keys(k, (10, 20)), torch.tensor([1.0, 4.0, 0.2, 20.0])),),
    "boost most": lambda q, k: (Odds(keys(k, (10, 20)), 1e6),),
    "damp": lambda q, k: (Odds(keys(k, (10, 20)), 0.01),),
    "damp most": lambda q, k: (Odds(keys(k, (10, 20)), 1e-6),),
    "several": several,
    "all given away": given_away,
    "heads and rows": heads_and_rows,
    "per example": lambda q, k: (Share(torch.stack([keys(k, (10, 20)), keys(k, (0, 2), (30, 31))]), 0.3),),
    "one example": lambda q, k: (mute(torch.stack([keys(k), keys(k, (7, 30))])),),
    "scattered": lambda q, k: (Share(keys(k, (1, 2), (9, 11), (30, 33), (50, 51)), 0.3),),
    "first keys": lambda q, k: (Share(keys(k, (0, 5)), 0.3),),
    "first keys muted": lambda q, k: (mute(keys(k, (0, 5))),),
    "first keys damped": lambda q, k: (Odds(keys(k, (0, 5)), 0.01),),
    "last keys": lambda q, k: (Odds(keys(k, (k - 4, k)), 20.0),),
    "all but one": lambda q, k: (Share(keys(k, (0, 25), (26, k)), 0.3),),
    "all, share": lambda q, k: (Share(keys(k, (0, k)), 0.3),),
    "all, mute": lambda q, k: (mute(keys(k, (0, k))),),
    "all, boost": lambda q, k: (Odds(keys(k, (0, k)), 20.0),),
    "all, by two": lambda q, k: (Share(keys(k, (0, 20)), 0.2), Share(keys(k, (20, k)), 0.3)),
    "none": lambda q, k: (Share(keys(k), 0.3),),
}


class Case(NamedTuple):
    mask: Callable[[int, int], Mask | None]
    queries: int = N


def holes(q: int, k: int) -> Mask:
    allowed = torch.rand(B, 1, q, k, generator=torch.Generator().manual_seed(5)) > 0.3
    allowed[:, :, 3] = False  # a row with nothing to read
    allowed[:, :, 4, :10] = allowed[:, :, 4, 20:] = False  # a row with marked keys only
    allowed[:, :, 5, 10:20] = False  # a row without marked keys
    return allow(allowed)


MASKS: dict[str, Case] = {
    "none": Case(lambda q, k: None, 37),
    "causal": Case(lambda q, k: causal),
    "causal, fewer queries": Case(lambda q, k: causal, 17),
    "causal, one query": Case(lambda q, k: causal, 1),
    "causal, more queries": Case(lambda q, k: causal, 70),
    "boolean": Case(holes, 37),
    "padding": Case(lambda q, k: allow(torch.stack([keys(k, (0, k)), keys(k, (12, k))])[:, None, None]) & causal),
    "lengths": Case(lambda q, k: lengths(torch.tensor([k, 15])), 37),
    "no keys": Case(lambda q, k: lengths(torch.tensor([0, k])), 37),
    "causal, lengths": Case(lambda q, k: causal & lengths(torch.tensor([k, 15])), 37),
    "window": Case(lambda q, k: window(7, 3), 37),
    "causal window": Case(lambda q, k: causal & window(9)),
}
BIASES: dict[str, Callable[[int, int], object]] = {
    "none": lambda q, k: None,
    "per key": lambda q, k: torch.randn(B, 1, 1, k),
    "per key and head": lambda q, k: torch.randn(1, H, 1, k),
    "full": lambda q, k: torch.randn(B, 1, q, k),
    "alibi": lambda q, k: Alibi.for_heads(H),
    "two": lambda q, k: (torch.randn(1, 1, 1, k), Alibi.for_heads(H)),
}
SCORES: dict[str, Callable[[], object]] = {
    "scaled dot": lambda: scaled_dot,
    "soft-capped": lambda: SoftCapped(5.0),
    "additive": lambda: Additive(D, 8),
    "cosine": lambda: Cosine(7.0),
}
FUSED_SCORES = ("scaled dot", "cosine")


def inputs(
    q: int = N, k: int = N, *, heads: int = G, width: int = D, scale: float = 1.0, seed: int = 1
) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(*s, generator=g) for s in ((B, H, q, D), (B, heads, k, D), (B, heads, k, width)))
    return [query * scale, key, value]


def doubled(thing):
    """The same score or bias in float64, its own copy."""
    if isinstance(thing, tuple):
        return tuple(doubled(x) for x in thing)
    if isinstance(thing, Tensor):
        return thing.detach().double().requires_grad_(thing.requires_grad)
    if isinstance(thing, Additive):
        copy = Additive(D, 8).double()
        copy.load_state_dict(thing.state_dict())
        return copy
    return Alibi(thing.slopes.double()) if isinstance(thing, Alibi) else thing


def learned(*things) -> list[Tensor]:
    found = [p for thing in things if isinstance(thing, torch.nn.Module) for p in thing.parameters()]
    return found + [thing for thing in things if isinstance(thing, Tensor) and thing.requires_grad]


def off(a: Tensor, b: Tensor) -> float:
    """The largest difference, in units of the largest number (or of 1)."""
    assert a.shape == b.shape
    assert not a.isnan().any()
    return ((a.double() - b).abs().max() / b.abs().max().clamp_min(1.0)).item() if a.numel() else 0.0


def gradient_errors(ours, theirs, leaves, leaves64) -> list[float]:
    """How far the gradients of one random sum over all of `ours` are from those of `theirs`."""
    g = torch.Generator().manual_seed(2)
    pulls = [torch.randn(x.shape, generator=g, dtype=torch.float64) for x in theirs]
    loss = sum((x * pull.to(x.dtype)).sum() for x, pull in zip(ours, pulls, strict=True))
    loss64 = sum((x * pull).sum() for x, pull in zip(theirs, pulls, strict=True))
    found = torch.autograd.grad(loss, leaves, retain_graph=True)
    expected = torch.autograd.grad(loss64, leaves64, retain_graph=True)
    return [off(a, b) for a, b in zip(found, expected, strict=True)]


def agree(
    tensors, bends: Bends, *, path="auto", tolerance=TOLERANCE, normalise=softmax, gradients=True, bias=None, **rules
) -> tuple[Reading, Dense]:
    """Mixed values, weights, shares and the gradients of all of them at once are those of the definition.

    Where float32 itself is farther off than the tolerance, a bent read may be off four times as much as the read is,
    its gradients ten times.
    """
    mine = [x.clone().requires_grad_(gradients) for x in tensors]
    reference = [x.double().requires_grad_(gradients) for x in tensors]
    score = rules.pop("score", scaled_dot)
    rules64 = rules | {"score": doubled(score), "bias": doubled(bias)}
    unbent = read(*mine, path=path, score=score, normalise=normalise, bias=bias, **rules)
    with torch.no_grad():
        exact = plain_read(*reference, normalise=normalise, **({"mask": None} | rules64))
        tolerance = max(tolerance, 4 * off(unbent.mixed, exact.mixed), 4 * off(unbent.weights[:, :], exact.weights))
    got, want = bend(unbent, bends), dense(*reference, bends, normalise=normalise, **rules64)
    assert got.bent is not None
    ours, theirs = (got.mixed, got.weights[:, :], got.bent.after), (want.mixed, want.weights, want.after)
    for a, b in zip(ours, theirs, strict=True):
        assert off(a, b) <= tolerance
    assert off(got.bent.before, want.before) <= tolerance
    if gradients:
        leaves, leaves64 = [*mine, *learned(score, bias)], [*reference, *learned(rules64["score"], rules64["bias"])]
        errors = gradient_errors(ours, theirs, leaves, leaves64)
        if max(errors) > tolerance:
            plain = plain_read(*reference, normalise=normalise, **({"mask": None} | rules64))
            own = []
            for way in {path, "auto"}:
                unbent = read(*mine, path=way, score=score, normalise=normalise, bias=bias, **rules)
                both = (unbent.mixed, unbent.weights[:, :]), (plain.mixed, plain.weights)
                own += gradient_errors(*both, leaves, leaves64)
            assert max(errors[:3]) <= max(tolerance, 10 * max(own))
            assert max(errors) <= max(10 * tolerance, 10 * max(own))  # those of parameters sum over all pairs
    return got, want


def case(
    action: str,
    mask: str,
    *,
    path="auto",
    score="scaled dot",
    bias="none",
    grow=False,
    scale=1.0,
    dtype=torch.float32,
    tolerance=TOLERANCE,
    gradients=True,
) -> None:
    """One case of the product, if the path does it; `grow` = biases have gradients."""
    torch.manual_seed(0)
    given_mask, q = MASKS[mask]
    refused = score not in FUSED_SCORES or "window" in mask or bias in ("alibi", "two") or (grow and bias == "full")
    if path == "fused" and refused:
        return
    added = BIASES[bias](q, N)
    if grow and isinstance(added, Tensor):
        added.requires_grad_()
    agree(
        [x.to(dtype) for x in inputs(q, N, scale=scale)],
        ACTIONS[action](q, N),
        path=path,
        mask=given_mask(q, N),
        score=SCORES[score](),
        bias=added,
        tolerance=tolerance,
        gradients=gradients,
    )


# ------------------------------------------------------------------------------------------------- equal the definition


def every(i: int, values):
    """The values in turn."""
    return list(values)[i % len(values)]


@pytest.mark.parametrize(
    ("i", "j", "action", "mask"),
    [(i, j, action, mask) for i, action in enumerate(ACTIONS) for j, mask in enumerate(MASKS) if (i + j) % 3],
)
def test_actions_under_masks(i, j, action, mask):
    """Two thirds of the pairs; scores, biases, paths and scales take turns. Their whole product is the slow test."""
    n = len(MASKS) * i + j
    case(
        action,
        mask,
        path=every(i + j, PATHS),
        score=every(n // 2, SCORES),
        bias=every(n, BIASES),
        scale=every(n, [1.0, 1.0, 4.0]),
        grow=n % 2 == 0,
        gradients=n % 3 > 0,
    )


@pytest.mark.parametrize("action", ACTIONS)
def test_the_fused_path(action):
    for mask in ("causal", "boolean", "causal, fewer queries"):
        case(action, mask, path="fused")


@pytest.mark.parametrize("action", ACTIONS)
def test_sharp_reads(action):
    case(action, "causal", scale=10.0)


@pytest.mark.parametrize("action", ACTIONS)
def test_float64_agrees_to_its_own_precision(action):
    for scale, mask, path in ((1.0, "causal", "auto"), (10.0, "boolean", "tiled"), (10.0, "causal", "matmul")):
        case(action, mask, path=path, dtype=torch.float64, tolerance=1e-10, scale=scale)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("width", [5, 16, 40])
def test_grouped_heads_and_value_widths(heads, width):
    agree(inputs(heads=heads, width=width), several(N, N), mask=causal, path="fused" if heads < H else "auto")


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("action", ACTIONS)
def test_the_whole_product(action, path):
    """A fifth of it, another one for every action and path."""
    start = (list(ACTIONS).index(action) + PATHS.index(path)) % 5
    for i, (mask, score, bias) in list(enumerate(itertools.product(MASKS, SCORES, BIASES)))[start::5]:
        case(action, mask, score=score, bias=bias, path=path, scale=every(i // 3, [1.0, 2.0, 4.0, 10.0]), grow=True)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("action", ["share .3", "mute", "boost", "several", "first keys muted", "all but one"])
def test_bfloat16_is_near_the_definition(action, path):
    tensors = [x.bfloat16() for x in inputs()]
    got = bend(read(*tensors, mask=causal, path=path), ACTIONS[action](N, N))
    want = dense(*(x.double() for x in tensors), ACTIONS[action](N, N), mask=causal)
    assert got.mixed.dtype == torch.bfloat16
    assert (got.mixed.double() - want.mixed).abs().max() < 0.05  # bfloat16 keeps 8 bits
    assert (got.weights[:, :].double() - want.weights).abs().max() < 0.03
    assert (got.bent.after.double() - want.after).abs().max() < 0.03


# -------------------------------------------------------------------------------------------------- what is asked is got


@pytest.mark.parametrize("scale", [1.0, 4.0, 10.0])
@pytest.mark.parametrize("amount", [0.0, 0.001, 0.3, 0.999, 1.0])
@pytest.mark.parametrize("path", ["auto", "tiled"])
def test_a_share_is_given_to_the_last_digit_in_every_row_that_can(path, amount, scale):
    marked = keys(N, (0, 1), (20, 30))
    got = bend(read(*inputs(scale=scale), mask=causal, path=path), Share(marked, amount))
    able = torch.arange(N) > 0  # row 0 sees nothing but marked key 0
    assert (got.weights[:, :][..., marked].sum(-1)[..., able] - amount).abs().max() <= TOLERANCE
    assert (got.bent.after[..., able, 0] - amount).abs().max() <= TOLERANCE
    assert (got.weights[:, :].sum(-1) - 1).abs().max() <= TOLERANCE
    assert (got.weights[0, :][..., 0] - 1).abs().max() <= TOLERANCE


@pytest.mark.parametrize("factor", [1e-6, 0.01, 0.5, 1.0, 2.0, 20.0, 1e6])
@pytest.mark.parametrize("path", ["auto", "tiled"])
def test_odds_are_multiplied_exactly(path, factor):
    marked = keys(N, (20, 30))
    tensors = [x.double() for x in inputs()]
    unbent = read(*tensors, mask=causal, path=path)
    got = bend(unbent, Odds(marked, factor))
    before, after = (x.weights[25:, :][..., marked].sum(-1) for x in (unbent, got))
    rest = got.weights[25:, :][..., ~marked].sum(-1)
    torch.testing.assert_close(after / rest, factor * before / (1 - before), rtol=1e-9, atol=0)


@pytest.mark.parametrize("path", ["fused", "tiled", "matmul", "sharp"])
def test_the_strength_of_every_head_can_be_learned(path):
    """Odds per head have a gradient, as heads are profiled by it; also where the marked keys are a sink."""
    tensors = sinking(N, 16.0) if path == "sharp" else inputs()
    marked, told = keys(N, (0, 1) if path == "sharp" else (20, 30)), torch.tensor([0.5, 2.0, 1.0, 30.0])
    mine, reference = told.clone().requires_grad_(), told.double().requires_grad_()
    got = bend(
        read(*tensors, mask=causal, path="auto" if path == "sharp" else path), Odds(marked, mine, rows=keys(N, (0, 40)))
    )
    want = dense(*(x.double() for x in tensors), (Odds(marked, reference, rows=keys(N, (0, 40))),), mask=causal)
    pull = torch.randn(want.mixed.shape, generator=torch.Generator().manual_seed(0))
    ((got.mixed * pull).sum() + got.bent.after.square().sum()).backward()
    ((want.mixed * pull).sum() + want.after.square().sum()).backward()
    assert off(got.mixed, want.mixed) <= TOLERANCE
    # The odds of a sink hang on 1 - m, of which float32 holds few digits: its own rounding, summed over all rows.
    assert off(mine.grad, reference.grad) <= (10 * TOLERANCE if path == "sharp" else TOLERANCE)


def test_a_bend_is_the_bias_that_a_person_would_add():
    """Odds are a bias of log f, and mute is a mask: the reads people know."""
    tensors, marked = inputs(), keys(N, (20, 30))
    unbent = read(*tensors, mask=causal)
    biased = read(*tensors, mask=causal, bias=marked.float()[None] * torch.tensor(7.0).log())
    hidden = read(*tensors, mask=causal & allow(~marked[None]))
    for one, other in ((Odds(marked, 7.0), biased), (mute(marked), hidden)):
        got = bend(unbent, one)
        assert off(got.mixed, other.mixed.double()) <= TOLERANCE
        assert off(got.weights[:, :], other.weights[:, :].double()) <= TOLERANCE


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("length", [12, N, 300])
@pytest.mark.parametrize("action", [Share, Odds, lambda x, _: mute(x)])
def test_rows_before_the_mark_are_untouched(action, length, path):
    """Bit for bit: who steers a model late in its text changes nothing before."""
    first = length // 2
    unbent = read(*inputs(length, length, scale=3.0), mask=causal, path=path)
    got = bend(unbent, action(keys(length, (first, first + 2)), 0.3))
    assert torch.equal(got.mixed[:, :, :first], unbent.mixed[:, :, :first])
    if unbent.kept is None:
        assert torch.equal(got.weights[:first, :], unbent.weights[:first, :])
    assert torch.equal(got.lse, unbent.lse)
    assert not torch.equal(got.mixed[:, :, first + 2 :], unbent.mixed[:, :, first + 2 :])


@pytest.mark.parametrize("path", PATHS)
def test_what_no_bend_can_change_is_untouched(path):
    """Heads and rows out of scope, rows that see no marked key, a mark on no key: bit for bit what they were."""
    unbent = read(*inputs(scale=3.0), mask=causal, path=path)
    nothing = bend(unbent, [Share(keys(N), 0.3), mute(keys(N))])
    assert torch.equal(nothing.mixed, unbent.mixed)
    assert off(nothing.weights[:, :], unbent.weights[:, :].double()) <= 1e-6
    heads, rows, marked = keys(H, (1, 2)), keys(N, (30, 40)), keys(N, (5, 9))
    for one in (Share(marked, 0.3, heads), Odds(marked, 5.0, heads)):
        got = bend(unbent, one)
        assert torch.equal(got.mixed[:, ~heads], unbent.mixed[:, ~heads])
        assert not torch.equal(got.mixed[:, heads], unbent.mixed[:, heads])
    for one in (Share(marked, 0.3, rows=rows), Odds(marked, 5.0, rows=rows), mute(marked, rows=rows)):
        got = bend(unbent, one)
        assert torch.equal(got.mixed[:, :, ~rows], unbent.mixed[:, :, ~rows])
        assert torch.equal(got.bent.after[:, :, ~rows], got.bent.before[:, :, ~rows])


def test_a_row_that_sees_only_marked_keys_is_left_by_mute_and_filled_by_a_share():
    unbent = read(*inputs(), mask=causal)
    first = keys(N, (0, 5))
    muted, shared = bend(unbent, mute(first)), bend(unbent, Share(first, 0.3))
    for got in (muted, shared):
        assert off(got.mixed[:, :, :5], unbent.mixed[:, :, :5].double()) <= 1e-6
        assert off(got.weights[:5, :], unbent.weights[:5, :].double()) <= 1e-6
        assert (got.bent.after[:, :, :5] - 1).abs().max() <= 1e-6
    assert not muted.weights[5:, :5].any()
    assert not muted.bent.after[:, :, 5:].any()
    two = bend(unbent, [Share(keys(N, (0, 2)), 0.2), Share(keys(N, (2, 5)), 0.6)])
    assert (two.bent.after[:, :, 2:5] - torch.tensor([0.25, 0.75])).abs().max() <= 1e-6


def sinking(k: int, strength: float, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """A read whose key 0 has nearly all of the mass, as in real language models."""
    query, key, value = inputs(k, k)
    key[:, :, 0] = key[..., 0] = 0
    key[:, :, 0, 0] = query[..., 0] = (strength * D**0.5) ** 0.5
    return [x.to(dtype) for x in (query, key, value)]


@pytest.mark.parametrize("strength", [10.0, 16.0, 25.0, 60.0])
@pytest.mark.parametrize(
    "action", ["first keys", "first keys muted", "first keys damped", "share .3", "damp", "several"]
)
def test_sinks(action, strength):
    """The rest of such a row is lost in the rounding of 1 - m, and must be found again; also without gradients."""
    for path in ("auto",) if "damp" in action else ("auto", "matmul"):
        got, want = agree(sinking(N, strength), ACTIONS[action](N, N), mask=causal, path=path)
        with torch.no_grad():
            again = bend(read(*sinking(N, strength), mask=causal, path=path), ACTIONS[action](N, N))
        assert off(again.mixed, want.mixed) <= TOLERANCE
    agree(sinking(N, strength, torch.float64), ACTIONS[action](N, N), mask=causal, tolerance=1e-10)
    assert (got.bent.before[:, :, -1] <= 1).all()


@pytest.mark.parametrize("strength", [16.0, 60.0])
@pytest.mark.parametrize("action", ["boost", "last keys", "all but one", "heads and rows"])
def test_sinks_in_float64(action, strength):
    sink = (Odds(keys(N, (0, 1)), 3.0), *(x for x in ACTIONS[action](N, N) if not bool(x.keys[..., 0].any())))
    agree(sinking(N, strength, torch.float64), sink, mask=causal, tolerance=1e-10)


@pytest.mark.parametrize("offset", [0, 40, -20])
def test_only_the_blocks_with_lost_rows_are_read_again(offset, monkeypatch):
    """A sink for the last rows alone: the others keep the cheap way, and all of them are right."""
    monkeypatch.setattr(sys.modules["recuerdo.read.bend"], "ROWS_AT_ONCE", 16)
    q = 80
    query, key, value = (x[:, :, : q + offset] for x in sinking(120, 16.0))
    query = torch.cat([query, query], 2)[:, :, :q].clone()
    query[:, :, :70, 0] = 0
    for one in (mute(keys(q + offset, (0, 1))), Share(keys(q + offset, (0, 1), (30, 45)), 0.2)):
        agree([query, key, value], (one,), mask=causal)


@pytest.mark.parametrize("q", [100, 30])
def test_long_scattered_marks_are_read_in_pieces(q, monkeypatch):
    monkeypatch.setattr("recuerdo.read.partial.NUMBERS_AT_ONCE", 700)
    bends = (Share(keys(100, (3, 4), (35, 45), (93, 100)), 0.3), Odds(keys(100, (15, 30)), 4.0))
    full = torch.randn(B, 1, q, 100, generator=torch.Generator().manual_seed(0))
    for bias, mask in itertools.product((None, full), (causal, None, allow(full > -1) & causal)):
        agree(inputs(q, 100), bends, mask=mask, bias=bias)


@pytest.mark.parametrize("action", ["heads and rows", "several", "per example", "first keys muted", "boost by head"])
@pytest.mark.parametrize(("score", "mask"), [("additive", "causal window"), ("soft-capped", "boolean")])
def test_reads_that_take_several_row_blocks(action, score, mask, monkeypatch):
    monkeypatch.setattr(sys.modules["recuerdo.read.blocks"], "NUMBERS_AT_ONCE", 2**15)
    case(action, mask, score=score, bias="alibi", path="tiled")


# ------------------------------------------------------------------------------------------------------ other normalisers


@pytest.mark.parametrize("normalise", [sparsemax, entmax15, sigmoid], ids=["sparsemax", "entmax", "sigmoid"])
@pytest.mark.parametrize("action", ACTIONS)
def test_other_normalisers_keep_the_sum_of_the_row(normalise, action):
    """In float64: a row of sparsemax may hold next to nothing of a region, and a boost shows all of its rounding."""
    given_mask, q = MASKS["boolean" if normalise is sparsemax else "causal"]
    tensors = [x.double() for x in inputs(q)]
    agree(tensors, ACTIONS[action](q, N), mask=given_mask(q, N), normalise=normalise, tolerance=1e-9)


@pytest.mark.parametrize("normalise", [hard, monotonic], ids=["hard", "monotonic"])
@pytest.mark.parametrize("action", ["share .3", "mute", "boost", "several"])
def test_normalisers_that_choose_or_walk(normalise, action):
    agree(inputs(), ACTIONS[action](N, N), mask=causal, normalise=normalise, gradients=False)


# --------------------------------------------------------------------------------------------- what is asked of it later


@pytest.mark.parametrize("normalise", [softmax, sparsemax], ids=["softmax", "sparsemax"])
@pytest.mark.parametrize("path", ["auto", "matmul", "tiled"])
@pytest.mark.parametrize("action", ["several", "heads and rows", "first keys muted", "per example"])
def test_summaries_of_a_bent_read(action, path, normalise):
    tensors, bends = inputs(scale=2.0), ACTIONS[action](N, N)
    got = bend(read(*tensors, mask=causal, path=path, normalise=normalise), bends)
    weights = dense(*(x.double() for x in tensors), bends, mask=causal, normalise=normalise).weights
    regions, rows = torch.rand(N, 3), torch.rand(N)

    def same(a: Tensor, b: Tensor) -> None:
        assert off(a, b) <= 2 * TOLERANCE

    same(got.mass(regions), weights @ regions.double())
    same(got.mass(torch.ones(N))[..., 0], torch.ones(B, H, N).double())
    same(got.received(), weights.sum(2))
    same(got.received(rows), (weights * rows.double()[:, None]).sum(2))
    same(got.entropy(), torch.special.entr(weights).sum(-1))
    same(got.diagonal(), weights.diagonal(dim1=-2, dim2=-1))
    same(got.weights[5:9, 2:30], weights[:, :, 5:9, 2:30])
    summary = got.summary(top=4, bins=8)
    same(summary.entropy, torch.special.entr(weights).sum(-1))
    same(summary.received, weights.sum(2))
    same(summary.top.weights, weights.topk(4, -1).values)
    found = weights.gather(-1, summary.top.indices.clamp_min(0)).masked_fill(summary.top.indices < 0, 0.0)
    same(summary.top.weights, found)
    parts = torch.nn.functional.one_hot(torch.arange(N) * 8 // N, 8).double()
    same(summary.overview, (parts / parts.sum(0)).T @ weights @ parts)
    mixed = got.mixed
    got.let_go_of_mixed()
    same(got.mixed, mixed.double())
    marked = keys(N, (8, 14))
    mass = (weights * marked).sum(-1)
    same(got.log_mass(marked).exp(), mass)


def test_the_mass_of_a_bent_read_is_a_training_signal():
    region, bends = torch.rand(N, 2), several(N, N)
    mine = [x.requires_grad_() for x in inputs()]
    reference = [x.detach().double().requires_grad_() for x in mine]
    bend(read(*mine, mask=causal), bends).mass(region).square().sum().backward()
    (dense(*reference, bends, mask=causal).weights @ region.double()).square().sum().backward()
    for a, b in zip(mine[:2], reference[:2], strict=True):
        assert off(a.grad, b.grad) <= TOLERANCE


# --------------------------------------------------------------------------------------------------------------- log_mass


@pytest.mark.parametrize("marked", ["span", "scattered", "per example", "first", "all", "none", "one row"])
@pytest.mark.parametrize("mask", MASKS)
def test_log_mass(mask, marked):
    """The log of the marked mass, with gradients, on every path; -inf where none of it is seen."""
    given_mask, q = MASKS[mask]
    where = {
        "span": keys(N, (10, 20)),
        "scattered": keys(N, (3, 4), (10, 12), (40, 50)),
        "per example": torch.stack([keys(N, (10, 20)), keys(N, (30, 31))]),
        "first": keys(N, (0, 1)),
        "all": keys(N, (0, N)),
        "none": keys(N),
        "one row": keys(N, (12, 22))[None],
    }[marked]
    full = torch.randn(B, 1, q, N, generator=torch.Generator().manual_seed(0))
    ways = [("auto", None, 1.0), ("tiled", None, 3.0)], [("auto", full, 3.0), ("matmul", full, 1.0)]
    for path, bias, scale in every(len(marked) + len(mask), ways):
        mine = [x.requires_grad_() for x in inputs(q, N, scale=scale)]
        reference = [x.detach().double().requires_grad_() for x in mine]
        got = read(*mine, mask=given_mask(q, N), bias=bias, path=path).log_mass(where)
        kept = Kept(softmax)
        told = {"mask": given_mask(q, N), "bias": None if bias is None else bias.double(), "score": scaled_dot}
        lse = plain_read(*reference, normalise=kept, **told).lse
        scores = kept.scores.masked_fill(~where.reshape(-1, 1, 1, N), -torch.inf)
        seen = ~torch.isneginf(scores).all(-1)
        want = scores.masked_fill(~seen[..., None], 0.0).logsumexp(-1) - lse.masked_fill(~seen, 0.0)
        assert torch.isneginf(got[~seen]).all()
        assert not torch.isneginf(got[seen]).any()
        assert off(got[seen], want[seen]) <= TOLERANCE
        pull = torch.randn(got.shape, generator=torch.Generator().manual_seed(0))
        (got.masked_fill(~seen, 0.0) * pull).sum().backward()
        (want.masked_fill(~seen, 0.0) * pull.double()).sum().backward()
        for a, b in zip(mine[:2], reference[:2], strict=True):
            assert off(a.grad, b.grad) <= TOLERANCE


def test_log_mass_of_other_normalisers():
    tensors = inputs()
    for normalise in (sparsemax, sigmoid):
        want = plain_read(*tensors, mask=causal, bias=None, score=scaled_dot, normalise=normalise).weights[..., 10:20]
        got = read(*tensors, mask=causal, normalise=normalise).log_mass(keys(N, (10, 20)))
        assert off(got.exp(), want.sum(-1).double()) <= TOLERANCE
        assert torch.isneginf(got[..., :10]).all()


@pytest.mark.parametrize(
    "marked",
    [torch.ones(N), keys(N + 1), keys(N)[None, None], keys(N).expand(3, N), torch.ones(2, N, dtype=torch.int64)],
)
def test_log_mass_of_what_are_no_keys(marked):
    with pytest.raises(ShapeError) as caught:
        read(*inputs()).log_mass(marked)
    told = f"keys are marked by a bool tensor [k] or [b, k] with k = {N}, not {marked.dtype} {tuple(marked.shape)}"
    assert str(caught.value) == told


# --------------------------------------------------------------------------------- the gradient of the fused log-mass


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1.0, 1e-4, 1e-10, 1e-11, 3e-13, 1e-20, 0.0])
@pytest.mark.parametrize("which", ["all rows", "one row", "some columns", "no output"])
def test_the_log_mass_has_its_gradient_whatever_the_output_has(which, size, dtype):
    """It rides on the output's gradient: rows where this is zero or tiny must carry it as well."""
    tensors = [x.to(dtype) for x in inputs(heads=H)]
    grad = torch.randn(B, H, N, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    pull = torch.randn(B, H, N, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    if which == "all rows":
        grad = grad * size
    elif which == "one row":
        grad[:, :, 7] *= size
    elif which == "some columns":
        grad[..., 1:] = 0
        grad[..., 0] *= size
    mine = [x.requires_grad_() for x in tensors]
    reference = [x.detach().double().requires_grad_() for x in tensors]
    got = read(*mine, mask=causal, path="fused")
    want = plain_read(*reference, mask=causal, bias=None, score=scaled_dot, normalise=softmax)
    loss, loss64 = (got.lse * pull.to(dtype)).sum(), (want.lse * pull).sum()
    if which != "no output":
        loss, loss64 = loss + (got.mixed * grad.to(dtype)).sum(), loss64 + (want.mixed * grad).sum()
    found = torch.autograd.grad(loss, mine, allow_unused=True)
    expected = torch.autograd.grad(loss64, reference, allow_unused=True)
    for a, b in zip(found[:2], expected[:2], strict=True):
        assert off(a, b) <= (1e-10 if dtype == torch.float64 else TOLERANCE)
    if which != "no output":
        assert off(found[2] / max(size, 1e-30), expected[2] / max(size, 1e-30)) <= TOLERANCE


class Attend(torch.nn.Module):
    def forward(self, *tensors: Tensor) -> Reading:
        return read(*tensors, mask=causal)


@pytest.mark.parametrize("action", ["several", "boost by head", "heads and rows", "first keys muted"])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_read_that_is_bent_as_it_is_made(gradients, action):
    """In a watched model a read may be bent in place: the numbers are those of `bend`, and of the definition."""
    tensors, bends, model = inputs(), ACTIONS[action](N, N), Attend()
    mine = [x.clone().requires_grad_(gradients) for x in tensors]
    with bending(model, lambda address, reading: bends):
        got = model(*mine)
    apart = bend(model(*tensors), bends)
    assert torch.equal(got.mixed, apart.mixed)
    want = dense(*(x.double() for x in tensors), bends, mask=causal)
    assert off(got.mixed, want.mixed) <= TOLERANCE
    assert off(got.weights[:, :], want.weights) <= TOLERANCE
    for x, y in zip(mine, tensors, strict=True):
        assert torch.equal(x, y)


def test_strengths_are_learned_through_a_model_that_is_not():
    """Nothing else has a gradient; the read is bent in place all the same."""
    tensors, marked, model = inputs(), keys(N, (20, 30)), Attend()
    one, other = (torch.tensor([0.5, 2.0, 1.0, 30.0], requires_grad=True) for _ in range(2))
    with bending(model, lambda address, reading: [Odds(marked, one)]):
        model(*tensors).mixed.square().sum().backward()
    bend(model(*tensors), Odds(marked, other)).mixed.square().sum().backward()
    assert torch.equal(one.grad, other.grad)


def test_the_second_derivative_of_a_bent_fused_read_says_the_way_out():
    mine = [x.requires_grad_() for x in inputs()]
    got = bend(read(*mine, mask=causal, path="fused"), Share(keys(N, (10, 20)), 0.3))
    with pytest.raises(ReadError, match="the fused kernel has no second derivative: pass path='tiled'"):
        torch.autograd.grad(got.mixed.square().sum(), mine, create_graph=True)


# --------------------------------------------------------------------------------------------------------------- any case

spans = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), min_size=1, max_size=4)


@settings(max_examples=80, deadline=None, database=None, derandomize=True)
@given(st.data())
def test_any_bends_of_any_read(data):
    """Rows sum to one, shares are exact, nothing is NaN, and all of it is the definition."""
    q, k = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    heads = data.draw(st.sampled_from([(1, 1), (2, 1), (2, 2)]))
    free, bends, left = torch.ones(B, k, dtype=torch.bool), [], 1.0
    for _ in range(data.draw(st.integers(1, 4))):
        marked = free & torch.stack([keys(k, *((a, a + n) for a, n in data.draw(spans))) for _ in range(B)])
        marked = marked if data.draw(st.booleans()) else free.all(0) & marked[0]
        free = free & ~marked
        scope = torch.tensor(data.draw(st.lists(st.booleans(), min_size=heads[0], max_size=heads[0])))
        where = (marked, scope if data.draw(st.booleans()) else None, None)
        if data.draw(st.booleans()):
            amount = round(data.draw(st.floats(0, 1)) * left, 3)
            left = left - amount
            bends.append(Share(where[0], min(amount, 1.0), *where[1:]))
        else:
            bends.append(Odds(where[0], 10 ** data.draw(st.floats(-6, 6)), *where[1:]))
    g = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    allowed = torch.rand(B, 1, q, k, generator=g) > data.draw(st.sampled_from([0.0, 0.5, 0.9]))
    mask = data.draw(st.sampled_from([None, causal, allow(allowed), causal & allow(allowed), window(3, 2)]))
    scale = data.draw(st.sampled_from([1.0, 3.0]))
    tensors = [
        torch.randn(B, heads[0], q, D, generator=g) * scale,
        torch.randn(B, heads[1], k, D, generator=g),
        torch.randn(B, heads[1], k, D, generator=g),
    ]
    told = {"path": data.draw(st.sampled_from(["auto", "tiled", "matmul"])), "gradients": data.draw(st.booleans())}
    got, want = agree(tensors, tuple(bends), mask=mask, **told)
    weights = got.weights[:, :]
    assert (weights >= 0).all()
    some = want.visible.any(-1)
    assert (weights.sum(-1)[some] - 1).abs().max().item() <= TOLERANCE if some.any() else True
    assert not weights[~some].any()
    assert not got.mixed[~some].any()


# ------------------------------------------------------------------------------------------------------ no N x N memory


class Largest(TorchDispatchMode):
    """How many numbers the largest new tensor has."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, Tensor):
                self.numbers = max(self.numbers, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize("gradients", [False, True])
def test_no_tensor_grows_with_the_square_of_the_length(gradients):
    """Beside inputs and outputs, only row blocks of a fixed size: at four times the length no more than four times."""
    sizes, (short, long) = {}, (2048, 8192) if gradients else (4096, 16384)
    for n in (short, long):
        g = torch.Generator().manual_seed(0)
        tensors = [torch.randn(1, 1, n, 8, generator=g).requires_grad_(gradients) for _ in range(3)]
        bends = [Share(keys(n, (100, 200)), 0.3), Odds(keys(n, (0, 1), (n // 2, n // 2 + 300)), 0.01)]
        with Largest() as seen, torch.set_grad_enabled(gradients):
            got = bend(read(*tensors, mask=causal), bends)
            if gradients:
                (got.mixed.sum() + got.bent.after.sum()).backward()
        sizes[n] = seen.numbers
    assert sizes[long] <= long**2 / 2**4
    assert sizes[long] <= 4.2 * sizes[short]


@pytest.mark.slow
def test_a_bent_read_of_16k_stays_small():
    code = """
import resource, torch
from recuerdo.read import read, bend, causal, Share, mute
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
n = 16384
marked = torch.zeros(n, dtype=torch.bool); marked[100:300] = True
x = [torch.randn(1, 1, n, 16, requires_grad=True) for _ in range(3)]
read(*(t[:, :, :64] for t in x), mask=causal).mixed.sum().backward()
before = peak()
got = bend(read(*x, mask=causal), [Share(marked, .3), mute(~marked & (torch.arange(n) < 50))])
got.mixed.square().sum().backward()
print(peak() - before)
"""
    source = str(Path(__file__).parents[2] / "src")
    told = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, env=told, check=True
    )
    assert float(done.stdout) < 200  # MB; the weights alone would be 1,024


# ---------------------------------------------------------------------------------------------------------------- errors


def says(kind: type[Exception], words: str, call: Callable[[], object]) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == words


def test_what_is_no_bend():
    marked, ones = keys(N, (3, 5)), torch.ones
    for name, made, told in (
        ("keys", lambda: Share(ones(N), 0.3), f"[b, n] or [n], not torch.float32 ({N},)"),
        ("keys", lambda: mute(ones(1, 1, N, dtype=torch.bool)), f"[b, n] or [n], not torch.bool (1, 1, {N})"),
        ("heads", lambda: Odds(marked, 2.0, ones(H)), f"[n], not torch.float32 ({H},)"),
        ("heads", lambda: Share(marked, 0.3, ones(2, H) > 0), f"[n], not torch.bool (2, {H})"),
        ("rows", lambda: mute(marked, rows=ones(N).long()), f"[b, n] or [n], not torch.int64 ({N},)"),
    ):
        says(ShapeError, f"the {name} of a bend are a bool tensor {told}", made)
    for amount in (-0.1, 1.1, float("nan"), float("inf")):
        says(ReadError, f"a share is from 0 to 1, not {amount}", lambda amount=amount: Share(marked, amount))
    for amount in (0.0, -2.0, 9e-7, 1.1e6, float("nan"), float("inf")):
        told = f"odds are multiplied by a factor from 1e-6 to 1e6, not {amount}: use mute to remove keys"
        says(ReadError, told, lambda amount=amount: Odds(marked, amount))
    told = "odds are multiplied by a factor from 1e-6 to 1e6, not tensor([2., 0.]): use mute to remove keys"
    says(ReadError, told, lambda: Odds(marked, torch.tensor([2.0, 0.0])))
    told = "a share is from 0 to 1, not tensor([0.5000, 1.5000])"
    says(ReadError, told, lambda: Share(marked, torch.tensor([0.5, 1.5])))
    assert mute(marked).amount == 0.0


@pytest.mark.parametrize(
    "one",
    [
        Share(keys(N + 1), 0.3),
        Share(keys(N).expand(3, N), 0.3),
        Share(keys(N), 0.3, keys(G)),
        Share(keys(N), 0.3, rows=keys(N - 1)),
        Share(keys(N), 0.3, rows=keys(N).expand(3, N)),
        Odds(keys(N), torch.ones(G)),
        Share(keys(N), torch.ones(G)),
        Odds(keys(N), torch.tensor(2.0)),
    ],
)
def test_bends_that_do_not_fit(one):
    told = {n: tuple(t.shape) for n, t in vars(one).items() if isinstance(t, Tensor)}
    words = f"a bend {told} does not fit a read of shape {(B, H, N, N)} [b, h, q, k]"
    says(ShapeError, words, lambda: bend(read(*inputs()), one))


@pytest.mark.parametrize("path", ["auto", "tiled", "matmul"])
def test_bends_that_contradict(path):
    reading, marked = read(*inputs(), path=path), keys(N, (3, 9))
    two = [Share(marked, 0.3), Odds(keys(N, (8, 12)), 3.0)]
    says(ReadError, "key 8 is held by two bends: a key can be in one only", lambda: bend(reading, two))
    much = [Share(marked, 0.7), Share(keys(N, (10, 12)), 0.6)]
    words = "the shares that are asked for sum to 1.3: at most 1 can be given"
    says(ReadError, words, lambda: bend(reading, much))
    bent = bend(reading, Share(marked, 0.3))
    words = "this reading is bent already: bend the read once, with all its bends together"
    says(ReadError, words, lambda: bend(bent, mute(keys(N, (20, 21)))))
    assert bend(reading, []) is reading


@pytest.mark.parametrize("path", ["auto", "matmul"])
def test_one_key_may_be_in_two_bends_that_never_meet_in_one_row(path):
    """Other heads, other rows: each is bent as if its bends were the only ones."""
    some, more, far = keys(N, (3, 9)), keys(N, (6, 14)), keys(N, (20, 30))
    top, early = keys(H, (0, 2)), keys(N, (0, 25))
    unbent = read(*inputs(), mask=causal, path=path)
    for one, other in (({"heads": top}, {"heads": ~top}), ({"rows": early}, {"rows": ~early})):
        got = bend(
            unbent, [Share(some, 0.3, **one), Odds(more, 9.0, **other), mute(far, **one), Share(far, 0.5, **other)]
        )
        first, second = bend(unbent, [Share(some, 0.3), mute(far)]), bend(unbent, [Odds(more, 9.0), Share(far, 0.5)])
        here = (top[:, None] if "heads" in one else early).expand(H, N)
        for ours, a, b in (
            (got.mixed, first.mixed, second.mixed),
            (got.weights[:, :], first.weights[:, :], second.weights[:, :]),
            (got.bent.after[..., :2], first.bent.after[..., [0, 0]], second.bent.after[..., [0, 0]]),
            (got.bent.after[..., 2:], first.bent.after[..., [1, 1]], second.bent.after[..., [1, 1]]),
        ):
            want = torch.where(here[..., None], a, b)
            if ours.shape[-1] == 2:  # of the two bends on these keys, the one that is asked
                want, ours = want[..., :1], torch.where(here[..., None], ours[..., :1], ours[..., 1:])
            assert off(ours, want.double()) <= 1e-6


def test_shares_that_never_meet_in_one_row_may_sum_to_more():
    """Other heads, other rows, other examples: each row is asked for what it can give."""
    first, last = keys(N, (3, 9)), keys(N, (20, 30))
    top, low = keys(H, (0, 2)), keys(H, (2, 4))
    early, late = keys(N, (0, 30)), keys(N, (30, N))
    none = keys(N)
    for bends in (
        (Share(first, 0.7, top), Share(last, 0.6, low)),
        (Share(first, 0.7, rows=early), Share(last, 0.6, rows=late)),
        (Share(torch.stack([first, none]), 0.7), Share(torch.stack([none, last]), 0.6)),
    ):
        agree(inputs(), bends, mask=causal)


def test_long_reads_of_other_normalisers_say_what_to_do(monkeypatch):
    monkeypatch.setattr(sys.modules["recuerdo.read.bend"], "KEPT_AT_MOST", 1000)
    words = (
        f"bending a read under Entmax keeps all its weights, and {B} x {H} x {N} x {N} are too many: "
        "use softmax, or shorter reads"
    )
    says(ReadError, words, lambda: bend(read(*inputs(), normalise=sparsemax), mute(keys(N, (1, 2)))))


def test_odds_multiply_the_weights_of_a_linear_read_and_leave_the_others():
    """They are no shares of a whole: some lie below zero, and a row sums to anything."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 2, n, 8, dtype=torch.double) for n in (3, 6, 6))
    mask = allow((torch.arange(6) < 5).expand(2, 1, 1, 6))
    plain = read(query, key, value, mask=mask, normalise=linear)
    assert bool((plain.weights[:, :] < 0).any())
    both = torch.tensor([True, False, False, False, False, True])  # the last is hidden anyway
    gone = torch.tensor([False, False, True, False, False, False])
    bent = bend(plain, [Odds(both, 20.0), mute(gone)])
    expected = plain.weights[:, :].clone()
    expected[..., 0] *= 20
    expected[..., 2] = 0
    torch.testing.assert_close(bent.weights[:, :], expected)
    torch.testing.assert_close(bent.mixed, expected @ value)
    assert torch.equal(bent.weights[:, :][..., 5], torch.zeros(2, 2, 3).double())
    with pytest.raises(ReadError, match="no shares of a whole"):
        bend(plain, Share(both, 0.5))
