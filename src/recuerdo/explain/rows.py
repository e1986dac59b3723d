"""The rows of chosen queries in every layer and head, exact, a few at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from recuerdo.errors import AddressError
from recuerdo.read import Reading

ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Layer:
    """One read of one module over all its steps: `address` is the module's path."""

    address: str
    steps: list[Reading]

    @property
    def heads(self) -> int:
        """Query heads of this module."""
        return self.steps[0].shape[1]

    def rows(self, first: int, last: int, keys: int) -> torch.Tensor:
        """Weights [h, last - first, keys] of queries counted through all steps; keys that do not exist yet weigh 0."""
        parts, seen = [], 0
        for step in self.steps:
            q, k = step.shape[2:]
            a, b = max(first - seen, 0), min(last - seen, q)
            if a < b:
                reach = step.pairing.mask.columns(slice(a, b), step.pairing.extent)  # a causal row needs no later key
                width = min(reach.stop, k, keys)
                block = step.weights[a:b, :width][0].float()
                parts.append(torch.nn.functional.pad(block, (0, keys - width)))
            seen += q
        return torch.cat(parts, 1)

    @property
    def queries(self) -> int:
        """Queries of all steps."""
        return sum(step.shape[2] for step in self.steps)

    @property
    def keys(self) -> int:
        """Keys of the last step."""
        return self.steps[-1].shape[3]


@dataclass(frozen=True)
class Selection:
    """Which layers and heads a map is made of."""

    layers: list[Layer]
    head: int | None = None
    words: str = "mean over all layers and heads"

    @classmethod
    def of(cls, layers: list[Layer], layer: int | None = None, head: int | None = None) -> "Selection":
        """All of them, one layer, or one head of one layer. Raises AddressError for what does not exist."""
        if not layers:
            raise AddressError("nothing was read that could be shown: the list of layers is empty")
        if layer is not None and not -len(layers) <= layer < len(layers):
            raise AddressError(f"there is no layer {layer}: this model has layers 0 to {len(layers) - 1}")
        if head is not None and not 0 <= head < layers[0].heads:
            raise AddressError(f"there is no head {head}: this model has heads 0 to {layers[0].heads - 1}")
        if layer is not None:
            layer %= len(layers)
            layers = [layers[layer]]
        what = {
            (False, False): "mean over all layers and heads",
            (True, False): f"layer {layer}, mean over its heads",
            (False, True): f"head {head} of every layer",
            (True, True): f"layer {layer}, head {head}",
        }[layer is not None, head is not None]
        return cls(layers, head, what)

    @property
    def heads(self) -> int:
        """How many heads of a layer are part of it."""
        return 1 if self.head is not None else self.layers[0].heads

    def rows(self, layer: Layer, first: int, last: int, keys: int) -> np.ndarray:
        """Weights [h, last - first, keys] of the chosen heads of one layer."""
        with torch.no_grad():
            rows = layer.rows(first, last, keys)
        return (rows if self.head is None else rows[self.head : self.head + 1]).numpy()

    def chunks(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Pieces of a range of queries that are worked on at once."""
        for start in range(first, last, ROWS_AT_ONCE):
            yield start, min(start + ROWS_AT_ONCE, last)
