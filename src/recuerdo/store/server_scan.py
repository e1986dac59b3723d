"""Scans of a memory on a server: the rows that are read, and the softmax of their keys, worked out where they are.

pgvector adds up in float32. So the server proposes the best rows and the log-mass of all; the logits of the best are
worked out anew in float64, and the log-mass takes these instead.
"""

import time
from collections.abc import Iterable, Sequence
from typing import LiteralString

import numpy as np

from recuerdo.errors import InputError
from recuerdo.store.record import DAY, Found, Rules, Where
from recuerdo.store.server_session import Session
from recuerdo.store.server_sql import Vector
from recuerdo.store.softmax import MORE

LARGEST = 3.4e38  # what a float32 can hold
TOGETHER = 32  # queries in one pass over the table
PARTS = 4096  # about so many runs of ids are told apart
FAR = 600.0  # a logit that is so far from the base makes exp() lose what it stands for
NEAR = 4  # how many times the wanted rows an approximate scan looks at
HEARD: LiteralString = "r.present AND r.bias > '-infinity'"
LOGIT: LiteralString = (
    "SELECT %(sharpness)s::float8 * -(r.key <#> q.query) + r.bias "
    "- %(fading)s::float8 * ((%(now)s::float8 - r.time) / 86400) AS x OFFSET 0"  # OFFSET: once, not wherever x is used
)

# One pass for some queries: how many rows, the highest logit, the mass over exp(base), and the runs of ids in which the
# best rows are. A run that holds one of the best k rows is among the k runs with the highest peaks.
PASS: LiteralString = (
    "WITH parts AS (SELECT q.i, r.id / %(size)s::bigint AS part, count(*) AS n, max(x) AS high, "
    "sum(CASE WHEN x - q.base > -700 THEN exp(least(x - q.base, 650)) ELSE 0 END) AS mass "
    "FROM {rows} r CROSS JOIN unnest(%(queries)b::vector[], %(bases)s::float8[]) WITH ORDINALITY AS q(query, base, i) "
    f"CROSS JOIN LATERAL ({LOGIT}) AS logit WHERE {HEARD} "
)
SUMS: LiteralString = (
    " GROUP BY 1, 2) SELECT i, sum(n)::bigint, max(high), sum(mass), "
    "(array_agg(part ORDER BY high DESC, part))[1:%(k)s::int] FROM parts GROUP BY i"
)
BEST: LiteralString = (
    "SELECT near.id, near.x, near.key, near.bias, near.time FROM unnest(%(parts)s::bigint[]) AS p(part) "
    "CROSS JOIN LATERAL (SELECT r.id, x, r.key, r.bias, r.time FROM {rows} r "
    "CROSS JOIN (SELECT %(query)b::vector AS query) AS q "
    f"CROSS JOIN LATERAL ({LOGIT}) AS logit WHERE {HEARD} "
    "AND r.id >= p.part * %(size)s::bigint AND r.id < (p.part + 1) * %(size)s::bigint"
)
FIRST: LiteralString = " OFFSET 0) AS near ORDER BY near.x DESC, near.id LIMIT %(k)s::bigint"


def filtered(where: Where | None) -> tuple[LiteralString, dict[str, object]]:
    """What a filter adds to the conditions on rows `r`, and its parameters."""
    if where is None:
        return "", {}
    text: LiteralString = ""
    given: dict[str, object] = {}
    if where.nothing:
        return " AND false", {}  # no row can have it
    if where.tags:
        text, given["tags"] = text + " AND r.tags @> %(tags)s::text[]", list(where.tags)
    if where.author is not None:
        text, given["author"] = text + " AND r.author = %(author)s", where.author
    if where.ids is not None:
        text, given["ids"] = text + " AND r.id = ANY(%(ids)s::bigint[])", [int(i) for i in where.ids if 0 <= i < 2**63]
    if (where.since, where.until) != (-np.inf, np.inf):
        text += " AND r.time >= %(since)s::float8 AND r.time < %(until)s::float8"
        given |= {"since": float(where.since), "until": float(where.until)}
    return text, given


