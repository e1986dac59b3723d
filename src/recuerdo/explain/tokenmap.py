"""The zoomable map of a whole read: an overview, and below it every cell that can be seen.

The mean over many heads is made row block by row block: nothing N x N is held, whatever N.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from recuerdo.explain.rows import Selection
from recuerdo.explain.sparse import Sparse

OVERVIEW = 256
LOWEST = 2e-4  # no cell below is collected: a screen has 256 shades
CELLS = 600_000


@dataclass(frozen=True, eq=False)
class TokenMap:
    """Tokens on both sides, `overview` [<= 256, <= 256] of mean weights, `cells` exact from their floor on."""

    rows: list[str]
    cols: list[str]
    overview: np.ndarray
    cells: Sparse
    label: str
    causal: bool = False  # a query reads nothing behind its own position


def token_map(
    selection: Selection,
    rows: list[str],
    cols: list[str],
    *,
    cells: int = CELLS,
    progress: Callable[[int, int], None] | None = None,
) -> TokenMap:
    """The mean of the selected heads over all queries `rows` and keys `cols` (their texts)."""
    q, k = len(rows), len(cols)
    a, b = min(OVERVIEW, q), min(OVERVIEW, k)
    row_bin, col_bin = np.arange(q) * a // q, np.arange(k) * b // k
    sums, parts = np.zeros((a, b)), []
    step = max(1, min(128, 2**24 // max(k * selection.heads, 1)))
    for first in range(0, q, step):
        last = min(first + step, q)
        mean = _mean(selection, first, last, k)
        by_row = np.zeros((row_bin[last - 1] - row_bin[first] + 1, k))
        np.add.at(by_row, row_bin[first:last] - row_bin[first], mean)
        edges = np.searchsorted(col_bin, np.arange(b))
        sums[row_bin[first] : row_bin[last - 1] + 1] += np.add.reduceat(by_row, edges, axis=1)
        parts.append(Sparse.of(mean, LOWEST))
        if progress is not None:
            progress(last, q)
    overview = sums / np.bincount(row_bin, minlength=a)[:, None]
    found = Sparse.stacked(parts, k).at_most(cells)
    row = np.repeat(np.arange(q), np.diff(found.start))
    causal = q == k and bool((found.index <= row).all())
    return TokenMap(rows, cols, overview.astype(np.float32), found, selection.words, causal)


@torch.no_grad()
def _mean(selection: Selection, first: int, last: int, keys: int) -> np.ndarray:
    total = torch.zeros(last - first, keys)
    for layer in selection.layers:
        rows = layer.rows(first, last, keys)
        total += rows.sum(0) if selection.head is None else rows[selection.head]
    return (total / (len(selection.layers) * selection.heads)).numpy()


def tile(selection: Selection, rows: slice, cols: slice, keys: int) -> np.ndarray:
    """Exact mean weights of any rectangle of the map, [n, m]."""
    return _mean(selection, rows.start, rows.stop, keys)[:, cols]
