"""Rows in the tables of a memory on a server: put there, taken out as records; all inside of a transaction."""

import time
from collections.abc import Sequence
from typing import LiteralString

import numpy as np

from recuerdo.errors import InputError
from recuerdo.store.cutter import Cutter
from recuerdo.store.record import Hand, Record, Rows
from recuerdo.store.refused import FORGOTTEN
from recuerdo.store.server_session import Session, State
from recuerdo.store.server_sql import Vector, said
from recuerdo.store.server_words import short

RECORD: LiteralString = (
    "SELECT r.id, r.version, r.key, t.value, t.text, r.tags, r.author, r.time, r.written, r.bias "
    "FROM {rows} r JOIN {texts} t USING (id, version) "
)
HAND: LiteralString = "SELECT what, id, amount, author, reason, time FROM {hands} "


def records(rows: Rows, named: Sequence[tuple[int, int, float]]) -> list[tuple[Record, bool]]:
    """Rows as present records, with their ids, versions and biases."""
    now = time.time()
    texts, tags = rows.texts or [""] * len(rows), rows.tags or [()] * len(rows)
    times = [now] * len(rows) if rows.times is None else rows.times
    values = [None] * len(rows) if rows.values is None else rows.values
    fields = zip(named, rows.keys, values, texts, tags, times, strict=True)
    return [
        (Record(id, version, key, value, text, tuple(some), rows.author, when, now, bias), True)
        for (id, version, bias), key, value, text, some, when in fields
    ]


def record(told: Sequence) -> Record:
    """A row as the server tells it."""
    id, version, key, value, text, tags, author, when, written, bias = told
    held = None if value is None else np.frombuffer(value, "<f4")
    return Record(id, version, key, held, text.decode(), tuple(tags), author, when, written, bias)


def hand(told: Sequence) -> Hand:
    """What was done by hand, as the server tells it."""
    what, id, amount, author, reason, when = told
    return Hand(what, id, amount, author.decode(), reason.decode(), when)


def keep(session: Session, words: Cutter, state: State, told: Sequence[tuple[Record, bool]]) -> None:
    """Put records there, and whether each is the present version of its row."""
    if not told:
        return
    norms = [np.linalg.norm(np.asarray(one.key, np.float64)) for one, _ in told]
    state.longest = max(state.longest, float(max(norms)) * (1 + 1e-9))
    session.copy(
        "COPY {rows}(id, version, present, bias, time, written, key, author, tags) FROM STDIN (FORMAT BINARY)",
        ("int8", "int4", "bool", "float8", "float8", "float8", "vector", "text", "text[]"),
        (
            (
                *(one.id, one.version, present, float(one.bias) if present else 0.0, float(one.time)),
                *(float(one.written), Vector(one.key), one.author, list(one.tags)),
            )
            for one, present in told
        ),
    )
    cut = [short(count) for count in words.of([one.text if present else "" for one, present in told])]
    state.spoken += sum(bool(count) for count in cut)
    state.words += sum(count.total() for count in cut)
    session.copy(
        "COPY {texts}(id, version, text, value, length, words, counts) FROM STDIN (FORMAT BINARY)",
        ("int8", "int4", "bytea", "bytea", "int4", "text[]", "int4[]"),
        (
            (
                *(one.id, one.version, said(one.text, "a text"), _bytes(one.value)),
                *(count.total(), list(count), list(count.values())),
            )
            for (one, _), count in zip(told, cut, strict=True)
        ),
    )


def put_next(session: Session, words: Cutter, state: State, id: int, rows: Rows) -> int:
    """One row as the next version of another, whose number is returned."""
    version, bias = present(session, [id])[id]
    unsay(session, state, [id])
    session.run("UPDATE {rows} SET present = false, bias = 0 WHERE id = %s AND present", (id,))
    keep(session, words, state, records(rows, [(id, version + 1, bias)]))
    return version + 1


def set_bias(session: Session, ids: list[int], amount: float) -> None:
    """What is added to the logits of rows that are there."""
    session.run("UPDATE {rows} SET bias = %s::float8 WHERE id = ANY(%s::bigint[]) AND present", (amount, ids))


def versions(session: Session, id: int) -> list[Record]:
    """All versions of a row, oldest first."""
    return [record(one) for one in session.run(RECORD + "WHERE r.id = %s ORDER BY r.version", (id,))]


def hands(session: Session, id: int | None) -> list[Hand]:
    """What was done by hand to a row, or to all rows, oldest first."""
    where: LiteralString = "WHERE %s::bigint IS NULL OR id = %s::bigint ORDER BY number"
    return [hand(one) for one in session.run(HAND + where, (id, id))]


def unsay(session: Session, state: State, ids: list[int]) -> None:
    """Let rows be found by their words no more."""
    spoken, words = session.one(
        "WITH gone AS (UPDATE {texts} t SET length = 0, words = '{{}}', counts = '{{}}' "
        "FROM {texts} old WHERE old.id = t.id AND old.version = t.version AND t.id = ANY(%s::bigint[]) "
        "AND old.length > 0 RETURNING old.length) SELECT count(*), coalesce(sum(length), 0)::bigint FROM gone",
        (ids,),
    )
    state.spoken, state.words = state.spoken - spoken, state.words - words


def present(session: Session, ids: Sequence[int]) -> dict[int, tuple[int, float]]:
    """Id -> version and bias of rows. Raises InputError for a row that is not there."""
    asked = [id for id in ids if 0 <= id < 2**63]
    query = "SELECT id, version, bias FROM {rows} WHERE id = ANY(%s::bigint[]) AND present"
    found = {id: (version, bias) for id, version, bias in session.run(query, (asked,))}
    for id in ids:
        if id not in found:
            gone = "SELECT EXISTS(SELECT 1 FROM {forgotten} WHERE id = ANY(%s::bigint[]))"
            forgotten = id in asked and session.one(gone, ([id],))[0]
            raise InputError(f"row {id} of {session.name} {FORGOTTEN if forgotten else 'is not there'}")
    return found


def note(
    session: Session,
    what: str,
    ids: list[int],
    amount: float | None,
    author: str,
    reason: str,
    when: float | None = None,
) -> None:
    """Keep what was done to rows by hand."""
    told = (
        what,
        amount,
        said(author, "an author"),
        said(reason, "a reason"),
        time.time() if when is None else when,
    )
    session.run(
        "INSERT INTO {hands}(what, id, amount, author, reason, time) "
        "SELECT %s, id, %s::float8, %s::bytea, %s::bytea, %s::float8 FROM unnest(%s::bigint[]) "
        "WITH ORDINALITY AS told(id, nr) ORDER BY nr",
        (*told, ids),
    )


def _bytes(value: np.ndarray | None) -> bytes | None:
    return None if value is None else np.asarray(value, "<f4").tobytes()
