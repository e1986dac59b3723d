"""One look at a picture: which patches a vision model read, as maps over the grid of its patches.

    raw      what the class token read in one layer, the mean over its heads
    rollout  attention multiplied through all layers, half of each being its residual path (Abnar & Zuidema 2020)

Maps are shares of what went to patches at all; `aside` is what went to other tokens, the class token and registers.
A model without a class token is asked what all its patches read on average.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recuerdo.errors import InputError
from recuerdo.read import Reading

VIEWS = ("raw", "rollout")
ROWS = 128  # of a weight matrix that are written out at once


@dataclass(frozen=True)
class Map:
    """`shares` [rows, columns] of the patches, which sum to one, and `aside`: the share of other tokens before that."""

    name: str
    label: str
    note: str
    shares: np.ndarray
    aside: float


@dataclass(frozen=True)
class Gaze:
    """A picture [3, height, width] uint8, the maps over it, the first of which is shown first, and the map of each head
    of the layer that was asked for."""

    model: str
    picture: Tensor
    maps: list[Map]
    heads: list[Map]
    command: str = ""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = self.maps[0].shares.shape
        return rows, columns

    def box(self, row: int, column: int) -> tuple[float, float, float, float]:
        """The pixels of a patch: top, left, bottom, right."""
        (rows, columns), (height, width) = self.grid, self.picture.shape[1:]
        return row * height / rows, column * width / columns, (row + 1) * height / rows, (column + 1) * width / columns


def gaze(
    reads: Mapping[str, Reading],
    grid: tuple[int, int],
    first: int,
    *,
    layer: int | None = None,
    head: int | None = None,
    view: str = "raw",
) -> tuple[list[Map], list[Map]]:
    """The maps of a picture, `view` first, and those of each head of a layer (None: the last, negative: from the end).

    `reads` are the layers' self-attention over `first` other tokens and rows x columns patches. With `head` the raw map
    is of this head alone. Raises InputError for a layer, head or view that is not there.
    """
    if view not in VIEWS:
        raise InputError(f"there is no view {view!r} of a picture: choose {' or '.join(VIEWS)}")
    each = list(reads.values())
    at = len(each) - 1 if layer is None else layer
    if not -len(each) <= at < len(each):
        raise InputError(f"there is no layer {layer}: this model has layers 0 to {len(each) - 1}")
    at %= len(each)
    weights = _asked(each[at], first)
    if head is not None and not 0 <= head < len(weights):
        raise InputError(f"there is no head {head}: this model has heads 0 to {len(weights) - 1}")
    asks = "the class token" if first else "the patches, on average,"
    heads = [
        _map(f"head {i}", f"head {i}", f"what {asks} read in layer {at}, head {i}", row, grid, first)
        for i, row in enumerate(weights)
    ]
    raw = weights.mean(0) if head is None else weights[head]
    which = "the mean over its heads" if head is None else f"head {head}"
    note = f"what {asks} read in layer {at}, {which}"
    maps = [_map("raw", f"layer {at}" + ("" if head is None else f", head {head}"), note, raw, grid, first)]
    if len(each) > 1:
        note = f"what {asks} drew on through all layers, half of each its residual path"
        maps.append(_map("rollout", "rollout", note, _rolled(each, first), grid, first))
    return sorted(maps, key=lambda one: one.name != view), heads


def _asked(reading: Reading, first: int) -> np.ndarray:
    """What is read by the class token, or by all patches on average: [heads, tokens]."""
    found = reading.weights[0:1, :][0, :, 0] if first else reading.received()[0] / reading.shape[2]
    return found.double().numpy()


def _rolled(reads: list[Reading], first: int) -> np.ndarray:
    """The flow from the class token, or from all patches, through the layers to each token: [tokens]."""
    n = reads[0].shape[3]
    flow = torch.zeros(n, dtype=torch.float64)
    flow[slice(0, 1) if first else slice(None)] = 1.0 if first else 1.0 / n
    for reading in reversed(reads):
        through = torch.zeros_like(flow)
        for row in range(0, n, ROWS):
            through += flow[row : row + ROWS] @ reading.weights[row : row + ROWS, :][0].double().mean(0)
        flow = 0.5 * flow + 0.5 * through
    return flow.numpy()


def _map(name: str, label: str, note: str, weights: np.ndarray, grid: tuple[int, int], first: int) -> Map:
    patches = weights[first:].reshape(grid)
    held = float(patches.sum())
    return Map(name, label, note, patches / max(held, 1e-30), max(0.0, 1.0 - held / float(weights.sum())))
