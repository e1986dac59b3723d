"""Every summary of a read, by every path, equals the same sum over the written-out weights in float64."""

import pytest
import torch

from recuerdo.errors import AddressError, ReadError, ShapeError
from recuerdo.read import (
    Additive,
    Alibi,
    causal,
    lengths,
    merge,
    monotonic,
    plain_read,
    read,
    softmax,
    sparsemax,
    window,
)
from recuerdo.read.score import scaled_dot
from recuerdo.read.summary import PASS_ROWS

B, H, G, D = 2, 4, 2, 16


def inputs(q=150, k=150, dtype=torch.float32):
    g = torch.Generator().manual_seed(3)
    shapes = (B, H, q, D), (B, G, k, D), (B, G, k, D)
    return [torch.randn(*shape, generator=g).to(dtype) * s for shape, s in zip(shapes, (2, 1, 1), strict=True)]


CASES = {
    "full": {},
    "causal": {"mask": causal},
    "causal, growing": {"mask": causal, "q": 40},
    "more queries than keys": {"mask": causal, "q": 180},
    "lengths": {"mask": lengths(torch.tensor([150, 33]))},
    "no keys": {"mask": lengths(torch.tensor([150, 0]))},
    "window": {"mask": window(20, 5)},
    "key bias": {"bias": torch.randn(B, 1, 1, 150, generator=torch.Generator().manual_seed(0))},
    "alibi": {"bias": Alibi.for_heads(H), "mask": causal},
    "sparsemax": {"normalise": sparsemax},
    "monotonic": {"normalise": monotonic},
    "odd sizes": {"q": 67, "k": 131},
    "long": {"q": 2 * PASS_ROWS + 3, "k": 700, "mask": causal},
}


@pytest.fixture(params=CASES, scope="module")
def case(request):
    arguments = dict(CASES[request.param])
    tensors = inputs(arguments.pop("q", 150), arguments.pop("k", 150))
    rules = {"mask": None, "bias": None, "score": scaled_dot, "normalise": softmax} | arguments
    readings = [read(*tensors, path=path, **arguments) for path in ("tiled", "matmul", "auto")]
    return readings, plain_read(*(x.double() for x in tensors), **rules).weights, tensors


def close(a, b, tolerance=2e-5):
    assert a.shape == b.shape
    assert (a.double() - b).abs().max() <= tolerance * max(1.0, b.abs().max().item())


def test_mass_on_regions(case):
    readings, weights, _ = case
    regions = torch.rand(weights.shape[-1], 3)
    for reading in readings:
        close(reading.mass(regions), weights @ regions.double())


def test_received(case):
    readings, weights, _ = case
    rows = torch.rand(weights.shape[2])
    for reading in readings:
        close(reading.received(), weights.sum(2))
        close(reading.received(rows), (weights * rows.double()[:, None]).sum(2))


def test_entropy(case):
    readings, weights, _ = case
    for reading in readings:
        close(reading.entropy(), torch.special.entr(weights).sum(-1))
        close(reading.summary(top=0, bins=0).entropy, torch.special.entr(weights).sum(-1))


def test_top(case):
    readings, weights, _ = case
    for reading in readings:
        top = reading.top(8)
        close(top.weights, weights.topk(8, -1).values)
        found = weights.gather(-1, top.indices.clamp_min(0)).masked_fill(top.indices < 0, 0.0)
        close(top.weights, found)


