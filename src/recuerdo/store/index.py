"""What a process holds in memory of an embedded store: which row is at which place, its bias, and the columns.

It follows the database: whatever this or another process changed is taken over before each look, by the numbers of the
changes. Columns that cannot be trusted are made again from the bodies; where nothing may be written, in memory.
"""

import hashlib
import os
import sqlite3
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recuerdo.errors import StoreError
from recuerdo.store.column import Column, Copy
from recuerdo.store.record import DAY, Rules, Where

KINDS = {"keys": "key", "times": "time", "values": "value"}  # columns, and the fields of bodies that they repeat
PART = 4096  # rows taken from the database at once
TRIES = 20  # how often a reader compares tokens while another process writes


@dataclass
class State:
    """The one row of the table `state`, and when the last body was written."""

    generation: bytes
    width: int
    value_width: int
    places: int
    change: int
    written: float

    def grow(self, rows: int, written: float) -> None:
        """So many rows more were written then."""
        self.places, self.written = self.places + rows, written

    @property
    def token(self) -> bytes:
        """What a database with these changes and this last body is known by, 16 bytes."""
        told = struct.pack("<qqd", self.change, self.places, self.written)
        return hashlib.blake2b(told, digest_size=16).digest()

    @classmethod
    def read(cls, db: sqlite3.Connection) -> "State":
        """As it is in the database now. Raises StoreError for an empty one.

        New rows change nothing but the bodies, so that keeping a row costs little: the number of places and the token
        come from the last body. `state` has the least number of places, for when that body is erased.
        """
        last = "SELECT place, written FROM bodies ORDER BY place DESC LIMIT 1"
        query = "SELECT generation, width, value_width, places, change, last.place, last.written FROM state"
        told = db.execute(f"{query} LEFT JOIN ({last}) AS last").fetchone()
        if told is None:
            raise StoreError("the memory has no state: it was not made by recuerdo, or is damaged")
        generation, width, value_width, places, change, place, written = told
        places = max(places, -1 if place is None else place + 1)
        return cls(generation, width, value_width, places, change, written or 0.0)


@dataclass
class InMemory:
    """A column that could not be written down: like `Column`, as far as readers need it."""

    path: Path
    held: np.ndarray

    def rows(self, n: int) -> np.ndarray:
        """The first n rows."""
        return self.held[:n]

    def close(self) -> None:
        """Nothing is open."""


