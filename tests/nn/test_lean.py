"""Products by oneDNN are those of `functional.linear`, and only where nothing else was asked for."""

import platform

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from recuerdo.nn.lean import HAS_ONEDNN, LEAST, Linear, Map, product

FAST = "mkldnn::_linear_pointwise"


def of_onednn(x, weight, bias=None) -> bool:
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        product(x, weight, bias)
    return FAST in {event.key for event in seen.key_averages()}


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=2), st.sampled_from([1, 7, 64, 300]), st.integers(1, 700), st.booleans())
def test_a_product_is_that_of_torch(rows, inside, outside, biased):
    draw = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=draw) for shape in ((*rows, inside), (outside, inside)))
    bias = torch.randn(outside, generator=draw) if biased else None
    with torch.no_grad():
        torch.testing.assert_close(product(x, weight, bias), functional.linear(x, weight, bias), atol=1e-4, rtol=1e-5)
        if x.dim() == 2 and bias is not None:
            torch.testing.assert_close(
                Map(weight, weight.T, bias)(x), functional.linear(x, weight, bias), atol=1e-4, rtol=1e-5
            )
        turned, other = x.transpose(0, -1).contiguous().transpose(0, -1), weight.T.contiguous().T
        torch.testing.assert_close(product(turned, other, bias), product(x, weight, bias), atol=1e-4, rtol=1e-5)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN is for x86 here")
def test_large_products_are_of_onednn_and_small_ones_are_not():
    assert HAS_ONEDNN, "torch renamed its private operator: all products are MKL's now, at half the speed on AMD"
    few, many, weight = torch.randn(1, 64), torch.randn(LEAST // 4096, 64), torch.randn(64, 64)
    with torch.no_grad():
        assert of_onednn(many, weight)
        assert not of_onednn(few, weight)


def test_whoever_wants_gradients_or_another_precision_has_them():
    x, weight, bias = torch.randn(400, 64), torch.randn(64, 64, requires_grad=True), torch.randn(64)
    assert not of_onednn(x, weight, bias)
    layer, plain = Linear(64, 64), nn.Linear(64, 64)
    plain.load_state_dict(layer.state_dict())
    for one in (layer, plain):
        one(x).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad)
    with torch.no_grad():
        assert not of_onednn(x.double(), weight.double())
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        torch.testing.assert_close(Map.of(layer)(x), plain(x), atol=1e-4, rtol=1e-5)
