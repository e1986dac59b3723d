"""The index of approximate scans and its memory: made, opened where it belongs to the database, erased in."""

import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recuerdo.errors import StoreError
from recuerdo.store.cells import Cells, Table, measured, written
from recuerdo.store.grouping import Step, grouped
from recuerdo.store.index import PART, Index

if TYPE_CHECKING:
    from recuerdo.store.session import Session

NAME = "cells"  # of the file, behind the name of the memory, and of the table that has its token


@dataclass(frozen=True)
class Indexed:
    """What was made: how many rows lie in how many cells, and seconds it took."""

    rows: int
    cells: int
    seconds: float


def opened(index: Index) -> Cells | None:
    """The index where there is one that belongs to the database as it is."""
    waits = bool(index.db.execute("SELECT EXISTS(SELECT 1 FROM wiped)").fetchone()[0])
    return Cells.opened(index.file(NAME), index.state.generation, _token(index.db), index.state.places, wiping=waits)


def make(session: "Session", cells: int, step: Step | None) -> Indexed:
    """Sort the rows that are read now into cells, and keep them so. Others may write until the rows are put down.

    Nothing is written before, so that no `forget` misses a byte.
    """
    since = time.perf_counter()
    with session.reading():
        index = session.index
        n = index.state.places
        keys, times = index.columns["keys"].rows(n), index.columns["times"].rows(n)[:, 0]
        there = np.flatnonzero(index.alive[:n])
    table = grouped(keys, there, times, cells, step)
    with session.writing():
        index, path = session.index, session.index.file(NAME)
        now, later = index.columns["keys"].rows(n), index.columns["times"].rows(n)[:, 0]
        _leave_out(table, now, later, index.alive)
        half, token = path.with_name(f"{path.name}.part"), os.urandom(16)
        written(half, index.state.generation, token, n, table, now)
        session.db.execute(f"CREATE TABLE IF NOT EXISTS {NAME}(one INTEGER PRIMARY KEY CHECK(one = 1), token BLOB)")
        session.db.execute(f"INSERT OR REPLACE INTO {NAME} VALUES(1, ?)", (token,))
        os.replace(half, path)
    return Indexed(len(table.members), len(table.means), time.perf_counter() - since)


def wipe(index: Index, places: np.ndarray) -> None:
    """Overwrite what was forgotten in the index too, inside a transaction; one that cannot be trusted is deleted.

    So are files that somebody did not finish, who was stopped.
    """
    for name in (NAME, *index.columns):
        index.file(f"{name}.part").unlink(missing_ok=True)
    path, times = index.file(NAME), index.columns["times"].rows(index.state.places)[:, 0]
    cells = opened(index)
    if cells is None:
        path.unlink(missing_ok=True)
        return
    token = os.urandom(16)
    cells.wipe(places, times, token)
    index.db.execute(f"UPDATE {NAME} SET token = ?", (token,))


def compared(index: Index) -> list[str]:
    """What is wrong with the index, in words."""
    cells, keys = opened(index), index.columns["keys"].rows(index.state.places)
    if cells is None:
        return []
    bad = 0
    for first in range(0, len(cells.rows), PART):
        members = cells.table.members[first : first + PART]
        there = members >= 0
        bad += not np.array_equal(cells.rows[first : first + PART][there], keys[members[there]])
    if not bad:
        return []
    return [f"{cells.path} differs from the database in {bad} parts of {PART} rows: run `recuerdo memories index`"]


def foreign(file: Path, memory: Path) -> StoreError:
    """The error for an index whose rows are not those of the memory."""
    return StoreError(f"{file} is not what {memory} says: run `recuerdo memories index --memory {memory}`")


def _leave_out(table: Table, keys: np.ndarray, times: np.ndarray, alive: np.ndarray) -> None:
    """Take rows out of a table that are no longer read."""
    stays = alive[table.members]
    if stays.all():
        return
    cell = np.repeat(np.arange(len(table.means)), np.diff(table.starts))
    table.members = table.members[stays]
    sizes = np.bincount(cell[stays], minlength=len(table.means))
    table.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    for one in np.unique(cell[~stays]).tolist():
        some = table.members[table.starts[one] : table.starts[one + 1]]
        table.means[one], table.reach[one] = measured(keys[some], times[some])


def _token(db: sqlite3.Connection) -> bytes | None:
    if not db.execute("SELECT count(*) FROM sqlite_schema WHERE name = ?", (NAME,)).fetchone()[0]:
        return None
    told = db.execute(f"SELECT token FROM {NAME}").fetchone()
    return None if told is None else bytes(told[0])
