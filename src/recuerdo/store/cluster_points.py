"""Rows as points of a cluster and back, and which points a reader may see."""

import json
import math
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np

from recuerdo.store.cluster_engine import Condition, Engine, Filter, Point, among, both, equals, these, within
from recuerdo.store.cluster_state import State, begun, bias_fields
from recuerdo.store.record import Record, Where

# What the server keeps an index of, so that filters do not read every payload.
INDEXES = {
    "id": "integer",
    "stamp": "integer",
    "time": "float",
    "tags": "keyword",
    "author": "keyword",
    "current": "bool",
    "biased": "bool",
    "muted": "bool",
}
STATE_INDEXES = {"kind": "keyword", "change": "integer", "id": "integer", "number": "integer", "what": "keyword"}
SCORED = ["id", "version", "time", "bias"]  # the fields that a scan needs


@dataclass(frozen=True, eq=False)
class Scored:
    """What a scan needs of rows: ids [n], keys [n, d], times [n], biases [n]; ids rising."""

    ids: np.ndarray
    keys: np.ndarray
    times: np.ndarray
    bias: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def fresh(id: int) -> str:
    """A new point for a version of a row: points of a cluster come back in the order of their ids."""
    return str(uuid.UUID(int=(id << 64) | (uuid.uuid4().int >> 64)))


def point(one: Record, words: dict[int, float], *, current: bool, stamp: int) -> Point:
    """The point of one version of a row. Floats are told as text too: a server may round the last digit of numbers."""
    payload: dict[str, Any] = {"id": one.id, "version": one.version, "current": current, "text": one.text}
    payload |= {"tags": list(one.tags), "time": float(one.time), "exact": json.dumps([one.time, one.written])}
    payload |= {"author": one.author} if one.author else {}
    payload |= bias_fields(one.bias if current else 0.0, stamp)
    vectors = {"key": one.key} | ({} if one.value is None else {"value": one.value})
    return Point(fresh(one.id), payload, vectors, words if current else {})


def _bias(one: Point, state: State) -> float:
    """The bias of a row; that which is so already, should it not have reached its point yet."""
    kept = float(one.payload["bias"])
    return state.pending.get(int(one.payload["id"]), kept) if one.payload.get("current", True) else kept


def record(one: Point, state: State) -> Record:
    """The version of a row that a point keeps."""
    told = one.payload
    time, written = json.loads(told["exact"])
    return Record(
        int(told["id"]),
        int(told["version"]),
        one.vectors["key"],
        one.vectors.get("value"),
        told["text"],
        tuple(told["tags"]),
        told.get("author", ""),
        float(time),
        float(written),
        _bias(one, state),
    )


def scored(points: Iterable[Point], state: State) -> Scored:
    """Points for a scan, each row once."""
    rows = {int(one.payload["id"]): one for one in sorted(points, key=lambda one: one.payload["version"])}
    found = [rows[id] for id in sorted(rows)]
    times = [one.payload["time"] for one in found]  # but for its last digit, which no logit feels
    keys = np.stack([one.vectors["key"] for one in found]) if found else np.empty((0, state.width), np.float32)
    biases = [_bias(one, state) for one in found]
    return Scored(np.array(sorted(rows), np.int64), keys, np.array(times, float), np.array(biases, float))


# ----------------------------------------------------------------------------------------------------- what may be seen


def empty(where: Where | None) -> bool:
    """Whether a filter lets nothing through, whatever there is."""
    return where is not None and (
        where.nothing or where.ids == () or math.isnan(where.since) or math.isnan(where.until)
    )


def live(state: State, where: Where | None = None, *, old: bool = False, heard: bool = False) -> Filter:
    """The present versions of rows that a filter lets through; `old`: earlier ones too; `heard`: no muted ones."""
    must: list[Condition] = [within("id", 0, state.next), *([] if old else [equals("current", True)])]
    but = _muted(state) if heard else []
    gone: list[str] = []
    for one in state.intents:
        if one.phase != "settling":
            gone += [one.new] if one.new else []
            but += [begun(one)] if one.high > one.low else []
        elif one.what == "update":
            gone += [] if old else [one.old]
        elif one.what == "forget":
            but.append(among("id", one.ids))
    if gone:
        but.append(these(gone))
    if where is not None:
        must += [equals("tags", tag) for tag in where.tags]
        must += [] if where.author is None else [equals("author", where.author)]
        must += [] if where.ids is None else [among("id", [int(id) for id in where.ids if 0 <= id < state.next])]
        low, high = (None if math.isinf(x) else x for x in (where.since, where.until))
        must += [] if low is None and high is None else [within("time", low, high)]
    return both(must, but)


def _muted(state: State) -> list[Condition]:
    """The conditions of rows that are never read."""
    loud, quiet = ([id for id, bias in state.pending.items() if (bias == -math.inf) == mute] for mute in (False, True))
    flagged = both([equals("muted", True)], [among("id", loud)]) if loud else equals("muted", True)
    return [flagged, *([among("id", quiet)] if quiet else [])]


def unseen_hands(state: State) -> Filter:
    """The filter of hands that may be seen."""
    doing = [one for one in state.intents if one.phase != "settling" and one.hands[1] > one.hands[0]]
    return both([equals("kind", "hand")], [within("number", *one.hands) for one in doing])


def rows(engine: Engine, which: Filter, state: State) -> list[Record]:
    """All versions that a filter lets through, by id and version; only the present one has a bias."""
    names, width = ["key"] + (["value"] if state.value_width else []), state.width + state.value_width
    found = [record(one, state) for page in engine.pages(which, vectors=names, width=width) for one in page]
    found.sort(key=lambda one: (one.id, one.version))
    return [
        replace(one, bias=0.0) if later is not None and later.id == one.id else one
        for one, later in zip_longest(found, found[1:])
    ]
