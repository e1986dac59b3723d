"""Every error that `read` raises by hand, by its words: a short fact, and the way out."""

import inspect

import pytest
import torch

from recuerdo.errors import AddressError, ReadError, RecuerdoError, ShapeError
from recuerdo.read import (
    Additive,
    Alibi,
    Cosine,
    LocationAware,
    Mask,
    Relative,
    SoftCapped,
    TopKSoftmax,
    allow,
    causal,
    entmax15,
    hard,
    lengths,
    monotonic,
    read,
    sigmoid,
    window,
)
from recuerdo.read.mask import as_biases
from recuerdo.read.pairing import check_shapes

bare_read = inspect.unwrap(read)  # below the shape checks that the tests switch on: what a user's call meets


def says(kind: type[RecuerdoError], words: str):
    """Raises this very kind, a ValueError or KeyError besides, with exactly these words."""
    return pytest.raises(kind, check=lambda error: str(error) == words)


def some(*shapes: tuple[int, ...], **options) -> list[torch.Tensor]:
    return [torch.ones(shape, **options) for shape in shapes]


def three(q=5, k=7, **options) -> list[torch.Tensor]:
    return some((1, 2, q, 4), (1, 2, k, 4), (1, 2, k, 4), **options)


# --------------------------------------------------------------------------------------------------------------- shapes

