"""Approximate scans over cells: the most promising cells are read exactly, the others are bounded from above.

The share of the rows that is read is what the index has found to be needed for the wanted recall. What is not read is
bounded whatever its rows are: all their logits are at most `reach` above that of their mean, they are 0 above it on
average, and their mean square is at most `scatter`; then the mean of exp() is at most Bennett's (1962).
"""

import time
from dataclasses import dataclass

import numpy as np

from recuerdo.errors import InputError
from recuerdo.store import indexing
from recuerdo.store.cells import FIRST, HIGH, LAST, LONGEST, LOW, RADIUS, SCATTER, SLACK, Cells
from recuerdo.store.grouping import NEAREST, promising
from recuerdo.store.index import Index
from recuerdo.store.record import DAY, Rules
from recuerdo.store.softmax import MORE, Kept, Mass, settled

HALF = 2.0**-24  # how much one float32 operation rounds
TORN = 1e-2  # a logit in float32 is not as far from the exact one
TOO_MANY = 0.25  # share of the rows from which on reading all of them is cheaper


ROUNDED = 1e-3  # what float32 may have rounded away of a cosine's square


@dataclass(frozen=True)
class Near:
    """Scans go by the index where there is one: `recall` is the share of the ten best that they should find.

    It is measured on questions between rows of the memory, when the index is made; who asks for more than ten is given
    more, by the root. Raises InputError for what is no share.
    """

    recall: float = 0.99

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise InputError(f"recall is a share above 0 and at most 1, not {self.recall}")


@dataclass(eq=False)
class Changed:
    """What hands changed since: `extra` [m], the highest bias in a cell, and how many rows are never read."""

    change: int
    extra: np.ndarray
    silent: int

    @classmethod
    def of(cls, cells: Cells, index: Index) -> "Changed":
        """As the index of the memory says now."""
        n = index.state.places
        silent = int((~index.alive[:n] | np.isneginf(index.bias[:n])).sum())
        biased = np.flatnonzero(index.bias[: cells.places] > 0)
        extra = np.zeros(len(cells.table.means))
        np.maximum.at(extra, cells.cell_of[biased], index.bias[biased])
        return cls(index.state.change, extra, silent)


