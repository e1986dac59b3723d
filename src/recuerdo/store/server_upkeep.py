"""The upkeep of a memory on a server: what is erased leaves no trace, copies, and whether all fits together."""

import os
import re
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import errors, sql

from recuerdo.errors import StoreError
from recuerdo.store.embedded import SPARSE_FREE, Embedded
from recuerdo.store.server_rows import HAND, RECORD, hand, record
from recuerdo.store.server_session import Session

TOGETHER = 2000  # rows that are copied at once
REWRITTEN = 2**30  # bytes of a table that `forget` writes anew; a larger one is only swept
TRIES = 5  # how often a table is swept while others read
KEPT = re.compile(r"(\d+) (?:are dead but not yet removable|dead row versions cannot be removed yet)")

# What may be wrong, and how many times it is.
CHECKS: dict[str, LiteralString] = {
    "versions without a text, or texts without a version": (
        "SELECT count(*) FROM {rows} r FULL JOIN {texts} t USING (id, version) WHERE r.key IS NULL OR t.text IS NULL"
    ),
    "values of another width": (
        "SELECT count(*) FROM {texts} WHERE coalesce(octet_length(value), 0) <> %(bytes)s::bigint"
    ),
    "rows whose versions do not follow each other": (
        "SELECT count(*) FROM (SELECT id FROM {rows} GROUP BY id HAVING min(version) <> 1 OR max(version) <> count(*) "
        "OR count(*) FILTER (WHERE present) <> 1 "
        "OR max(version) FILTER (WHERE present) IS DISTINCT FROM max(version)) AS wrong"
    ),
    "rows with ids that were not given": "SELECT count(*) FROM {rows} WHERE id >= (SELECT next FROM {state}) OR id < 0",
    "rows that were forgotten": "SELECT count(*) FROM {rows} JOIN {forgotten} USING (id)",
    "keys longer than the longest": (
        "SELECT count(*) FROM {rows} WHERE vector_norm(key) > (SELECT longest * 1.0001 FROM {state})"
    ),
}


def wrong(session: Session, value_width: int) -> list[str]:
    """What does not fit together, in words; inside of a transaction that reads."""
    found: list[str] = []
    for words, query in CHECKS.items():
        (n,) = session.one(query, {"bytes": 4 * value_width})
        if n:
            found.append(f"{n} {words} in {session.name}")
    return found


# ------------------------------------------------------------------------------------------------------------- erasing


def finish_wiping(session: Session) -> list[str]:
    """Sweep the tables after a forget: what could not be done, in words; it is done with the next."""
    try:
        with session.reading():
            forgets, wiped = session.one("SELECT forgets, wiped FROM {state}")
        if wiped == forgets:
            return []
        with session.alone() as db:
            swept = [_sweep(session, db, table) for table in ("texts", "rows", "hands")]
            if all(done for done, _ in swept):
                session.run("UPDATE {state} SET wiped = greatest(wiped, %s)", (forgets,))
        return [words for _, words in swept if words]
    except StoreError as error:
        return [f"the tables still hold what was forgotten, until the memory is opened again ({error})"]


def _sweep(session: Session, db: psycopg.Connection, table: str) -> tuple[bool, str]:
    """Let no trace of deleted rows be in a table: whether that is done, and what is owed, in words.

    VACUUM frees their room on its pages but leaves the bytes there; only a table that is written anew has none.
    """
    kept: list[int] = []

    def hear(told: errors.Diagnostic) -> None:
        kept.extend(int(n) for n in KEPT.findall(f"{told.message_primary} {told.message_detail}"))

    name = f"{session.name}.{table}"
    # To make the graph of approximate scans anew takes minutes.
    (dear,) = session.one(
        "SELECT pg_total_relation_size(c.oid) > %s OR EXISTS(SELECT 1 FROM pg_indexes "
        "WHERE schemaname = nspname AND tablename = relname AND indexname = 'rows_near') "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
        (REWRITTEN, session.schema, table),
    )
    where = sql.Identifier(session.schema, table)
    full = sql.SQL("" if dear else "FULL, ")
    db.add_notice_handler(hear)
    try:
        for attempt in range(TRIES):
            kept.clear()
            time.sleep(0.05 * attempt)
            db.execute(sql.SQL("VACUUM ({}VERBOSE, ANALYZE) {}").format(full, where))
            if kept and not any(kept):
                break
        else:
            if not kept:  # not allowed to, or told in a language that we do not know
                return False, f"{name} may not be swept: VACUUM it as its owner"
            return False, f"{name} is in use by a reader: what was forgotten is in it until that one ends"
    except errors.LockNotAvailable:
        return False, f"{name} is in use by a reader: what was forgotten is in it until that one ends"
    finally:
        db.remove_notice_handler(hear)
    # A table that is dear is swept as well as it is going to be: nobody tries again.
    return True, f"{name} is too dear to be written anew: its pages keep bytes until a VACUUM FULL" if dear else ""


