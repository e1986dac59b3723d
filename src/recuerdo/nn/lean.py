"""Linear maps and norms at hand, and their products by the faster of two libraries.

Where a decoder says one piece after another, finding a layer's parameters and the ceremony of a module's call take
longer than its product. Here they are found once. Who hooks such a layer does not hear of it; reads go through modules
that are called, and are watched and bent there.

The product itself torch leaves to MKL, which on AMD's processors does without half of what they can (AVX-512). torch
has oneDNN as well, which does not, and which it uses for bfloat16: at 100 rows of 192 it takes half the time, for a few
rows MKL is faster (`benchmarks/translate.py`). The sums are the same up to the rounding of their order.
"""

import platform
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST = 2**20  # products of two numbers from which oneDNN is the faster one
HAS_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and platform.machine() in ("x86_64", "AMD64")
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`functional.linear`: x [..., in], weight [out, in], bias [out] -> [..., out].

    By oneDNN where that is worth it and nothing else is asked for: large enough, float32 on the processor, and neither
    gradients nor another precision nor a graph of the operations wanted.
    """
    if (
        HAS_ONEDNN
        and not torch.compiler.is_compiling()
        and x.numel() * weight.size(0) >= LEAST
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    ):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return functional.linear(x, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` whose result is a `product`."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return product(input, self.weight, self.bias)


class Map(NamedTuple):
    """A linear map of rows: `weight` [out, in], the same `turned` [in, out], `bias` [out]."""

    weight: Tensor
    turned: Tensor
    bias: Tensor

    @classmethod
    def of(cls, layer: nn.Linear) -> "Map":
        """That of a layer."""
        return cls(layer.weight, layer.weight.t(), layer.bias)

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, in] -> [n, out]."""
        if rows.numel() * self.turned.shape[1] >= LEAST:
            return product(rows, self.weight, self.bias)
        return torch.addmm(self.bias, rows, self.turned)


class Norm(NamedTuple):
    """A norm of the last axis, whose shape is `shape`."""

    shape: tuple[int, ...]
    weight: Tensor
    bias: Tensor
    eps: float

    @classmethod
    def of(cls, layer: nn.LayerNorm) -> "Norm":
        """That of a layer."""
        return cls(layer.normalized_shape, layer.weight, layer.bias, layer.eps)

    def __call__(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        return torch.layer_norm(x, self.shape, self.weight, self.bias, self.eps)
