"""One pass over a matrix of keys: the best rows and the log-mass of all, for some queries."""

import numpy as np

from recuerdo.errors import InputError

MORE = 16  # rows beyond the wanted that are worked out exactly: in float32 they may stand in the wrong order
PART = 16_384  # rows at once: their logits stay in the processor's cache
BLOCK = 1024  # rows in one product of several queries: what BLAS multiplies fastest


def best(
    keys: np.ndarray, queries: np.ndarray, extra: np.ndarray | None, top: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys [n, d] float32 and queries [q, d] float64, `extra` [n] added to the logits (-inf = not there).

    Places [q, k] with the highest logits first (-1 where there are fewer; of equal ones the first), their logits [q, k]
    float64 (worked out anew in float64), and the log-sum-exp of all logits [q]. Raises InputError where they overflow.
    """
    q, n = len(queries), len(keys)
    with np.errstate(over="ignore"):  # told below
        short = np.ascontiguousarray(queries.T, dtype=np.float32)
    high, mass = np.full(q, -np.inf), np.zeros(q)
    kept: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(q)]
    floor = np.full(q, -np.inf, np.float32)  # the least logit that is still among the best
    room, work = (np.empty((q, min(n, PART)), np.float32) for _ in range(2))  # once: new pages are dear
    for first in range(0, n, PART):
        part = keys[first : first + PART]
        logits = _products(part, short, room[:, : len(part)])
        if extra is not None:
            logits += extra[first : first + PART]
        peak = logits.max(1).astype(np.float64)
        if not (peak < np.inf).all():
            raise InputError("the logits overflow: lower the sharpness, or make keys and queries shorter")
        new = np.maximum(high, peak)
        there = np.isfinite(new)
        if not there.any():
            continue
        base = np.where(there, new, 0.0)
        with np.errstate(under="ignore"):
            shares = np.subtract(logits, base[:, None].astype(np.float32), out=work[:, : len(part)])
            now = np.exp(shares, out=shares).sum(1, dtype=np.float64)
            mass = mass * np.exp(np.where(np.isfinite(high), high, -np.inf) - base) + now
        high = new
        for i in np.flatnonzero(peak > floor).tolist():
            row = logits[i]
            some = np.flatnonzero(row > floor[i])
            kept[i] = _first([*kept[i], (some + first, row[some])], top + MORE)
            if len(kept[i][0][0]) == top + MORE:
                floor[i] = kept[i][0][1].min()
    places, exact = np.full((q, top), -1), np.full((q, top), -np.inf)
    for i in range(q):
        if kept[i]:
            found, rough = kept[i][0]
            logits = keys[found].astype(np.float64) @ queries[i]
            logits += 0.0 if extra is None else extra[found]
            # The log-mass takes the exact logits of these rows too: it is they that weigh.
            rest = max(0.0, mass[i] - np.exp(rough - np.float32(high[i])).sum(dtype=np.float64))
            mass[i] = rest + np.exp(logits - high[i]).sum()
            order = np.lexsort((found, -logits))[:top]
            places[i, : len(order)], exact[i, : len(order)] = found[order], logits[order]
    with np.errstate(divide="ignore"):
        return places, exact, high + np.log(mass)


def _products(part: np.ndarray, short: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Keys [c, d] and queries [d, q] -> their products in `out` [q, c]."""
    with np.errstate(over="ignore", invalid="ignore"):
        for at in range(0, len(part), BLOCK if len(out) > 1 else PART):
            block = part[at : at + BLOCK] if len(out) > 1 else part
            out[:, at : at + len(block)] = (block @ (short if len(out) > 1 else short[:, 0])).T
    return out


def _first(kept: list[tuple[np.ndarray, np.ndarray]], most: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of places with their logits the best `most`; of equal ones the first places."""
    places, logits = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    if len(places) > 8 * most:  # sorting all is dear: first let go of what is surely too low
        some = logits >= np.partition(logits, len(logits) - most)[len(logits) - most]
        places, logits = places[some], logits[some]
    order = np.lexsort((places, -logits))[:most]
    return [(places[order], logits[order])]