def test_overview(case):
    readings, weights, _ = case
    q, k = weights.shape[2:]
    r, c = min(16, q), min(16, k)
    rows = torch.nn.functional.one_hot(torch.arange(q) * r // q, r).double()
    cols = torch.nn.functional.one_hot(torch.arange(k) * c // k, c).double()
    want = (rows / rows.sum(0)).T @ weights @ cols
    for reading in readings:
        close(reading.overview(16), want)


def test_one_pass_gives_all_of_it(case):
    readings, weights, _ = case
    summary = readings[0].summary(top=3, bins=8)
    close(summary.received, weights.sum(2))
    close(summary.top.weights, weights.topk(3, -1).values)
    assert summary.overview.shape[-2:] == (min(8, weights.shape[2]), min(8, weights.shape[3]))


@pytest.mark.parametrize("summary", ["mass", "entropy", "weights"])
@pytest.mark.parametrize("mask", [None, causal])
def test_mass_and_entropy_are_training_signals(summary, mask):
    """Gradients through the fused kernel, O(N) memory, equal those through the written-out weights."""
    tensors = inputs()
    region = (torch.arange(150) < 40).float()[:, None]

    def loss(weights):
        return {
            "mass": lambda: -(weights @ region.to(weights)).clamp_min(1e-6).log().mean(),
            "entropy": lambda: torch.special.entr(weights.clamp_min(1e-30)).sum(-1).square().mean(),
            "weights": lambda: weights[:, :, 100:120, 30:60].square().sum(),
        }[summary]()

    mine = [x.requires_grad_() for x in tensors]
    reading = read(*mine, mask=mask, path="fused")
    ours = {
        "mass": lambda: -reading.mass(region).clamp_min(1e-6).log().mean(),
        "entropy": lambda: reading.entropy().square().mean(),
        "weights": lambda: reading.weights[100:120, 30:60].square().sum(),
    }[summary]()
    ours.backward()
    reference = [x.detach().double().requires_grad_() for x in tensors]
    loss(plain_read(*reference, mask=mask, bias=None, score=scaled_dot, normalise=softmax).weights).backward()
    for a, b in zip(mine[:2], reference[:2], strict=True):
        assert (a.grad.double() - b.grad).abs().max() <= 1e-5 * max(1.0, b.grad.abs().max().item())


def test_half_precision_summaries_are_worked_out_in_float32():
    tensors = inputs(dtype=torch.bfloat16)
    reading = read(*tensors, path="fused")
    weights = plain_read(
        *(x.double() for x in tensors), mask=None, bias=None, score=scaled_dot, normalise=softmax
    ).weights
    close(reading.received(), weights.sum(2), 1e-4)
    close(reading.entropy(), torch.special.entr(weights).sum(-1), 1e-4)
    close(reading.summary(top=0, bins=0).entropy, torch.special.entr(weights).sum(-1), 1e-4)


def test_merged_parts_are_one_read():
    query, key, value = inputs()
    whole = read(query, key, value)
    cuts = [slice(0, 1), slice(1, 60), slice(60, 150)]
    parts = [read(query, key[:, :, cut], value[:, :, cut]).part for cut in cuts]
    for order in ([0, 1, 2], [2, 0, 1]):
        part = merge(*(parts[i] for i in order))
        close(part.mixed, whole.mixed.double())
        close(part.lse, whole.lse.double())
    nested = merge(parts[0], merge(parts[1], parts[2]))
    close(nested.mixed, whole.mixed.double())


def test_merging_with_nothing_changes_nothing():
    query, key, value = inputs()
    nothing = read(query, key, value, mask=lengths(torch.zeros(B, dtype=torch.int64)))
    whole = read(query, key, value)
    both = merge(nothing.part, whole.part)
    assert torch.equal(both.mixed, whole.mixed)
    none = merge(nothing.part, nothing.part)
    assert not none.mixed.any()
    assert torch.isneginf(none.lse).all()


def test_errors_name_the_way_out():
    query, key, value = inputs()
    reading = read(query, key, value, normalise=sparsemax)
    with pytest.raises(ReadError, match="merge under softmax only"):
        _ = reading.part
    with pytest.raises(ShapeError, match=r"two indices: weights\[rows, cols\]"):
        _ = reading.weights[3]
    with pytest.raises(ShapeError, match="not in steps of 2"):
        _ = reading.weights[::2, :]
    with pytest.raises(AddressError, match="there is no row 150: this read has 150"):
        _ = reading.weights[150, 0]
    with pytest.raises(ShapeError, match=r"regions are \[k, r\]"):
        reading.mass(torch.ones(7, 2))
    with pytest.raises(ShapeError, match=r"row weights are \[q\]"):
        reading.received(torch.ones(3))
    with pytest.raises(ReadError, match="must be 0 or more"):
        reading.summary(top=-1)
    torch.manual_seed(0)
    with pytest.raises(ReadError, match="not a product of query and key; leave path out"):
        read(query, key, value, score=Additive(D, 8), path="fused")


def test_diagonal(case):
    readings, weights, _ = case
    q, k = weights.shape[2:]
    own = torch.zeros(B, H, q, dtype=torch.float64)
    for i in range(max(0, q - k), q):
        own[..., i] = weights[..., i, i + k - q]
    for reading in readings:
        close(reading.diagonal(), own)