@dataclass(frozen=True, eq=False)
class Look:
    """One approximate look at a memory: `query` [d] float64 with the sharpness in it."""

    cells: Cells
    changed: Changed
    index: Index
    query: np.ndarray
    top: int
    rules: Rules
    now: float

    def read(self, recall: float) -> tuple[np.ndarray, np.ndarray, float, float, int] | None:
        """Places [k], logits [k], the log-mass, the most that the log-mass of the rest may be, and how many rows were
        read; None where reading all rows is cheaper, or so few are not enough."""
        table, n = self.cells.table, self.index.state.places
        keys = self.index.keys()
        length = float(np.linalg.norm(self.query))
        with np.errstate(over="ignore"):
            short = self.query.astype(np.float32)
        means = (table.means @ short).astype(np.float64)
        extra = self.changed.extra + self._aged()
        order = np.argsort(-(promising(table, means, length) + extra))
        share = float(np.interp(recall, np.linspace(0, 1, len(table.shares)), table.shares))
        wanted = share * max(1.0, self.top / NEAREST) ** 0.5 * len(table.members)
        read = np.cumsum(np.diff(table.starts)[order])
        many = min(len(order), int(np.searchsorted(read, wanted)) + 1)
        tail = np.arange(self.cells.places, n)
        looked = len(tail) + int(read[many - 1])
        if looked > TOO_MANY * n:
            return None
        some, rest = np.sort(order[:many]), order[many:]
        places, logits = np.empty(looked, np.int64), np.empty(looked, np.float32)
        places[: len(tail)] = tail
        with np.errstate(over="ignore", invalid="ignore"):  # told by Mass
            np.dot(keys[self.cells.places :], short, out=logits[: len(tail)])
            at = len(tail)
            for a, b in zip(table.starts[some].tolist(), table.starts[some + 1].tolist(), strict=True):
                places[at : at + b - a] = table.members[a:b]
                np.dot(self.cells.rows[a:b], short, out=logits[at : at + b - a])
                at += b - a
        self._bend(logits, places)
        if np.count_nonzero(logits > -np.inf) < self.top:
            return None
        unseen = self._bound(rest, means, extra, length) if len(rest) else -np.inf
        return *self._settled(keys, places, logits), unseen, looked

    def _bend(self, logits: np.ndarray, places: np.ndarray) -> None:
        """Add to logits [c] what biases and age say of the rows at places [c]."""
        index = self.index
        if not index.even:
            gone = (places < 0) | ~index.alive[places]
            logits += np.where(gone, np.float32(-np.inf), index.bias[places])
        if self.rules.fading:
            logits -= (
                self.rules.fading * self._age(index.columns["times"].rows(index.state.places)[places, 0])
            ).astype(np.float32)

    def _age(self, times: np.ndarray) -> np.ndarray:
        return (self.now - times) / DAY

    def _aged(self) -> np.ndarray | float:
        """What fading takes from a logit at least, [m]."""
        fading, reach = self.rules.fading, self.cells.table.reach
        if not fading:
            return 0.0
        least = fading * self._age(reach[:, LAST if fading > 0 else FIRST])
        return SLACK * np.abs(least) - least

    def _bound(self, rest: np.ndarray, means: np.ndarray, extra: np.ndarray, length: float) -> float:
        """The most that the log-mass of the cells `rest` may be."""
        reach, sizes = self.cells.table.reach[rest], np.diff(self.cells.table.starts)[rest]
        middle = means[rest]
        sphere = _on_a_sphere(self.cells.lengths[rest], middle, reach, length)
        slack = (SLACK + len(self.query) * HALF) * (1 + length * reach[:, LONGEST])
        high = np.maximum(np.minimum(length * reach[:, RADIUS], sphere - middle), 0) + slack
        square = length**2 * reach[:, SCATTER] + slack**2
        # log(high² exp(-square / high) + square exp(high)) - log(high² + square)
        with np.errstate(under="ignore"):
            few = high**2 * np.exp(-square / high - high)
        bennett = high + np.log((few + square) / (high**2 + square))
        with np.errstate(divide="ignore", under="ignore"):
            each = np.log(sizes) + middle + np.minimum(bennett, high) + extra[rest] + slack
            most = each.max()
            return float(most + np.log(np.exp(each - most).sum())) if np.isfinite(most) else float(most)

    def _settled(
        self, keys: np.ndarray, places: np.ndarray, logits: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        mass, kept = Mass(1), Kept(1, self.top + MORE)
        if len(logits):
            kept.add(logits[:, None], places.__getitem__)
            mass.add(logits[:, None])

        def exact(_: int, some: np.ndarray) -> np.ndarray:
            true = keys[some].astype(np.float64) @ self.query + self.index.bias[some]
            if self.rules.fading:
                true -= self.rules.fading * self._age(self.index.columns["times"].rows(len(keys))[some, 0])
            return true

        best = kept.best()
        rough, true = best[0][1], exact(0, best[0][0])
        if (np.abs(rough - true) > TORN * (1 + np.abs(true))).any():
            raise indexing.foreign(self.cells.path, self.index.path)
        found, logits, lse = settled(best, mass, self.top, exact)
        return found[0], logits[0], float(lse[0])


def _on_a_sphere(norms: np.ndarray, middle: np.ndarray, reach: np.ndarray, length: float) -> np.ndarray:
    """The most that query . row may be, of rows not longer than `longest` whose part along the mean is within
    [low, high]: [m]. `norms` [m] are the lengths of the means: one that is too short says nothing of its direction."""
    longest = reach[:, LONGEST]
    told = norms > 0.1 * longest
    along = np.clip(middle / np.where(told, norms, 1.0) / max(length, 1e-30), -1, 1)
    part = np.clip(longest * along, reach[:, LOW], reach[:, HIGH])
    across = np.sqrt(np.maximum(longest**2 - part**2, 0) * (1 - along**2 + ROUNDED))
    return length * np.where(told, along * part + across, longest)


class Nearby:
    """The approximate scans of one open memory."""

    def __init__(self, near: Near, index: Index):
        self.near, self._index = near, index
        self._cells: Cells | None = None
        self._changed: Changed | None = None

    def scan(
        self, queries: np.ndarray, top: int, rules: Rules
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, int] | None:
        """Queries [q, d] with the sharpness in them: places [q, k], logits [q, k], log-mass [q], the most that the
        log-mass of what was not read may be [q], how many rows were read for each at least, and how many there are to
        be read; None where there is no index, or reading all rows is cheaper."""
        cells = self._current()
        if cells is None or not len(queries):
            return None
        if self._changed is None or self._changed.change != self._index.state.change:
            self._changed = Changed.of(cells, self._index)
        now = time.time() if rules.now is None else rules.now
        each = []
        for query in queries:
            one = Look(cells, self._changed, self._index, query, top, rules, now).read(self.near.recall)
            if one is None:
                return None
            each.append(one)
        places, logits, lse, unseen, looked = zip(*each, strict=True)
        addressed = self._index.state.places - self._changed.silent
        return np.stack(places), np.stack(logits), np.array(lse), np.array(unseen), min(looked), addressed

    def _current(self) -> Cells | None:
        if self._cells is None or not self._cells.current:
            self._cells, self._changed = indexing.opened(self._index), None
        return self._cells
