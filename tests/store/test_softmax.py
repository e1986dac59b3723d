"""The pass over all keys against its definition in float64: ids, logits and log-mass, however rows and queries fall."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recuerdo.errors import InputError
from recuerdo.store import softmax
from recuerdo.store.softmax import best


def plain(keys, queries, extra, top):
    """The definition."""
    logits = queries @ keys.T.astype(float) + (0.0 if extra is None else extra)
    order = np.stack([np.lexsort((np.arange(len(keys)), -row))[:top] for row in logits])
    chosen = np.take_along_axis(logits, order, 1)
    return np.where(np.isneginf(chosen), -1, order), chosen, np.logaddexp.reduce(logits, 1)


def agrees(keys, queries, extra, top):
    places, logits, lse = best(keys, queries, extra, top)
    ids, wanted, mass = plain(keys, queries, extra, top)
    k = ids.shape[1]
    scale = max(1.0, float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0)))
    assert places[:, :k].tolist() == ids.tolist()
    assert (places[:, k:] == -1).all()
    np.testing.assert_allclose(logits[:, :k], wanted, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(lse, mass, rtol=0, atol=1e-6 * scale)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 700),
    q=st.sampled_from([1, 2, 9]),
    sharp=st.sampled_from([0.0, 1.0, 20.0, -20.0, 300.0, 1e4]),
    kind=st.sampled_from(["none", "some", "all out", "far down", "far up"]),
    size=st.sampled_from([1, 50, 2**17]),
    seed=st.integers(0, 99),
)
def test_any_rows_and_queries(n, q, sharp, kind, size, seed):
    draw = np.random.default_rng(seed)
    keys, queries = draw.standard_normal((n, 8)).astype(np.float32), sharp * draw.standard_normal((q, 8))
    extra = draw.standard_normal(n).astype(np.float32)
    extra = {
        "none": None,
        "some": np.where(draw.random(n) < 0.3, -np.inf, extra),
        "all out": np.full(n, -np.inf, np.float32),
        "far down": extra - 500,
        "far up": extra + np.linspace(0, 900, n).astype(np.float32),
    }[kind]
    before = softmax.LEAST, softmax.MOST
    softmax.LEAST = softmax.MOST = size
    try:
        agrees(keys, queries, extra, 10)
    finally:
        softmax.LEAST, softmax.MOST = before


def test_equal_rows_come_in_the_order_of_their_places():
    keys = np.ones((5000, 4), np.float32)
    places, logits, lse = best(keys, np.ones((2, 4)), None, 7)
    assert places.tolist() == [[*range(7)]] * 2
    np.testing.assert_allclose(lse, 4 + np.log(5000), atol=1e-6)


@pytest.mark.parametrize("locked", [False, True])
def test_many_queries_over_many_rows_are_multiplied_by_torch_and_the_same(locked):
    draw = np.random.default_rng(0)
    keys = draw.standard_normal((40_000, 8)).astype(np.float32)
    keys.flags.writeable = not locked  # as mapped files are
    queries = 3.0 * draw.standard_normal((32, 8))
    assert len(queries) * len(keys) >= softmax.LARGE
    agrees(keys, queries, None, 10)


def test_logits_that_overflow_are_told():
    for queries in (np.full((1, 4), 1e38), np.full((9, 4), 1e60)):
        with pytest.raises(InputError, match="the logits overflow: lower the sharpness"):
            best(np.ones((3, 4), np.float32), queries, None, 1)
