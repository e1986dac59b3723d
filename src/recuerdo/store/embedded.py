"""The embedded store: one SQLite file that holds the truth, and columns of numbers beside it that are read at once.

    notes.db            every version of every row (WAL, synchronous=FULL, secure_delete)
    notes.db-keys       the keys [places, d] float32, mapped into memory; -times and -values are like it
    notes.db-cells      where it was asked for: the keys once more, those that are alike side by side

Columns are caches: one that is missing, torn or of another database is made again from the truth. Many processes may
read while one writes; a second writer waits, and then gets a StoreError.
"""

import operator
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np

from recuerdo.errors import InputError, StoreError
from recuerdo.store import bodies, indexing, lexicon, schema
from recuerdo.store.grouping import Step
from recuerdo.store.index import PART
from recuerdo.store.indexing import Indexed
from recuerdo.store.looking import look
from recuerdo.store.near import Near, Nearby
from recuerdo.store.record import Found, Hand, Ids, Receipt, Record, Rows, Rules, Stats, Where, by_id, whole
from recuerdo.store.refused import FORGOTTEN, check_bias, check_rows, check_said, check_version, checked_queries
from recuerdo.store.session import Session
from recuerdo.store.undoing import again, taken_back

# Ids of rows that are adopted may leave so many places empty for each row, and so many besides.
SPARSE, SPARSE_FREE = 4, 1_000_000