class Index:
    """Places 0 … n-1: `ids` [n], `bias` [n] and `alive` [n], and the columns by name."""

    def __init__(self, path: Path, db: sqlite3.Connection, *, write: bool, held: bool = False):
        self.path, self.db, self.write, self.held = path, db, write, held
        self.columns: dict[str, Column | InMemory] = {}
        self.load()

    # ------------------------------------------------------------------------------------------------------- following

    def load(self) -> None:
        """Take everything from the database."""
        self.state = State.read(self.db)
        self.ids = np.empty(0, np.int64)
        self.bias, self.alive = np.empty(0, np.float32), np.empty(0, bool)
        self._version = -1
        self._copy = Copy() if self.held else None
        self._take(-1)
        for column in self.columns.values():
            column.close()
        self.columns = {name: self._open(name) for name in KINDS if self._shape(name)[1]}

    def follow(self) -> None:
        """Take over what was changed since; outside of a transaction of this process."""
        version = self.db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return
        self.db.execute("BEGIN")
        try:
            self.take_over()
        finally:
            self.db.execute("COMMIT")

    def take_over(self) -> None:
        """The same inside of a transaction."""
        version = self.db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return
        self._version = version
        now = State.read(self.db)
        if now.generation != self.state.generation:
            self.load()
        elif now.token != self.state.token:
            since, self.state = self.state.change, now
            self._take(since if now.change != since else None)
            for name, column in list(self.columns.items()):
                if isinstance(column, InMemory):
                    column.held = np.concatenate([column.held, *self._parts(name, len(column.held))])
                elif not self.write and not column.current:  # another process has made it anew
                    self.columns[name] = self._open(name)

    def changed(self, since: int, now: State) -> None:
        """Take over what this process itself has committed after a change: the state is `now`."""
        self.state = now
        self._take(since if now.change != since else None)

    def _take(self, since: int | None) -> None:
        """Ids and biases of the places that were changed after a change; None = there are only new rows."""
        self._grow(self.state.places)
        if since is None:
            return
        for place, id in self.db.execute("SELECT place, id FROM old WHERE change > ?", (since,)):
            self.ids[place], self.alive[place], self.bias[place] = id, False, 0.0
            if self._copy is not None:
                self._copy.wipe(place)
        told = self.db.execute("SELECT place, id, bias FROM rows WHERE change > ? AND place IS NOT NULL", (since,))
        for place, id, bias in told:
            self.ids[place], self.bias[place] = id, bias
        n = self.state.places
        self.even = bool(self.alive[:n].all()) and not self.bias[:n].any()

    def _grow(self, n: int) -> None:
        """Room for n places; the new ones are rows of their own. Arrays grow by half, so that one row costs little."""
        have = len(self.ids)
        if n > have:
            room = max(n, have + have // 2)
            self.ids = np.concatenate([self.ids, np.arange(have, room)])
            self.bias = np.concatenate([self.bias, np.zeros(room - have, np.float32)])
            self.alive = np.concatenate([self.alive, np.ones(room - have, bool)])

    # ------------------------------------------------------------------------------------------------------- filtering

    def places(self, where: Where) -> np.ndarray:
        """The places that a filter lets through, rising. Tags and authors cost what they have, not what there is."""
        n = self.state.places
        if where.nothing:
            return np.empty(0, np.int64)
        some: np.ndarray | None = None
        labels = [("tag", tag) for tag in where.tags] + ([] if where.author is None else [("author", where.author)])
        for label in labels:
            query = "SELECT place FROM labels WHERE kind = ? AND name = ? AND place < ? ORDER BY place"
            there = np.fromiter((place for (place,) in self.db.execute(query, (*label, n))), np.int64)
            some = there if some is None else np.intersect1d(some, there, assume_unique=True)
        some = np.flatnonzero(self.alive[:n]) if some is None else some[self.alive[some]]
        if where.ids is not None:
            some = some[np.isin(self.ids[some], np.array([id for id in where.ids if 0 <= id < n], np.int64))]
        if (where.since, where.until) != (-np.inf, np.inf):
            times = self.columns["times"].rows(n)[some, 0]
            some = some[(times >= where.since) & (times < where.until)]
        return some

    def mask(self, where: Where) -> np.ndarray:
        """Which places a filter lets through, [n] bool."""
        mask = np.zeros(self.state.places, bool)
        mask[self.places(where)] = True
        return mask

    def extra(self, rules: Rules, where: Where | None) -> np.ndarray | None:
        """What is added to the logits of all places, [n] float32; -inf = not looked at; None = nothing anywhere."""
        if self.even and where is None and not rules.fading:
            return None
        n = self.state.places
        mask = self.alive[:n] if where is None else self.mask(where)
        extra = np.where(mask, self.bias[:n], np.float32(-np.inf))
        if rules.fading:
            now = time.time() if rules.now is None else rules.now
            age = (now - self.columns["times"].rows(n)[:, 0]) / DAY
            extra = extra - (rules.fading * age).astype(np.float32)
        return extra

    # --------------------------------------------------------------------------------------------------------- columns

    def keys(self) -> np.ndarray:
        """The keys of all places, [n, d]: mapped from the file, or held in memory where that was asked for."""
        n = self.state.places
        mapped = self.columns["keys"].rows(n)
        return mapped if self._copy is None else self._copy.rows(mapped, self.alive[:n])

    def truth(self, name: str, first: int, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places and rows of a column as the bodies say, from a place on, some thousand at a time."""
        dtype, width = self._shape(name)
        while first < n:
            query = f"SELECT place, {KINDS[name]} FROM bodies WHERE place >= ? AND place < ? ORDER BY place"
            told = self.db.execute(query, (first, n)).fetchmany(PART)
            if not told:
                return
            places = np.array([place for place, _ in told])
            if name == "times":
                rows = np.array([[time] for _, time in told], dtype)
            else:
                rows = np.frombuffer(b"".join(data for _, data in told), dtype).reshape(-1, width)
            yield places, rows
            first = int(places[-1]) + 1

    def _parts(self, name: str, first: int) -> Iterator[np.ndarray]:
        """The rows of a column from a place on, without gaps: zeros where nothing is any more."""
        n = self.state.places
        for places, rows in self.truth(name, first, n):
            part = np.zeros((int(places[-1]) + 1 - first, rows.shape[1]), rows.dtype)
            part[places - first] = rows
            yield part
            first = int(places[-1]) + 1
        if first < n:
            dtype, width = self._shape(name)
            yield np.zeros((n - first, width), dtype)

    def _shape(self, name: str) -> tuple[str, int]:
        """Type and width of a column; width 0 = the memory has no such column."""
        if name == "times":
            return "<f8", 1
        return "<f4", self.state.width if name == "keys" else self.state.value_width

    def file(self, name: str) -> Path:
        """The file beside the database with such a name."""
        return self.path.with_name(f"{self.path.name}-{name}")

    def _open(self, name: str) -> Column | InMemory:
        path, (dtype, width) = self.file(name), self._shape(name)
        for attempt in range(TRIES if not self.write else 1):
            try:
                column = Column(path, dtype, width, self.state.generation, write=self.write)
            except OSError:
                break
            if column.trusted(self.state.token, self.state.places) == self.state.places:
                return column
            column.close()
            if attempt + 1 < TRIES:
                self.state = State.read(self.db)  # a writer may be between the column and the database
        if self.write:
            return self._repaired(name)
        self._grow(self.state.places)
        parts = list(self._parts(name, 0))
        return InMemory(path, np.concatenate(parts) if parts else np.empty((0, width), dtype))

    def rebuild(self) -> None:
        """Make all columns again from the bodies."""
        for name, column in list(self.columns.items()):
            column.close()
            self.columns[name] = self._repaired(name, anew=True)

    def _repaired(self, name: str, *, anew: bool = False) -> Column:
        """The column made what the database says; nobody else may write meanwhile."""
        path, (dtype, width) = self.file(name), self._shape(name)
        ours = not self.db.in_transaction
        if ours:
            self.db.execute("BEGIN IMMEDIATE")
        try:
            state = self.state = State.read(self.db)
            self._grow(state.places)
            column = Column(path, dtype, width, state.generation, write=True)
            good = 0 if anew else column.trusted(state.token, state.places)
            if not good and state.places:  # whoever has the old file mapped shall not see it change
                column.close()
                half = path.with_name(f"{path.name}.part")
                half.unlink(missing_ok=True)
                column = Column(half, dtype, width, state.generation, write=True)
            first = good
            for part in self._parts(name, good):
                column.put(first, part)
                first += len(part)
            column.mark(state.token, state.token)
            column.sync(state.places)
            if column.path != path:
                os.replace(column.path, path)
                column.path = path
            return column
        finally:
            if ours:
                self.db.execute("COMMIT")

    def written(self) -> dict[str, Column]:
        """The columns to write to; opened again where another process has put a new file in their place."""
        found: dict[str, Column] = {}
        for name, column in list(self.columns.items()):
            if not isinstance(column, Column) or not column.current:
                column.close()
                column = self.columns[name] = self._repaired(name)
            found[name] = column
        return found
