"""One pass over a matrix of keys: the best rows and the log-mass of all, for some queries."""

from collections.abc import Callable

import numpy as np

from recuerdo.errors import InputError

MORE = 16  # rows beyond the wanted that are worked out exactly: in float32 they may stand in the wrong order
LOGITS = 2**18  # at once: they stay in the processor's cache, and few products keep threads from waiting for each other
LEAST, MOST = 4096, 2**17  # rows at once
THIN, LARGE = 8, 2**20  # so many queries, and products: torch multiplies
SAFE = 40.0  # exp() of a logit within this needs no shift in float32
PENDING = 8  # times the wanted rows are collected before the best of them are picked


def best(
    keys: np.ndarray, queries: np.ndarray, extra: np.ndarray | None, top: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys [n, d] float32 and queries [q, d] float64, `extra` [n] added to the logits (-inf = not there).

    Places [q, k] with the highest logits first (-1 where there are fewer; of equal ones the first), their logits [q, k]
    float64 (worked out anew in float64), and the log-sum-exp of all logits [q]. Raises InputError where they overflow.
    """
    n = len(keys)
    with np.errstate(over="ignore"):  # told below
        short = queries.astype(np.float32)
    size = max(1, min(n, max(LEAST, min(MOST, LOGITS // max(1, len(queries))))))
    room = np.empty((len(queries), size), np.float32)  # once: new pages are dear
    product = _by_torch(short) if len(queries) >= THIN and len(queries) * n >= LARGE else _by_numpy(short)
    mass, kept = Mass(len(queries), size), Kept(len(queries), top + MORE)
    for first in range(0, n, size):
        part = keys[first : first + size]
        logits = room[:, : len(part)]
        with np.errstate(over="ignore", invalid="ignore"):
            product(part, logits)
            if extra is not None:
                logits += extra[first : first + size]
        peak = mass.add(logits)
        kept.add(logits, first, peak)
    return settled(kept.best(), mass, top, lambda i, some: _exact(keys, queries[i], extra, some))


Product = Callable[[np.ndarray, np.ndarray], object]  # takes keys [c, d] and puts their products in the place [q, c]


def _by_numpy(short: np.ndarray) -> Product:
    turned = np.ascontiguousarray(short.T)

    def product(part: np.ndarray, out: np.ndarray) -> None:
        if len(short) == 1:
            np.matmul(part, short[0], out=out[0])
        else:
            out[:] = (part @ turned).T

    return product


def _by_torch(short: np.ndarray) -> Product:
    """Some queries and many keys: torch multiplies such thin matrices faster, which is worth its import."""
    import torch

    queries = torch.from_numpy(short)
    return lambda part, out: torch.mm(queries, torch.from_numpy(_unlocked(part)).T, out=torch.from_numpy(out))


def _unlocked(array: np.ndarray) -> np.ndarray:
    """The same memory: torch warns of arrays that may only be read, also where it only reads them."""

    class Open:
        def __init__(self) -> None:
            self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}

    return np.asarray(Open())


def _exact(keys: np.ndarray, query: np.ndarray, extra: np.ndarray | None, some: np.ndarray) -> np.ndarray:
    logits = keys[some].astype(np.float64) @ query
    return logits if extra is None else logits + extra[some]


class Mass:
    """The sum of exp(logits - base) of q queries, part by part, at most `size` logits of each at once."""

    def __init__(self, q: int, size: int):
        self.base, self.sum, self.some = np.zeros(q), np.zeros(q), np.zeros(q, bool)
        self._work = np.empty((q, size), np.float32)

    def add(self, logits: np.ndarray) -> np.ndarray:
        """Takes logits [q, c] float32 in, and gives the highest of each query, [q]. Raises InputError: overflow."""
        peak = logits.max(1)
        if not (peak < np.inf).all():
            raise InputError("the logits overflow: lower the sharpness, or make keys and queries shorter")
        there = peak > -np.inf
        high = np.where(there, peak, 0.0).astype(np.float64)
        low = there & ~self.some & (high < -SAFE)  # nothing was summed up yet, so the base may go down
        new = np.where(low | (high > self.base + SAFE), high, self.base)
        with np.errstate(under="ignore"):
            self.sum *= np.exp(np.minimum(self.base - new, 0.0))
            self.base, self.some = new, self.some | there
            work = self._work[:, : logits.shape[1]]
            shifted = np.subtract(logits, new[:, None].astype(np.float32), out=work) if new.any() else logits
            self.sum += np.exp(shifted, out=work).sum(1, dtype=np.float64)
        return peak

    def log(self) -> np.ndarray:
        """The log-mass, [q] float64."""
        with np.errstate(divide="ignore"):
            return self.base + np.log(self.sum)


class Kept:
    """The `most` best logits of each of q queries so far, and their places; of equal ones the first places."""

    def __init__(self, q: int, most: int):
        self.most, self.floor = most, np.full(q, -np.inf, np.float32)  # the least logit that may be among the best
        self._kept: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(q)]
        self._pending = [0] * q

    def add(self, logits: np.ndarray, first: int, peak: np.ndarray) -> None:
        """Takes logits [q, c] in, which belong to the places from `first` on."""
        for i in np.flatnonzero(peak > self.floor).tolist():
            some = np.flatnonzero(logits[i] > self.floor[i])
            self.put(i, some + first, logits[i, some])

    def put(self, i: int, places: np.ndarray, logits: np.ndarray) -> None:
        """Takes logits of places in for one query."""
        self._kept[i].append((places, logits))
        self._pending[i] += len(places)
        if self._pending[i] > PENDING * self.most:
            self._pick(i)

    def best(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Places and logits for each query, best first."""
        for i in range(len(self._kept)):
            self._pick(i)
        nothing = (np.empty(0, np.int64), np.empty(0, np.float32))
        return [kept[0] if kept else nothing for kept in self._kept]

    def _pick(self, i: int) -> None:
        if self._kept[i]:
            places, logits = (np.concatenate(parts) for parts in zip(*self._kept[i], strict=True))
            if len(places) > PENDING * self.most:  # sorting all is dear: first let go of what is surely too low
                some = logits >= np.partition(logits, len(logits) - self.most)[len(logits) - self.most]
                places, logits = places[some], logits[some]
            order = np.lexsort((places, -logits))[: self.most]
            self._kept[i], self._pending[i] = [(places[order], logits[order])], len(order)
            if len(order) == self.most:
                self.floor[i] = logits[order[-1]]


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