MISFITS = {
    "three axes": (
        some((2, 5, 4), (1, 2, 5, 4), (1, 2, 5, 4)),
        "read takes query [b, h, q, d], key [b, g, k, d] and value [b, g, k, e], not query (2, 5, 4), "
        "key (1, 2, 5, 4), value (1, 2, 5, 4)",
    ),
    "key heads and value heads": (
        some((1, 4, 5, 4), (1, 2, 5, 4), (1, 4, 5, 4)),
        "the key heads must equal the value heads and divide the query heads: query (1, 4, 5, 4), key (1, 2, 5, 4), "
        "value (1, 4, 5, 4)",
    ),
    "key heads that do not divide": (
        some((1, 4, 5, 4), (1, 3, 5, 4), (1, 3, 5, 4)),
        "the key heads must equal the value heads and divide the query heads: query (1, 4, 5, 4), key (1, 3, 5, 4), "
        "value (1, 3, 5, 4)",
    ),
    "keys and values": (
        some((1, 2, 5, 4), (1, 2, 6, 4), (1, 2, 7, 4)),
        "every key needs one value: query (1, 2, 5, 4), key (1, 2, 6, 4), value (1, 2, 7, 4)",
    ),
    "batches": (
        some((1, 2, 5, 4), (3, 2, 5, 4), (3, 2, 5, 4)),
        "the batch sizes differ: query (1, 2, 5, 4), key (3, 2, 5, 4), value (3, 2, 5, 4)",
    ),
    "types": (
        [*some((1, 2, 5, 4), (1, 2, 5, 4)), *some((1, 2, 5, 4), dtype=torch.float64)],
        "query, key and value need one floating-point type, not torch.float32, torch.float32, torch.float64: convert "
        "with .to(...)",
    ),
    "whole numbers": (
        some((1, 2, 5, 4), (1, 2, 5, 4), (1, 2, 5, 4), dtype=torch.int64),
        "query, key and value need one floating-point type, not torch.int64, torch.int64, torch.int64: convert with "
        ".to(...)",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_tensors_that_do_not_fit(misfit):
    tensors, words = MISFITS[misfit]
    with says(ShapeError, words):
        check_shapes(*tensors)
    with says(ShapeError, words):
        bare_read(*tensors)


@pytest.mark.parametrize("path", ["auto", "plain", "matmul", "fused", "tiled"])
def test_no_path_skips_the_check(path):
    tensors = some((1, 4, 5, 4), (1, 3, 5, 4), (1, 3, 5, 4))
    with pytest.raises(ShapeError, match="^the key heads must equal the value heads and divide the query heads: "):
        bare_read(*tensors, path=path)


@pytest.mark.parametrize("path", ["auto", "plain", "matmul", "fused", "tiled"])
@pytest.mark.parametrize("widths", [(4, 6), (6, 4)])
def test_a_query_and_a_key_of_different_width(widths, path):
    """A product needs equal widths: on every path, and in our words."""
    tensors = some((1, 2, 5, widths[0]), (1, 2, 60, widths[1]), (1, 2, 60, 4))
    with pytest.raises(ShapeError, match=r"\(1, 2, 5, \d\).*\(1, 2, 60, \d\)"):
        bare_read(*tensors, path=path)


# ------------------------------------------------------------------------------------------------------ masks and biases


@pytest.mark.parametrize(("before", "after"), [(-1, 0), (3, -2), (None, -1), (-1, None)])
def test_a_window_of_less_than_nothing(before, after):
    with says(ShapeError, f"a window holds its own position: before={before} and after={after} must be 0 or more"):
        window(before, after)


def test_a_mask_is_boolean():
    words = "a mask is boolean, not torch.float32: pass mask=x.bool(), or bias=x for added scores"
    with says(ShapeError, words):
        allow(torch.ones(5, 7))
    with says(ShapeError, words):
        read(*three(), mask=torch.ones(5, 7))
    with says(ShapeError, words):
        _ = causal & torch.ones(5, 7)


def test_a_mask_or_bias_of_too_many_axes():
    with says(ShapeError, "the mask has shape (1, 1, 2, 5, 7): pass at most [b, h, q, k]"):
        read(*three(), mask=torch.ones(1, 1, 2, 5, 7).bool())
    with says(ShapeError, "the bias has shape (1, 1, 2, 5, 7): pass at most [b, h, q, k]"):
        read(*three(), bias=torch.ones(1, 1, 2, 5, 7))
    with says(ShapeError, "the bias has shape (1, 1, 2, 5, 7): pass at most [b, h, q, k]"):
        as_biases((None, Alibi.for_heads(2), torch.ones(1, 1, 2, 5, 7)))


# --------------------------------------------------------------------------------------------------- scores, normalisers


@pytest.mark.parametrize("k", [0, -3])
def test_top_k_keeps_at_least_one(k):
    with says(ReadError, f"top-k softmax keeps at least one key, not {k}: pass k >= 1"):
        TopKSoftmax(k)


@pytest.mark.parametrize("path", ["auto", "plain", "matmul", "tiled"])
def test_a_location_needs_the_step_before(path):
    words = (
        "a location-aware score needs the alignment of the step before: pass score.after(previous_weights), with zeros "
        "[b, h, 1, k] at the first step"
    )
    with says(ReadError, words):
        read(*three(), score=LocationAware(4, 8), path=path)


def test_a_location_score_by_itself():
    score = LocationAware(4, 8)
    query, key, _ = three()
    for call in (lambda: score.block(query, key, slice(None), slice(None)), lambda: score.plain(query, key)):
        with pytest.raises(ReadError, match=r"^a location-aware score needs the alignment of the step before: "):
            call()


def test_an_alignment_over_other_keys():
    score = LocationAware(4, 8)
    with says(
        ShapeError,
        "the previous alignment covers 6 keys, but there are 7: pass the weights over these very keys",
    ):
        read(*three(), score=score.after(torch.zeros(1, 2, 1, 6)))


# ----------------------------------------------------------------------------------------------------------------- paths


def test_a_path_that_is_none():
    with says(ReadError, "there is no path 'flash': pass 'auto', 'fused', 'matmul', 'tiled' or 'plain'"):
        bare_read(*three(), path="flash")


def learned(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, requires_grad=True)


REFUSALS = {
    "additive": ({"score": Additive(4, 8)}, "the score Additive is not a product of query and key"),
    "soft-capped": ({"score": SoftCapped(5.0)}, "the score SoftCapped is not a product of query and key"),
    "entmax": ({"normalise": entmax15}, "the normaliser Entmax is not softmax"),
    "sigmoid": ({"normalise": sigmoid}, "the normaliser Sigmoid is not softmax"),
    "hard": ({"normalise": hard}, "the normaliser Hard is not softmax"),
    "monotonic": ({"normalise": monotonic}, "the normaliser Monotonic is not softmax"),
    "top k": ({"normalise": TopKSoftmax(3)}, "the normaliser TopKSoftmax is not softmax"),
    "window": ({"mask": window(2)}, "it would visit every key that the window cuts off"),
    "causal window": ({"mask": causal & window(None, 2)}, "it would visit every key that the window cuts off"),
    "alibi": ({"bias": Alibi.for_heads(2)}, "the bias Alibi would have to be written out N x N"),
    "relative": ({"bias": Relative(torch.zeros(2, 5))}, "the bias Relative would have to be written out N x N"),
    "one of two": ({"bias": (torch.zeros(7), Alibi.for_heads(2))}, "the bias Alibi would have to be written out N x N"),
    "learned bias": ({"bias": learned(5, 7)}, "a bias with a gradient must be per key, [..., 1, k]"),
    "learned, hidden": (
        {"bias": torch.full((1, 7), -torch.inf, requires_grad=True)},
        "a bias with a gradient must be finite (-inf times 0 is not a number)",
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_the_fused_path_refuses(refusal):
    rules, why = REFUSALS[refusal]
    with says(ReadError, f"the fused path cannot do this read: {why}; leave path out, or pass path='tiled'"):
        read(*three(), **rules, path="fused")
    for way_out in ("auto", "tiled"):
        assert read(*three(), **rules, path=way_out).mixed.shape == (1, 2, 5, 4)


@pytest.mark.parametrize(("q", "k"), [(0, 7), (5, 0)])
def test_the_fused_path_refuses_nothing_to_read(q, k):
    with says(
        ReadError,
        "the fused path cannot do this read: there is nothing to read; leave path out, or pass path='tiled'",
    ):
        read(*three(q, k), path="fused")
    assert read(*three(q, k)).mixed.shape == (1, 2, q, 4)


def test_the_fused_path_refuses_other_devices():
    with says(
        ReadError,
        "the fused path cannot do this read: it runs on cpu, and these tensors are on meta; leave path out, or pass "
        "path='tiled'",
    ):
        read(*three(device="meta"), path="fused")


def test_a_bias_that_needs_no_gradient_now_is_no_reason_to_refuse():
    with torch.no_grad():
        assert read(*three(), bias=learned(5, 7), path="fused").path == "fused"


def test_the_fused_path_has_no_second_derivative():
    query, key, value = three(60, 60, requires_grad=True)
    mixed = read(query, key, value, path="fused").mixed
    with says(
        ReadError,
        "the fused kernel has no second derivative: pass path='tiled' (or path='matmul') to read, or leave out "
        "create_graph=True",
    ):
        torch.autograd.grad(mixed.sum(), query, create_graph=True)
    for way_out in ("tiled", "matmul"):
        mixed = read(query, key, value, path=way_out).mixed
        (first,) = torch.autograd.grad(mixed.square().sum(), query, create_graph=True)
        assert torch.autograd.grad(first.sum(), key)[0].shape == key.shape


# --------------------------------------------------------------------------------------------- weights and their summaries


def test_weights_that_do_not_exist():
    weights = read(*three()).weights
    for index, words in (
        ((5, 0), "there is no row 5: this read has 5"),
        ((-6, 0), "there is no row -6: this read has 5"),
        ((0, 7), "there is no column 7: this read has 7"),
        ((slice(None), -8), "there is no column -8: this read has 7"),
    ):
        with says(AddressError, words):
            _ = weights[index]


def test_weights_asked_for_in_other_ways():
    weights = read(*three()).weights
    with says(ShapeError, "weights are asked for by two indices: weights[rows, cols], such as weights[10:20, :]"):
        _ = weights[0, 0, 0]
    with says(ShapeError, "rows are asked for by a slice or a number, not by list"):
        _ = weights[[1, 2], :]
    with says(ShapeError, "columns are asked for by a slice or a number, not by Tensor"):
        _ = weights[:, torch.tensor([1])]
    with says(ShapeError, "columns are asked for in one piece, not in steps of -1: index the result instead"):
        _ = weights[:, ::-1]


@pytest.mark.parametrize("shape", [(6,), (6, 2), (7, 2, 1), (1, 1, 6, 2), (1, 1, 1, 7, 2)])
def test_regions_of_other_keys(shape):
    shown = (*shape, 1) if len(shape) == 1 else shape
    with says(ShapeError, f"regions are [k, r] or [b, 1, k, r] with k = 7 keys, not {shown}"):
        read(*three()).mass(torch.ones(shape))


@pytest.mark.parametrize("shape", [(6,), (1, 2, 6), (1, 1, 2, 5)])
def test_row_weights_of_other_rows(shape):
    with says(ShapeError, f"row weights are [q] or [b, h, q] with q = 5 queries, not {shape}"):
        read(*three()).received(torch.ones(shape))


@pytest.mark.parametrize(("top", "bins"), [(-1, 4), (4, -1), (-2, -2)])
def test_summaries_of_less_than_nothing(top, bins):
    with says(ReadError, f"top and bins count things: {top} and {bins} must be 0 or more"):
        read(*three()).summary(top=top, bins=bins)


@pytest.mark.parametrize(("rule", "name"), [(sigmoid, "Sigmoid"), (hard, "Hard"), (TopKSoftmax(2), "TopKSoftmax")])
def test_only_softmax_has_a_log_mass(rule, name):
    with says(ReadError, f"{name} has no log-mass to merge by: reads merge under softmax only"):
        _ = read(*three(), normalise=rule).part


# -------------------------------------------------------------------------------------------------- what errors are made of


def test_errors_are_also_what_python_would_raise():
    assert issubclass(ShapeError, ValueError)
    assert issubclass(ReadError, ValueError)
    assert issubclass(AddressError, KeyError)
    assert str(AddressError("plain words, no quotes")) == "plain words, no quotes"
    assert str(AddressError()) == ""


def test_a_score_that_fits_raises_nothing():
    read(*three(), score=Cosine(torch.ones(1, 2, 5)), mask=causal & lengths(torch.tensor([3])) & Mask(before=2))