class Embedded:
    """A store in one file. See `recuerdo.store.contract.Store` for what it promises."""

    def __init__(
        self,
        path: str | Path,
        *,
        width: int = 0,
        value_width: int = 0,
        wait: float = 5.0,
        read_only: bool = False,
        held: bool = False,
        approximate: Near | None = None,
    ):
        """Opens the memory at `path`; makes it, with keys of `width`, where there is none and a width is given.

        `wait`: seconds to wait for another writer. `held`: keep a copy of the keys in the memory of this process, which
        scans read faster than the mapped file. `approximate`: scans without a filter go by the index that `index` made,
        where there is one, and `Found` bounds what they did not look at; all other scans are exact. Raises StoreError
        for a file that cannot be used, InputError for widths that are not those of the memory that is there.
        """
        self._session = Session(Path(path), width, value_width, wait=wait, read_only=read_only, held=held)
        self.path, self.read_only = self._session.path, read_only
        self._db, self._index = self._session.db, self._session.index
        self._nearby = None if approximate is None else Nearby(approximate, self._index)
        if not read_only:
            try:
                self._session.finish_wiping()
            except BaseException:
                self._session.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def width(self) -> int:
        """d, the width of the keys."""
        return self._index.state.width

    @property
    def value_width(self) -> int:
        """e, the width of the values; 0 where rows have none."""
        return self._index.state.value_width

    # --------------------------------------------------------------------------------------------------------- writing

    def append(self, rows: Rows) -> np.ndarray:
        """Keep rows, all or none: their ids, [n] int64."""
        check_rows(rows, (self.width, self.value_width), self.path)
        if not len(rows):
            return np.empty(0, np.int64)
        with self._session.writing(only_rows=True):
            first = self._index.state.places
            self._keep(rows, first, [(first + i, 1) for i in range(len(rows))])
        return np.arange(first, first + len(rows))

    def update(self, id: int, rows: Rows, *, reason: str = "") -> int:
        """Put one row in the place of another as its next version, whose number is returned; the old one is kept."""
        check_version(rows, (self.width, self.value_width), self.path)
        check_said(reason)
        with self._session.writing():
            version = self._put_next(id, rows)
            self._note("correct", [id], None, rows.author, reason)
        return version

    def bias(self, ids: Ids, amount: float, *, author: str = "", reason: str = "") -> None:
        """Set what is added to the logits of rows: 0 = as they are, -inf = never read."""
        check_bias(amount)
        check_said(author, reason)
        with self._session.writing():
            for id in whole(ids):
                self._set_row(id, *self._place_of(id), float(amount))
            self._note("bias", whole(ids), float(amount), author, reason)

    def undo(self, id: int, *, author: str = "", reason: str = "") -> Hand:
        """Take back what a hand did last to a row, and is not taken back yet: what that was."""
        with self._session.writing():
            place, version = self._place_of(id)
            back = taken_back(id, bodies.hands(self._db, id), version, self.path)
            if back.version:
                self._put_next(id, again(self._versions(id)[back.version - 1]))
            else:
                self._set_row(id, place, version, back.amount)
            self._note("undo", [id], None if back.version else back.amount, author, reason)
        return back.hand

    def adopt(self, records: Sequence[Record], hands: Sequence[Hand] = ()) -> None:
        """Keep rows of another store as they stand there, with ids, versions, biases and times: all or none."""
        versions = by_id(records, self.width, self.value_width)
        check_said(*(words for hand in hands for words in (hand.author, hand.reason)))
        with self._session.writing():
            state = self._index.state
            low, high = min(versions, default=state.places), max([-1, *versions, *(hand.id for hand in hands)]) + 1
            if high - state.places > SPARSE * len(versions) + SPARSE_FREE:
                raise InputError(
                    f"ids from {low} to {high - 1} are too far apart to be kept: append the rows as new ones"
                )
            there = [id for id in versions if id < state.places and self._given(id)]
            if there:
                raise InputError(f"row {there[0]} of {self.path} is there already, or was: move into an empty memory")
            first, end = state.places, max(state.places, high)
            placed, state.places = bodies.placed(versions, first, end)
            bodies.put(self._db, placed)
            for name, column in self._index.written().items():
                column.put_apart(first, [(place, _number(one, name)) for place, one in placed], state.places)
            gone = [(place, -1, state.change) for place in sorted({*range(first, end)} - {*versions})]
            gone += [(place, one.id, state.change) for place, one in placed if one is not versions[one.id][-1]]
            self._db.executemany("INSERT INTO old VALUES(?, ?, ?)", gone)
            for place, one in placed:
                if one is versions[one.id][-1] and (one.version > 1 or one.bias or place != one.id):
                    self._set_row(one.id, place, one.version, one.bias)
            for hand in hands:
                self._note(hand.what, [hand.id], hand.amount, hand.author, hand.reason, hand.time)

    def forget(self, ids: Ids, *, author: str = "", reason: str = "") -> Receipt:
        """Erase rows and all their versions: afterwards their bytes are nowhere within reach of the store."""
        wanted = list(dict.fromkeys(whole(ids)))
        if not wanted:
            return Receipt(0, 0, ())
        check_said(author, reason)
        with self._session.writing():
            places: list[int] = []
            for id in wanted:
                place, version = self._place_of(id)
                earlier = [p for (p,) in self._db.execute("SELECT place FROM old WHERE id = ?", (id,))]
                places += [*earlier, place]
                change = self._index.state.change
                lexicon.leave_out(self._db, [place])
                self._db.execute("INSERT INTO old VALUES(?, ?, ?)", (place, id, change))
                told = (id, None, version, 0.0, change)
                self._db.execute("INSERT OR REPLACE INTO rows VALUES(?, ?, ?, ?, ?)", told)
                # What was said of it by hand may repeat what it was.
                self._db.execute("UPDATE hands SET reason = '' WHERE id = ?", (id,))
            bodies.erase(self._db, places)
            lexicon.purge(self._db)
            self._note("forget", wanted, None, author, reason)
        owed = [*self._session.finish_wiping(), *self._forget_in_copies(wanted)]
        searched = [
            self.path,
            *(self.path.with_name(f"{self.path.name}-{n}") for n in ("wal", *self._index.columns, indexing.NAME)),
        ]
        searched += [Path(p) for (p,) in self._db.execute("SELECT path FROM copies ORDER BY path")]
        return Receipt(len(wanted), len(places), tuple(map(str, searched)), tuple(owed))

    # --------------------------------------------------------------------------------------------------------- reading

    def get(self, ids: Ids) -> list[Record]:
        """Rows as they are now, in the order of the ids."""
        with self._session.reading():
            told = [(id, *self._place_of(id)) for id in whole(ids)]
            places = [place for _, place, _ in told]
            found = self._bodies(places)
            return [found[place] for place in places]

    def history(self, id: int) -> list[Record]:
        """All versions of a row, oldest first; the last is the present one."""
        with self._session.reading():
            return self._versions(id)

    def ids(self, where: Where | None = None) -> np.ndarray:
        """The ids of rows, rising."""
        with self._session.reading():
            n = self._index.state.places
            places = np.flatnonzero(self._index.alive[:n]) if where is None else self._index.places(where)
            return np.sort(self._index.ids[places])

    def scan(
        self, queries: np.ndarray, *, top: int = 10, rules: Rules | None = None, where: Where | None = None
    ) -> Found:
        """The best rows for queries [q, d], and the log-mass of all that was addressed."""
        asked = checked_queries(queries, top, self.width, self.path)
        with self._session.reading():
            return look(self._index, self._nearby, asked, top, rules or Rules(), where)

    def matches(self, text: str, *, top: int = 100, where: Where | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The rows whose texts share words with a text: ids [k] int64 and their BM25 [k], best first."""
        while not self.read_only and operator.ne(*lexicon.behind(self._db)):
            with self._session.writing():
                lexicon.catch_up(self._db)
        with self._session.reading():
            alive = self._index.alive if where is None else self._index.mask(where)
            some = ((place, score) for place, score in lexicon.matches(self._db, text) if alive[place])
            found = list(islice(some, top))
            places = np.array([place for place, _ in found], np.int64)
            return self._index.ids[places], np.array([score for _, score in found])

    def notes(self) -> dict[str, str]:
        """Small facts that are kept with the rows, such as which encoder makes the keys."""
        with self._session.reading():
            return dict(self._db.execute("SELECT name, value FROM notes ORDER BY name"))

    def note(self, name: str, value: str) -> None:
        """Keep such a fact; an empty value takes it away."""
        check_said(name, value)
        with self._session.writing():
            self._db.execute("DELETE FROM notes WHERE name = ?", (name,))
            if value:
                self._db.execute("INSERT INTO notes VALUES(?, ?)", (name, value))

    def vectors(self, where: Where | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Ids [n], keys [n, d] and values [n, e] (None where rows have none) of rows, in the order of their places."""
        with self._session.reading():
            n = self._index.state.places
            mask = self._index.alive[:n] if where is None else self._index.mask(where)
            some = slice(None) if mask.all() else mask
            values = self._index.columns["values"].rows(n)[some] if self.value_width else None
            return self._index.ids[:n][some], self._index.columns["keys"].rows(n)[some], values

    def hands(self, id: int | None = None) -> list[Hand]:
        """What was done to a row by hand, or to all rows, oldest first."""
        with self._session.reading():
            return bodies.hands(self._db, id)

    def stats(self) -> Stats:
        """How large it is."""
        with self._session.reading():
            rows = int(self._index.alive[: self._index.state.places].sum())
            kept = "SELECT count(*) FROM old JOIN rows USING(id) WHERE rows.place IS NOT NULL"
            versions = self._db.execute(kept).fetchone()[0]
            names = ("", "-wal", "-shm", *(f"-{name}" for name in (*self._index.columns, indexing.NAME)))
            files = [self.path.with_name(self.path.name + name) for name in names]
            size = sum(file.stat().st_size for file in files if file.exists())
            return Stats(rows, versions, self.width, self.value_width, schema.SCHEMA, size, self._index.state.places)

    # ---------------------------------------------------------------------------------------------------------- upkeep

    def snapshot(self, path: Path) -> Path:
        """A copy of the store as it is now, in a file of its own; `forget` reaches it as long as it stays there."""
        path = Path(path)
        if path.exists():
            raise InputError(f"{path} is there already: give a new name")
        with self._session.lock, self._session.telling():
            schema.copied(self._db, path)
            with self._session.writing():
                told = (str(path.absolute()), time.time())
                self._db.execute("INSERT OR REPLACE INTO copies VALUES(?, ?)", told)
        return path

    def check(self) -> list[str]:
        """Compare everything with everything: what is wrong, in words; nothing = all is well."""
        with self._session.reading():
            wrong = [told for (told,) in self._db.execute("PRAGMA integrity_check") if told != "ok"]
            for name, column in self._index.columns.items():
                rows = column.rows(self._index.state.places)
                whole = self._index.truth(name, 0, self._index.state.places)
                bad = sum(not np.array_equal(rows[places], truth) for places, truth in whole)
                if bad:
                    wrong.append(f"{column.path} differs from the database in {bad} parts of {PART} rows")
            return wrong + indexing.compared(self._index)

    def rebuild(self) -> None:
        """Make the columns again from the database."""
        if self.read_only:
            raise StoreError(f"{self.path} was opened to be read only: open it for writing to rebuild it")
        with self._session.lock, self._session.telling():
            self._index.rebuild()

    def index(self, *, cells: int = 0, step: Step | None = None) -> Indexed:
        """Make the index of approximate scans over all rows that are there; rows that come later are read one and all.

        `cells`: about how many, 0 = ten times the root of the number of rows; `step(what, done, all)` is called now
        and then. Others may read and write meanwhile, but for the last seconds.
        """
        if self.read_only:
            raise StoreError(f"{self.path} was opened to be read only: open it for writing to make its index")
        return indexing.make(self._session, cells, step)

    def close(self) -> None:
        """Let go of files and connections."""
        self._session.close()

    # ----------------------------------------------------------------------------------------------- what is behind it

    def _keep(self, rows: Rows, first: int, named: list[tuple[int, int]]) -> None:
        """Rows at the places from `first` on, with their ids and versions."""
        now = time.time()
        times = [now] * len(rows) if rows.times is None else [float(t) for t in rows.times]
        bodies.insert(self._db, rows, first, named, times, now)
        columns = self._index.written()
        columns["keys"].put(first, rows.keys)
        columns["times"].put(first, np.array(times))
        if rows.values is not None:
            columns["values"].put(first, rows.values)
        self._index.state.grow(len(rows), now)

    def _place_of(self, id: int) -> tuple[int, int]:
        """Where the present version of a row is, and its number. Raises InputError for a row that is not there."""
        some = 0 <= id < 2**63  # what SQLite can hold
        told = self._db.execute("SELECT place, version FROM rows WHERE id = ?", (id,)).fetchone() if some else None
        if told is not None and told[0] is not None:
            return told
        known = self._index.ids
        if told is None and 0 <= id < self._index.state.places and (len(known) <= id or known[id] == id):
            return id, 1
        what = FORGOTTEN if told is not None else "is not there"
        raise InputError(f"row {id} of {self.path} {what}")

    def _given(self, id: int) -> bool:
        """Whether an id below the number of places is that of a row, or was."""
        return self._index.ids[id] == id or bool(self._db.execute("SELECT 1 FROM rows WHERE id = ?", (id,)).fetchone())

    def _put_next(self, id: int, rows: Rows) -> int:
        """One row as the next version of another, whose number is returned."""
        place, version = self._place_of(id)
        state = self._index.state
        self._keep(rows, state.places, [(id, version + 1)])
        lexicon.leave_out(self._db, [place])
        self._db.execute("INSERT INTO old VALUES(?, ?, ?)", (place, id, state.change))
        (bias,) = self._db.execute("SELECT bias FROM rows WHERE id = ?", (id,)).fetchone() or (0.0,)
        self._set_row(id, state.places - 1, version + 1, bias)
        return version + 1

    def _versions(self, id: int) -> list[Record]:
        place, _ = self._place_of(id)
        earlier = [p for (p,) in self._db.execute("SELECT place FROM old WHERE id = ?", (id,))]
        # Versions that were adopted stand in another order.
        return sorted(self._bodies([*earlier, place]).values(), key=lambda one: one.version)

    def _set_row(self, id: int, place: int, version: int, bias: float) -> None:
        told = (id, place, version, bias, self._index.state.change)
        self._db.execute("INSERT OR REPLACE INTO rows VALUES(?, ?, ?, ?, ?)", told)

    def _note(
        self, what: str, ids: list[int], amount: float | None, author: str, reason: str, when: float | None = None
    ) -> None:
        told = ((what, id, amount, author, reason, time.time() if when is None else when) for id in ids)
        self._db.executemany("INSERT INTO hands(what, id, amount, author, reason, time) VALUES(?, ?, ?, ?, ?, ?)", told)

    def _bodies(self, places: list[int]) -> dict[int, Record]:
        found = bodies.records(self._db, places)
        if gone := [place for place in places if place not in found]:
            raise InputError(f"row {self._index.ids[gone[0]]} of {self.path} {FORGOTTEN}")
        return found

    # --------------------------------------------------------------------------------------------------------- erasing

    def _forget_in_copies(self, ids: list[int]) -> list[str]:
        """The same in the snapshots that are still there."""
        owed = []
        for (path,) in self._db.execute("SELECT path FROM copies").fetchall():
            if not Path(path).is_file():
                continue
            try:
                with Embedded(path) as copy:
                    there = [id for id in ids if copy._has(id)]
                    owed += copy.forget(there).owed
            except StoreError as error:
                owed.append(str(error))
        return owed

    def _has(self, id: int) -> bool:
        try:
            self._place_of(id)
        except InputError:
            return False
        return True


def _number(one: Record, column: str) -> np.ndarray | float | None:
    """What of a record stands in a column."""
    return {"keys": one.key, "times": one.time, "values": one.value}[column]
