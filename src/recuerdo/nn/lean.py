"""Linear maps and norms at hand.

Where a decoder says one piece after another, finding a layer's parameters and the ceremony of a module's call take
longer than its product. Here they are found once. Who hooks such a layer does not hear of it; reads go through modules
that are called, and are watched and bent there.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Map(NamedTuple):
    """A linear map: `weight` [out, in], `bias` [out]."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, *layers: nn.Linear) -> "Map":
        """That of a layer; of several, to what all of them make of the same rows, side by side."""
        weights, biases = zip(*((layer.weight, layer.bias) for layer in layers), strict=True)
        return cls(*weights, *biases) if len(layers) == 1 else cls(torch.cat(weights), torch.cat(biases))

    def __call__(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return functional.linear(x, self.weight, self.bias)


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