def copies(session: Session) -> list[tuple[str, str, bytes]]:
    """The paths of the snapshots, their machines, and by what they are known; inside of a transaction."""
    told = session.run("SELECT path, host, made FROM {copies} ORDER BY path, host")
    return [(os.fsdecode(path), host, bytes(made)) for path, host, made in told]


def note_copy(session: Session, path: Path, made: bytes | None) -> None:
    """Keep where a snapshot is; inside of a transaction."""
    session.run(
        "INSERT INTO {copies}(path, host, made, time) VALUES(%s, %s, %s, %s) "
        "ON CONFLICT(path, host) DO UPDATE SET made = excluded.made, time = excluded.time",
        (os.fsencode(path), socket.gethostname(), made or b"", time.time()),
    )


def made(path: Path) -> bytes | None:
    """By what an embedded memory is known, whatever becomes of its rows; None for a file that is none."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return db.execute("SELECT generation FROM state").fetchone()[0]
    except (sqlite3.Error, TypeError):
        return None


def forget_in_copies(there: list[tuple[str, str, bytes]], ids: list[int]) -> list[str]:
    """Erase rows in the snapshots that are still there: what could not be done, in words."""
    owed: list[str] = []
    for path, host, known in there:
        if not Path(path).is_file() or made(Path(path)) not in (known, None):  # not there, or another memory
            if host != socket.gethostname():
                owed.append(f"the snapshot {path} was made on {host}: forget there what was forgotten here")
            continue
        try:
            with Embedded(path) as copy:
                held = set(copy.ids().tolist())
                owed += copy.forget([id for id in ids if id in held]).owed
        except StoreError as error:
            owed.append(str(error))
    return owed


# -------------------------------------------------------------------------------------------------------------- copies


def copy_all(session: Session, path: Path, widths: tuple[int, int]) -> list[int]:
    """Make an embedded memory of all rows and hands: the ids of the rows."""
    done = [hand(one) for one in session.run(HAND + "ORDER BY number")]
    ids = [id for (id,) in session.run("SELECT id FROM {rows} WHERE present ORDER BY 1")]
    with Embedded(path, width=widths[0], value_width=widths[1]) as copy:
        for first in range(0, len(ids), TOGETHER):
            for some in _near_each_other(ids[first : first + TOGETHER]):
                told = session.run(RECORD + "WHERE r.id = ANY(%s::bigint[])", (some,))
                copy.adopt([record(one) for one in told])
        copy.adopt([], done)
        for name, value in session.run("SELECT name, value FROM {notes}").fetchall():
            copy.note(name.decode(), value.decode())
    return ids


def _near_each_other(ids: list[int]) -> Iterator[list[int]]:
    """Rising ids in runs that an embedded memory adopts at once."""
    some = ids[:1]
    for id in ids[1:]:
        if id - some[0] > SPARSE_FREE:
            yield some
            some = []
        some.append(id)
    if some:
        yield some


def remove(path: Path) -> None:
    """An embedded memory that is only half there, with what stands beside it."""
    for name in ("", "-wal", "-shm", "-keys", "-times", "-values"):
        with suppress(OSError):
            path.with_name(path.name + name).unlink(missing_ok=True)
