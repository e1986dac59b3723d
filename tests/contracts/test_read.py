"""The contract of a read: every score, normaliser, mask, bias and path agrees with the plain definition in float64."""

import itertools

import pytest
import torch

from recuerdo.errors import ReadError
from recuerdo.read import (
    Additive,
    Alibi,
    Bilinear,
    Cosine,
    Entmax,
    LocationAware,
    Product,
    Relative,
    Sharper,
    SoftCapped,
    SquaredDistance,
    TopKSoftmax,
    allow,
    causal,
    dot,
    entmax15,
    hard,
    lengths,
    monotonic,
    plain_read,
    read,
    scaled_dot,
    sigmoid,
    softmax,
    sparsemax,
    stick_breaking,
    window,
)

B, H, G, Q, K, D = 2, 4, 2, 37, 53, 16
HIDDEN = torch.rand(B, 1, Q, K, generator=torch.Generator().manual_seed(5)) > 0.3
HIDDEN[:, :, 3] = False  # a row with nothing to read


def location_aware() -> object:
    score = LocationAware(D, 8, filters=3, reach=2)
    previous = torch.rand(B, H, Q, K, generator=torch.Generator().manual_seed(4)).softmax(-1)
    return score.after(previous)


SCORES = {
    "dot": lambda: dot,
    "scaled dot": lambda: scaled_dot,
    "soft-capped": lambda: SoftCapped(5.0),
    "bilinear": lambda: Bilinear(D),
    "additive": lambda: Additive(D, 8),
    "sharper soft-capped": lambda: Sharper(SoftCapped(5.0), 0.5),
    "sharper dot": lambda: Sharper(scaled_dot, 4.0),
    "cosine": lambda: Cosine(7.0),
    "cosine, learned": lambda: Cosine(torch.full((B, H, Q), 3.0)),
    "distance": lambda: SquaredDistance(0.1),
    "location": location_aware,
}
NORMALISERS = {
    "softmax": softmax,
    "sparsemax": sparsemax,
    "entmax 1.5": entmax15,
    "entmax 1.3": Entmax(1.3),
    "sigmoid": sigmoid,
    "top 5": TopKSoftmax(5),
    "hard": hard,
    "monotonic": monotonic,
    "stick-breaking": stick_breaking,
}
MASKS = {
    "none": None,
    "causal": causal,
    "boolean": allow(HIDDEN),
    "lengths": lengths(torch.tensor([K, 20])),
    "no keys": lengths(torch.tensor([0, K])),
    "causal, lengths": causal & lengths(torch.tensor([K, 20])),
    "window": window(7, 3),
    "causal window": causal & window(9),
}
BIASES = {
    "broadcast": lambda: torch.randn(1, H, 1, 1),
    "per key": lambda: torch.randn(B, 1, 1, K),
    "per key and head": lambda: torch.randn(1, H, 1, K),
    "full": lambda: torch.randn(B, 1, Q, K),
    "alibi": lambda: Alibi.for_heads(H),
    "relative": lambda: Relative(torch.randn(H, 11)),
    "two": lambda: (torch.randn(1, 1, 1, K), Alibi.for_heads(H)),
}
PATHS = ("auto", "matmul", "fused", "tiled")


def inputs(q: int = Q, k: int = K, heads: int = G, width: int = D) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    shapes = (B, H, q, D), (B, heads, k, D), (B, heads, k, width)
    return tuple(torch.randn(*shape, generator=g) for shape in shapes)


def doubled(thing):
    """The same score or bias in float64, its own copy."""
    import copy

    def up(x):
        return x.detach().double().requires_grad_(x.requires_grad) if isinstance(x, torch.Tensor) else x

    if isinstance(thing, tuple):
        return tuple(doubled(x) for x in thing)
    if isinstance(thing, torch.Tensor):
        return up(thing)
    if isinstance(thing, torch.nn.Module):
        return copy.deepcopy(thing).double()
    if type(thing).__name__ == "AfterAlignment":
        return doubled(thing.parent).after(up(thing.previous))
    if isinstance(thing, Cosine):
        return Cosine(up(thing.sharpness))
    if isinstance(thing, Alibi):
        return Alibi(up(thing.slopes))
    if isinstance(thing, Relative):
        return Relative(up(thing.table))
    return thing


def parameters(*things) -> list[torch.Tensor]:
    found = []
    for thing in things:
        if isinstance(thing, torch.nn.Module):
            found += list(thing.parameters())
        elif type(thing).__name__ == "AfterAlignment":
            found += list(thing.parent.parameters())
        elif isinstance(thing, torch.Tensor) and thing.requires_grad:
            found.append(thing)
    return found


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    if not a.numel():
        return 0.0
    both_none = torch.isneginf(a) & torch.isneginf(b)
    difference = (a.double() - b).masked_fill(both_none, 0.0).abs()
    return (difference / b.masked_fill(both_none, 0.0).abs().clamp_min(1.0)).max().item()


