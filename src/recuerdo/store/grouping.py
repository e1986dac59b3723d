"""Which rows belong together: cells of rows that are alike, and how many of them a look must read for the best.

Cells are those of k-means (Lloyd 1982) as inverted files use them (Jégou et al. 2011): a few steps on a sample, then
one pass over all rows. That is a product and a sum over sorted rows, so no library is asked for it.
"""

from collections.abc import Callable

import numpy as np

from recuerdo.store.cells import SHARES, SPREAD, Table, measured
from recuerdo.store.softmax import best

CELLS = 10  # times the root of the number of rows: of fewer, larger ones a greater share of the rows must be read
SAMPLE, STEPS = 16, 4  # rows of the sample for each cell, and steps of Lloyd
PART = 2**11  # rows at once: their distances from all centres stay near
ASKED, NEAREST = 2048, 10  # questions that are made up, and how many of their nearest must be found
BETWEEN = (0.3, 0.5)  # how far from one row to the other a question is
LEAN = 0.4  # of their spread: wide cells come a little earlier than their means say
Step = Callable[[str, int, int], None]


def grouped(keys: np.ndarray, places: np.ndarray, times: np.ndarray, cells: int, step: Step | None = None) -> Table:
    """The cells of the rows at `places` of keys [n, d], whose times are `times` [n].

    `cells`: about how many; 0 = ten times the root of the number of rows. The same rows give the same cells.
    """
    n, draw = len(places), np.random.default_rng(0)
    m = max(1, min(cells or round(CELLS * n**0.5), n))
    step = step or (lambda *_: None)
    sample = keys[np.sort(places[draw.choice(n, min(n, SAMPLE * m), replace=False)])] if n else keys[:0]
    centres = sample[np.sort(draw.choice(len(sample), m, replace=False))] if n else np.zeros((m, keys.shape[1]))
    centres = centres.astype(np.float32)
    for turn in range(STEPS if n else 0):
        step("looking for cells", turn, STEPS)
        centres = _means(sample, nearest(sample, centres), centres)
    group = np.concatenate([np.empty(0, np.int64), *_told(keys, places, centres, step)])
    order = np.argsort(group, kind="stable")
    members, sizes = places[order], np.bincount(group, minlength=m)
    some = np.flatnonzero(sizes)
    starts = np.concatenate([[0], np.cumsum(sizes[some])]).astype(np.int64)
    means, reach = np.zeros((max(1, len(some)), keys.shape[1]), np.float32), []
    for cell in range(len(some)):
        if not cell % 256:
            step("measuring cells", cell, len(some))
        inside = members[starts[cell] : starts[cell + 1]]
        means[cell], told = measured(keys[inside], times[inside])
        reach.append(told)
    starts = starts if len(some) else np.zeros(2, np.int64)
    stats = np.array(reach) if reach else measured(keys[:0], times[:0])[1][None]
    table = Table(means, stats, starts, members.astype(np.int64), np.ones(SHARES))
    table.shares = _shares(keys, table, draw, step)
    return table


def nearest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest of the centres [m, d] for rows [n, d]: [n]."""
    found = np.empty(len(rows), np.int64)
    half = 0.5 * np.einsum("ij,ij->i", centres, centres)
    for first in range(0, len(rows), PART):
        near = rows[first : first + PART] @ centres.T
        near -= half
        found[first : first + PART] = near.argmax(1)
    return found


def _told(keys: np.ndarray, places: np.ndarray, centres: np.ndarray, step: Step) -> list[np.ndarray]:
    told = []
    for first in range(0, len(places), PART):
        if not first % 2**16:
            step("sorting rows into cells", first, len(places))
        told.append(nearest(keys[places[first : first + PART]], centres))
    return told


def _means(rows: np.ndarray, group: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The means of groups of rows; where a group is empty, what it was before."""
    order = np.argsort(group, kind="stable")
    there, first, count = np.unique(group[order], return_index=True, return_counts=True)
    after = before.copy()
    after[there] = np.add.reduceat(rows[order], first) / count[:, None].astype(np.float32)
    return after


def promising(table: Table, means: np.ndarray, length: float) -> np.ndarray:
    """How good the rows of cells may be for a query of a length whose logits of the means are `means` [m]: [m]."""
    return means + LEAN * length * table.reach[:, SPREAD]


def _shares(keys: np.ndarray, table: Table, draw: np.random.Generator, step: Step) -> np.ndarray:
    """What share of the rows is read, the most promising cells first, until the cell of each of the nearest of a
    question is. Quantiles, [SHARES].

    Questions are between two rows: one that somebody asks is seldom as near to rows as these are to their copies.
    """
    rows, sizes = table.members, np.diff(table.starts)
    if len(rows) <= NEAREST:
        return np.ones(SHARES)
    pairs = rows[draw.integers(0, len(rows), (ASKED, 2))]
    part = draw.uniform(*BETWEEN, (ASKED, 1))
    asked = (1 - part) * keys[pairs[:, 0]] + part * keys[pairs[:, 1]]
    cell_of = np.empty(int(rows.max()) + 1, np.int64)
    cell_of[rows] = np.repeat(np.arange(len(table.means)), sizes)
    extra = np.full(int(rows.max()) + 1, -np.inf, np.float32)
    extra[rows] = 0.0
    needed = []
    for first in range(0, ASKED, 32):
        step("asking for the nearest", first, ASKED)
        some = asked[first : first + 32]
        places, _, _ = best(keys[: len(extra)], some, extra, NEAREST + 2)
        for query, found, pair in zip(some, places, pairs[first : first + 32], strict=True):
            means = table.means @ query.astype(np.float32)
            order = np.argsort(-promising(table, means, float(np.linalg.norm(query))))
            read = np.empty(len(order))
            read[order] = np.cumsum(sizes[order]) / len(rows)
            needed.append(read[cell_of[found[~np.isin(found, pair) & (found >= 0)][:NEAREST]]])
    return np.quantile(np.concatenate(needed), np.linspace(0, 1, SHARES))