def scan(session: Session, asked: np.ndarray, top: int, rules: Rules, where: Where | None) -> Found:
    """The best rows for queries [q, d], and the log-mass of all addressed; inside of a transaction that reads."""
    now = time.time() if rules.now is None else rules.now
    given = {"sharpness": float(rules.sharpness), "fading": float(rules.fading), "now": float(now)}
    rows, longest = session.one("SELECT next, longest FROM {state}")
    far = longest * np.linalg.norm(asked.astype(np.float64), axis=1).max(initial=0.0)
    if max(far, far * abs(rules.sharpness)) > LARGEST:
        raise InputError("the logits overflow: lower the sharpness, or make keys and queries shorter")
    given |= {"size": rows // PARTS + 1, "k": min(top, rows) + MORE}
    parts = [
        _near(session, asked[i : i + 1], top, given, where, longest)
        if session.approximate
        else _exact(session, asked[i : i + TOGETHER], top, given, where)
        for i in range(0, len(asked), 1 if session.approximate else TOGETHER)
    ]
    looked, addressed = min((part.looked for part in parts), default=0), parts[0].addressed if parts else 0
    none = Found(np.empty((0, top), np.int64), np.empty((0, top)), np.empty(0), np.empty(0), 0, 0)
    ids, logits, lse, unseen = (
        np.concatenate([getattr(part, name) for part in (none, *parts)]) for name in ("ids", "logits", "lse", "unseen")
    )
    return Found(ids, logits, lse, unseen, looked, addressed)


def _exact(session: Session, asked: np.ndarray, top: int, given: dict[str, float], where: Where | None) -> Found:
    """All rows, by one pass over the table; by a second one where logits are so large that exp() has to be shifted."""
    q = len(asked)
    text, more = filtered(where)
    base, high, mass = np.zeros(q), np.full(q, -np.inf), np.zeros(q)
    parts: list[list[int]] = [[] for _ in range(q)]
    addressed = 0
    todo = np.arange(q)
    while len(todo):
        told = {"queries": [Vector(asked[i]) for i in todo], "bases": base[todo].tolist()}
        for i, n, peak, sum_, best in session.run(PASS + text + SUMS, {**given, **more, **told}):
            place = todo[i - 1]
            addressed, high[place], mass[place], parts[place] = n, peak, sum_, best
        if np.isnan(high).any() or (high > LARGEST).any():
            raise InputError("the logits overflow: lower the sharpness, or make keys and queries shorter")
        todo = np.flatnonzero((high > -np.inf) & (np.abs(high - base) > FAR))
        base[todo] = high[todo]
    ids, logits = np.full((q, top), -1), np.full((q, top), -np.inf)
    lse = np.full(q, -np.inf)
    for i in np.flatnonzero(high > -np.inf).tolist():
        told = {"query": Vector(asked[i]), "parts": parts[i]}
        found, rough, exact = _rescored(session.run(BEST + text + FIRST, {**given, **more, **told}), asked[i], given)
        with np.errstate(under="ignore"):
            rest = mass[i] * np.exp(base[i] - high[i]) - np.exp(rough - high[i]).sum()
            lse[i] = high[i] + np.log(max(0.0, rest) + np.exp(exact - high[i]).sum())
        _put(ids[i], logits[i], found, exact)
    return Found(ids, logits, lse, np.full(q, -np.inf), addressed, addressed)


def _near(
    session: Session, asked: np.ndarray, top: int, given: dict[str, float], where: Where | None, longest: float
) -> Found:
    """The rows that the index finds near one query, and those of the highest biases; the rest is bounded from above."""
    text, more = filtered(where)
    k = NEAR * top + MORE
    more |= {"query": Vector((asked[0] * np.sign(given["sharpness"] or 1.0)).astype(np.float32)), "k": k}
    for name, value in (("hnsw.iterative_scan", "strict_order"), ("hnsw.ef_search", str(min(NEAR * k, 1000)))):
        session.run("SELECT set_config(%s, %s, true)", (name, value))
    columns: LiteralString = "SELECT r.id, r.bias, r.key, r.bias, r.time FROM {rows} r WHERE "
    near = session.run(
        columns + HEARD + text + " ORDER BY r.key <#> %(query)b::vector LIMIT %(k)s::bigint", more
    ).fetchall()
    loud = session.run(
        columns + HEARD + " AND r.bias <> 0" + text + " ORDER BY r.bias DESC, r.id LIMIT %(k)s::bigint", more
    ).fetchall()
    addressed, since, until = session.one(
        "SELECT count(*), min(r.time), max(r.time) FROM {rows} r WHERE " + HEARD + text, more
    )
    seen = {row[0]: row for row in (*near, *loud)}
    found, _, exact = _rescored(seen.values(), asked[0], given)
    ids, logits = np.full((1, top), -1), np.full((1, top), -np.inf)
    _put(ids[0], logits[0], found, exact)
    lse = np.logaddexp.reduce(exact) if len(exact) else -np.inf
    unseen = -np.inf
    if addressed > len(seen):
        # No logit is higher than by the longest key in the direction of the query, the bias that comes after those
        # that were fetched, and the age that fades least.
        bias = max(0.0, loud[-1][1]) if len(loud) == k else 0.0
        age = (given["now"] - (until if given["fading"] > 0 else since)) / DAY
        reach = abs(given["sharpness"]) * longest * float(np.linalg.norm(asked[0].astype(np.float64)))
        unseen = np.log(addressed - len(seen)) + reach + bias - given["fading"] * age
    return Found(ids, logits, np.array([lse]), np.array([unseen]), len(seen), addressed)


def _rescored(
    told: Iterable[Sequence], query: np.ndarray, given: dict[str, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids [n] of rows that the server told, their second columns [n], and their logits [n] in float64."""
    some = list(told)
    if not some:
        return np.empty(0, np.int64), np.empty(0), np.empty(0)
    ids, rough, keys, bias, times = zip(*some, strict=True)
    exact = np.stack(keys).astype(np.float64) @ (given["sharpness"] * query.astype(np.float64))
    exact += np.array(bias) - given["fading"] * ((given["now"] - np.array(times)) / DAY)
    return np.array(ids, np.int64), np.array(rough), exact


def _put(ids: np.ndarray, logits: np.ndarray, found: np.ndarray, exact: np.ndarray) -> None:
    """The best of the rows found, of equal ones the lower ids first."""
    order = np.lexsort((found, -exact))[: len(ids)]
    ids[: len(order)], logits[: len(order)] = found[order], exact[order]