def fused_can(score, normalise, mask, bias) -> bool:
    """What the fused path promises: products and softmax, no window, biases as tensors, learned ones per key."""
    inner = score.score if isinstance(score, Sharper) else score
    products = isinstance(inner, Product | Cosine | SquaredDistance | Bilinear)
    tensors = bias is None or (isinstance(bias, torch.Tensor) and (not bias.requires_grad or bias.shape[-2] == 1))
    return products and normalise is softmax and tensors and not (mask is not None and mask.banded)


def agree(tensors, *, score=scaled_dot, normalise=softmax, mask=None, bias=None, path="auto", tolerance=1e-5) -> None:
    g = torch.Generator().manual_seed(2)
    mine = [x.clone().requires_grad_() for x in tensors]
    reference = [x.double().requires_grad_() for x in tensors]
    score64, bias64 = doubled(score), doubled(bias)
    if path == "fused" and not fused_can(score, normalise, mask, bias):
        with pytest.raises(ReadError, match=r"the fused path cannot do this read: .*; leave path out"):
            read(*mine, score=score, normalise=normalise, mask=mask, bias=bias, path=path)
        return
    reading = read(*mine, score=score, normalise=normalise, mask=mask, bias=bias, path=path)
    want = plain_read(*reference, score=score64, normalise=normalise, mask=mask, bias=bias64)
    assert error(reading.mixed, want.mixed) <= tolerance
    assert error(reading.weights[:, :], want.weights) <= tolerance
    assert error(reading.weights[5:9, 2:30], want.weights[:, :, 5:9, 2:30]) <= tolerance
    grad = torch.randn(want.mixed.shape, generator=g, dtype=torch.float64)
    loss, loss64 = (reading.mixed * grad.to(reading.mixed.dtype)).sum(), (want.mixed * grad).sum()
    if reading.lse is not None:
        assert error(reading.lse, want.lse) <= tolerance
        pull = torch.randn(want.lse.shape, generator=g, dtype=torch.float64)
        loss = loss + (torch.where(torch.isneginf(reading.lse), 0.0, reading.lse) * pull.to(reading.lse.dtype)).sum()
        loss64 = loss64 + (torch.where(torch.isneginf(want.lse), 0.0, want.lse) * pull).sum()
    got = torch.autograd.grad(loss, [*mine, *parameters(score, bias)], allow_unused=True)
    expected = torch.autograd.grad(loss64, [*reference, *parameters(score64, bias64)], allow_unused=True)
    for a, b in zip(got, expected, strict=True):
        assert (a is None or not a.any()) == (b is None or not b.any())
        if a is not None and b is not None:
            assert (a.double() - b).abs().max() <= tolerance * max(1.0, b.abs().max().item())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("score", "normalise", "mask"), list(itertools.product(SCORES, NORMALISERS, MASKS)))
def test_every_score_normaliser_and_mask_on_every_path(score, normalise, mask, path):
    torch.manual_seed(0)
    agree(inputs(), score=SCORES[score](), normalise=NORMALISERS[normalise], mask=MASKS[mask], path=path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(("bias", "mask"), list(itertools.product(BIASES, MASKS)))
def test_every_bias_and_mask_on_every_path(bias, mask, learned, path):
    torch.manual_seed(0)
    added = BIASES[bias]()
    if learned and isinstance(added, torch.Tensor):
        added.requires_grad_()
    agree(inputs(), bias=added, mask=MASKS[mask], path=path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mask", ["none", "causal", "causal window"])
@pytest.mark.parametrize(("q", "k"), [(53, 53), (1, 53), (53, 1), (70, 20), (200, 200), (130, 300)])
def test_every_pair_of_lengths(q, k, mask, path):
    agree(inputs(q, k), mask=MASKS[mask], path=path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("width", [5, 16, 40])
def test_grouped_heads_and_value_widths(heads, width, path):
    agree(inputs(heads=heads, width=width), mask=causal, path=path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mask", list(MASKS))
def test_float64_agrees_to_its_own_precision(mask, path):
    agree([x.double() for x in inputs()], mask=MASKS[mask], path=path, tolerance=1e-10)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mask", ["none", "causal", "lengths", "no keys", "boolean"])
def test_bfloat16_agrees_with_float64_of_the_same_numbers(mask, path):
    mine = [x.bfloat16() for x in inputs()]
    reading = read(*mine, mask=MASKS[mask], path=path)
    want = plain_read(*(x.double() for x in mine), mask=MASKS[mask], bias=None, score=scaled_dot, normalise=softmax)
    assert reading.mixed.dtype == torch.bfloat16
    assert (reading.mixed.double() - want.mixed).abs().max() < 0.02  # bfloat16 keeps 8 bits
    close = 0.02 if reading.path == "matmul" else 2e-3  # two products round the scores to bfloat16 too
    assert error(reading.lse, want.lse) < close
    assert (reading.weights[:, :].double() - want.weights).abs().max() < close
    assert (reading.weights[:, :].sum(-1) - want.weights.sum(-1)).abs().max() < 2e-3
