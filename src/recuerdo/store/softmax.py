"""One pass over a matrix of keys: the best rows and the log-mass of all, for some queries.

Logits are [c, q], a row of keys a row of theirs: as the product of keys and queries comes, so that nothing is copied.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np

from recuerdo.errors import InputError

MORE = 16  # rows beyond the wanted that are worked out exactly: in float32 they may stand in the wrong order
LOGITS = 2**20  # at once: few products keep threads from waiting for each other
LEAST, MOST = 4096, 2**17  # rows at once
FIRST = 2048  # rows at first: the best of these are a floor that few later ones pass
LARGE, THIN = 2**17, 8  # so many logits of several queries: torch multiplies; so few queries: the other way round
WIDE = 1024  # logits side by side: over short rows numpy is slow
SAFE = 40.0  # exp() of a logit within this needs no shift in float32


def best(
    keys: np.ndarray, queries: np.ndarray, extra: np.ndarray | None, top: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys [n, d] float32 and queries [q, d] float64, `extra` [n] added to the logits (-inf = not there).

    Places [q, k] with the highest logits first (-1 where there are fewer; of equal ones the first), their logits [q, k]
    float64 (worked out anew in float64), and the log-sum-exp of all logits [q]. Raises InputError where they overflow.
    """
    n, q = len(keys), len(queries)
    with np.errstate(over="ignore"):  # told below
        short = queries.astype(np.float32)
    product = _by_torch(short) if q > 1 and q * n >= LARGE else partial(_by_numpy, np.ascontiguousarray(short.T))
    size = max(1, min(n, max(LEAST, min(MOST, LOGITS // max(1, q)))))
    room = np.empty((size, q), np.float32)  # once: new pages are dear
    mass, kept = Mass(q), Kept(q, top + MORE)
    for first, end in pairwise(sorted({0, *range(min(FIRST, size), n, size), n})):
        logits = room[: end - first]
        with np.errstate(over="ignore", invalid="ignore"):
            product(keys[first:end], logits)
            if extra is not None:
                logits += extra[first:end, None]
        kept.add(logits, partial(np.add, first))
        mass.add(logits)
    return settled(kept.best(), mass, top, lambda i, some: _exact(keys, queries[i], extra, some))


def _by_numpy(turned: np.ndarray, part: np.ndarray, logits: np.ndarray) -> None:
    np.matmul(part, turned, out=logits)


def _by_torch(short: np.ndarray) -> Callable[[np.ndarray, np.ndarray], object]:
    """Some queries and many keys: torch multiplies such thin matrices faster, which is worth its import."""
    import torch

    queries = torch.from_numpy(short)
    turned = queries.T.contiguous()

    def product(part: np.ndarray, logits: np.ndarray) -> None:
        keys, room = torch.from_numpy(_unlocked(part)), torch.from_numpy(logits)
        if len(short) < THIN:
            room.copy_(torch.mm(queries, keys.T).T)
        else:
            torch.mm(keys, turned, out=room)

    return product


def _unlocked(array: np.ndarray) -> np.ndarray:
    """The same memory: torch warns of arrays that may only be read, also where it only reads them."""

    class Open:
        def __init__(self) -> None:
            self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}

    return np.asarray(Open())


def _exact(keys: np.ndarray, query: np.ndarray, extra: np.ndarray | None, some: np.ndarray) -> np.ndarray:
    logits = keys[some].astype(np.float64) @ query
    return logits if extra is None else logits + extra[some]


def _over_rows(reduce: Callable[..., np.ndarray], logits: np.ndarray) -> np.ndarray:
    """Reduce logits [c, q] to [q], many rows side by side at first."""
    q = logits.shape[1]
    beside = WIDE // max(1, q)
    whole = len(logits) // max(1, beside) * beside
    if not whole:
        return reduce(logits, axis=0)
    wide = reduce(logits[:whole].reshape(-1, beside * q), axis=0).reshape(beside, q)
    return reduce(np.concatenate([wide, logits[whole:]]), axis=0)


class Mass:
    """The sum of exp(logits - base) of q queries, part by part."""

    def __init__(self, q: int):
        self.base, self.sum, self.some = np.zeros(q), np.zeros(q), np.zeros(q, bool)

    def add(self, logits: np.ndarray) -> None:
        """Takes logits [c, q] float32 in, whose place is used up. Raises InputError where they overflow."""
        peak = _over_rows(np.maximum.reduce, logits)
        if not (peak < np.inf).all():
            raise InputError("the logits overflow: lower the sharpness, or make keys and queries shorter")
        there = peak > -np.inf
        high = np.where(there, peak, 0.0).astype(np.float64)
        low = there & ~self.some & (high < -SAFE)  # nothing was summed up yet, so the base may go down
        new = np.where(low | (high > self.base + SAFE), high, self.base)
        with np.errstate(under="ignore"):
            self.sum *= np.exp(np.minimum(self.base - new, 0.0))
            self.base, self.some = new, self.some | there
            if new.any():
                logits -= new.astype(np.float32)
            self.sum += _over_rows(partial(np.add.reduce, dtype=np.float64), np.exp(logits, out=logits))

    def log(self) -> np.ndarray:
        """The log-mass, [q] float64."""
        with np.errstate(divide="ignore"):
            return self.base + np.log(self.sum)


class Kept:
    """The `most` best logits of each of q queries so far, and their places; of equal ones the first places."""

    def __init__(self, q: int, most: int):
        self.most, self.floor = most, np.full(q, -np.inf, np.float32)  # the least logit that is among the best
        # Sorted by query, and best first.
        self._query, self._places, self._logits = np.empty(0, int), np.empty(0, int), np.empty(0, np.float32)

    def add(self, logits: np.ndarray, place: Callable[[np.ndarray], np.ndarray]) -> None:
        """Takes logits [c, q] in; `place` gives the places of some rows of them."""
        floor, q = self.floor, logits.shape[1]
        if np.isneginf(floor).any() and len(logits) > self.most:  # else all would be sorted
            least = np.partition(logits, len(logits) - self.most, axis=0)[len(logits) - self.most]
            floor = np.maximum(floor, np.nextafter(least, np.float32(-np.inf)))  # it may be among the best itself
        found = np.flatnonzero(logits > floor)
        if not len(found):
            return
        row, query = np.divmod(found, q)
        query, places = np.concatenate([self._query, query]), np.concatenate([self._places, place(row)])
        told = np.concatenate([self._logits, logits.ravel()[found]])
        order = np.lexsort((places, -told, query))
        query, places, told = query[order], places[order], told[order]
        starts = np.searchsorted(query, np.arange(q))
        some = np.arange(len(query)) - starts[query] < self.most
        self._query, self._places, self._logits = query[some], places[some], told[some]
        ends = np.searchsorted(self._query, np.arange(q), "right")
        full = np.bincount(self._query, minlength=q) == self.most
        self.floor[full] = self._logits[ends[full] - 1]

    def best(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Places and logits for each query, best first."""
        ends = np.searchsorted(self._query, np.arange(1, len(self.floor)))
        return list(zip(np.split(self._places, ends), np.split(self._logits, ends), strict=True))


def settled(
    kept: list[tuple[np.ndarray, np.ndarray]],
    mass: Mass,
    top: int,
    exact: Callable[[int, np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows kept for each query with the logits that `exact(query, places)` works out: as `best` gives them back."""
    q = len(kept)
    places, logits = np.full((q, top), -1), np.full((q, top), -np.inf)
    for i, (found, rough) in enumerate(kept):
        if len(found):
            base = mass.base[i]
            true = exact(i, found)
            # The log-mass takes the exact logits of these rows too: it is they that weigh.
            with np.errstate(under="ignore"):
                rest = max(0.0, mass.sum[i] - np.exp(rough - np.float32(base)).sum(dtype=np.float64))
                mass.sum[i] = rest + np.exp(true - base).sum()
            order = np.lexsort((found, -true))[:top]
            places[i, : len(order)], logits[i, : len(order)] = found[order], true[order]
    return places, logits, mass.log()
