"""The bodies of rows in the database: put there, taken out as records, erased."""

import json
import sqlite3
from collections.abc import Sequence
from itertools import count

import numpy as np

from recuerdo.store.record import Hand, Record, Rows

TOGETHER = 500  # places in one statement
BODY = "place, id, version, time, written, author, tags, text, key, value"


def insert(
    db: sqlite3.Connection,
    rows: Rows,
    first: int,
    named: Sequence[tuple[int, int]],
    times: Sequence[float],
    now: float,
) -> None:
    """Rows at the places from `first` on, with their ids and versions."""
    texts, tags = rows.texts or [""] * len(rows), rows.tags or [()] * len(rows)
    keys = [key.tobytes() for key in rows.keys]
    values = [None] * len(rows) if rows.values is None else [value.tobytes() for value in rows.values]
    told = (
        (first + i, *named[i], times[i], now, rows.author, json.dumps(list(tags[i])) if tags[i] else "", *body)
        for i, body in enumerate(zip(texts, keys, values, strict=True))
    )
    db.executemany("INSERT INTO bodies VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", told)
    labels = {("tag", tag, first + i) for i, some in enumerate(tags) for tag in some}
    if rows.author:
        labels |= {("author", rows.author, first + i) for i in range(len(rows))}
    if labels:
        db.executemany("INSERT INTO labels VALUES(?, ?, ?)", labels)


def placed(versions: dict[int, list[Record]], first: int, end: int) -> tuple[list[tuple[int, Record]], int]:
    """Where adopted rows (id -> versions) stand, by rising places, and the number of places afterwards.

    The present version stands at the place of its id, as if it had been appended, where that is `first` or higher;
    below, an earlier version of another row may stand there. All others go behind, from `end` on.
    """
    behind = count(end)
    found = [
        (id if one is told[-1] and id >= first else next(behind), one) for id, told in versions.items() for one in told
    ]
    return sorted(found, key=lambda pair: pair[0]), next(behind)


def put(db: sqlite3.Connection, placed: Sequence[tuple[int, Record]]) -> None:
    """Records of another store at places, as they stand there."""
    for place, one in placed:
        tags = json.dumps(list(one.tags)) if one.tags else ""
        value = None if one.value is None else one.value.astype("<f4").tobytes()
        told = (place, one.id, one.version, one.time, one.written, one.author, tags, one.text)
        db.execute(f"INSERT INTO bodies VALUES({','.join('?' * 10)})", (*told, one.key.astype("<f4").tobytes(), value))
        labels = [("tag", tag, place) for tag in dict.fromkeys(one.tags)]
        labels += [("author", one.author, place)] if one.author else []
        db.executemany("INSERT INTO labels VALUES(?, ?, ?)", labels)


def records(db: sqlite3.Connection, places: Sequence[int]) -> dict[int, Record]:
    """Place -> what stands there, with the bias of today; a place that is empty is left out."""
    bias = "coalesce((SELECT bias FROM rows WHERE rows.id = bodies.id AND rows.place = bodies.place), 0.0)"
    found: dict[int, Record] = {}
    for first in range(0, len(places), TOGETHER):
        some = places[first : first + TOGETHER]
        query = f"SELECT {BODY}, {bias} FROM bodies WHERE place IN ({','.join('?' * len(some))})"
        for place, id, version, time, written, author, tags, text, key, value, added in db.execute(query, some):
            found[place] = Record(
                id,
                version,
                np.frombuffer(key, "<f4"),
                None if value is None else np.frombuffer(value, "<f4"),
                text,
                tuple(json.loads(tags)) if tags else (),
                author,
                time,
                written,
                float(added),
            )
    return found


def intact(db: sqlite3.Connection, places: np.ndarray, keys: np.ndarray) -> bool:
    """Whether the keys of places (-1 = none) are those that the database has; one that is gone says nothing."""
    for place in {int(place) for place in places.flat if place >= 0}:
        told = db.execute("SELECT key FROM bodies WHERE place = ?", (place,)).fetchone()
        if told is not None and not np.array_equal(np.frombuffer(told[0], "<f4"), keys[place]):
            return False
    return True


def erase(db: sqlite3.Connection, places: Sequence[int]) -> None:
    """Delete what stands at places, with its labels, and note that the columns owe the same."""
    for place in places:
        told = db.execute("SELECT tags, author FROM bodies WHERE place = ?", (place,)).fetchone()
        if told is not None:
            labels = [("tag", tag) for tag in (json.loads(told[0]) if told[0] else ())]
            for label in (*labels, ("author", told[1])):
                db.execute("DELETE FROM labels WHERE kind = ? AND name = ? AND place = ?", (*label, place))
        db.execute("DELETE FROM bodies WHERE place = ?", (place,))
        db.execute("INSERT OR IGNORE INTO wiped VALUES(?)", (place,))


def hands(db: sqlite3.Connection, id: int | None) -> list[Hand]:
    """What was done to a row by hand, or to all rows, oldest first."""
    query = "SELECT what, id, amount, author, reason, time FROM hands WHERE ?1 IS NULL OR id = ?1 ORDER BY number"
    some = id is None or 0 <= id < 2**63  # what SQLite can hold
    return [Hand(*one) for one in db.execute(query, (id,))] if some else []
