"""An open embedded store: the connection, what is held of it in memory, and how one reads and writes."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from recuerdo.errors import InputError, NoMemory, StoreError
from recuerdo.store import indexing, schema
from recuerdo.store.column import Column
from recuerdo.store.index import Index, State


class Session:
    """One process at one memory. Threads take turns."""

    def __init__(self, path: Path, width: int, value_width: int, *, wait: float, read_only: bool, held: bool = False):
        """Opens, or makes, the memory; see `Embedded`."""
        self.path, self.read_only = path, read_only
        self.lock = threading.RLock()
        with self.telling():
            if not path.exists() and (read_only or not width):
                raise NoMemory(f"there is no memory {path}: make one by remembering something")
            self.db = schema.connect(path, write=not read_only, wait=wait)
            try:
                if not read_only and width and not schema.made(self.db):
                    schema.create(self.db, width, value_width)
                if not schema.made(self.db):
                    raise NoMemory(f"the memory {path} is empty: make it anew by remembering something")
                self.index = Index(path, self.db, write=not read_only, held=held)
                mine = (self.index.state.width, self.index.state.value_width)
                if width and mine != (width, value_width):
                    asked = (width, value_width)
                    raise InputError(
                        f"{path} has keys and values of width {mine}, not {asked}: another encoder made it"
                    )
            except BaseException:
                self.db.close()
                raise

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What goes wrong inside is told as a StoreError."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(schema.words(self.path, error)) from error

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What others changed is taken over first."""
        with self.lock, self.telling():
            self.index.follow()
            yield

    @contextmanager
    def writing(self, *, only_rows: bool = False) -> Iterator[None]:
        """One transaction: all that is done inside, or nothing; afterwards it is on the disk.

        `only_rows`: nothing but new rows is written inside.
        """
        if self.read_only:
            raise StoreError(f"{self.path} was opened to be read only: open it for writing")
        with self.lock, self.telling():
            self.db.execute("BEGIN IMMEDIATE")
            try:
                self.index.take_over()
                columns = self.index.written()
                state = self.index.state
                before, since = state.token, state.change
                state.change += not only_rows
                yield
                if not only_rows:
                    self.db.execute("UPDATE state SET places = ?, change = ?", (state.places, state.change))
                after = state if only_rows else State.read(self.db)
                for column in columns.values():
                    column.mark(before, after.token)
                self.db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self.db.execute("ROLLBACK")
                with suppress(sqlite3.Error, OSError, StoreError):  # what is told is what went wrong first
                    self.index.load()
                raise
            self.index.changed(since, after)

    def finish_wiping(self) -> list[str]:
        """Overwrite in the columns what was forgotten, and empty the WAL: what could not be done, in words."""
        told = self.db.execute("SELECT place FROM wiped").fetchall()
        if not told:
            return []
        places = np.array([place for (place,) in told])
        with self.writing():
            for column in self.index.written().values():
                column.wipe(places)
            indexing.wipe(self.index, places)
            self.db.execute("DELETE FROM wiped")
        busy = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]  # waits as long as a second writer does
        if not busy:
            return []
        return [f"{self.path}-wal is in use by a reader: what was forgotten is in it until that one ends"]

    def close(self) -> None:
        """Let go of files and connections."""
        with self.lock:
            for column in self.index.columns.values():
                if isinstance(column, Column) and not self.read_only:
                    with suppress(OSError):
                        column.sync(self.index.state.places)
                column.close()
            self.index.columns = {}
            self.db.close()
