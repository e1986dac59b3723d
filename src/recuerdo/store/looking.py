"""A scan of an embedded store: over all rows, over those that a filter lets through, or by the index."""

import numpy as np

from recuerdo.errors import StoreError
from recuerdo.store import bodies
from recuerdo.store.index import Index
from recuerdo.store.near import Nearby
from recuerdo.store.record import Found, Rules, Where
from recuerdo.store.softmax import best

FEW = 8  # where a filter lets less than one in so many rows through, these are taken out first


def look(index: Index, nearby: Nearby | None, asked: np.ndarray, top: int, rules: Rules, where: Where | None) -> Found:
    """The best rows for queries [q, d], and the log-mass of all addressed.

    Whatever is filtered is read exactly, and what is asked for the farthest rows: no index is made for that.
    """
    keys, queries = index.keys(), rules.sharpness * asked.astype(np.float64)
    told = None
    if nearby is not None and where is None and rules.sharpness > 0:
        told = nearby.scan(queries, top, rules)
    if told is not None:
        places, logits, lse, unseen, looked, addressed = told
    else:
        places, logits, lse, looked = _exact(keys, queries, index.extra(rules, where), top)
        unseen, addressed = np.full(len(asked), -np.inf), looked
    if not bodies.intact(index.db, places[:, :1], keys):
        file, fix = index.columns["keys"].path, f"recuerdo memories rebuild --memory {index.path}"
        raise StoreError(f"{file} is not what {index.path} says: run `{fix}`")
    ids = np.full(places.shape, -1)
    ids[places >= 0] = index.ids[places[places >= 0]]
    return Found(ids, logits, lse, unseen, looked, addressed)


def _exact(
    keys: np.ndarray, queries: np.ndarray, extra: np.ndarray | None, top: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    if extra is None:
        return *best(keys, queries, None, top), len(keys)
    some = np.flatnonzero(extra > -np.inf)
    if FEW * len(some) >= len(keys):
        return *best(keys, queries, extra, top), len(some)
    places, logits, lse = best(keys[some], queries, extra[some], top)
    there = places >= 0
    places[there] = some[places[there]]
    return places, logits, lse, len(some)
