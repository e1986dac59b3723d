"""The server store: one memory of many people, in a schema of PostgreSQL with pgvector.

Several memories live in one database under several names. A scan is exact and is worked out on the server; a write is
on the server's disk when its call comes back. The connection comes back by itself after the server was away; a call
that was cut is a StoreError, never a wrong answer. A pooler in between has to give each client a session of its own.
Needs psycopg: `pip install recuerdo[server]`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import LiteralString, Self

import numpy as np

from recuerdo.errors import InputError, StoreError

try:
    import psycopg  # noqa: F401
except ImportError:
    raise StoreError("a memory on a server needs psycopg: pip install 'recuerdo[server]'") from None

from recuerdo.store import server_rows as tables
from recuerdo.store import server_scan, server_sql, server_words
from recuerdo.store import server_upkeep as upkeep
from recuerdo.store.cutter import Cutter
from recuerdo.store.embedded import SPARSE, SPARSE_FREE, Embedded
from recuerdo.store.record import Found, Hand, Ids, Receipt, Record, Rows, Rules, Stats, Where, by_id, whole
from recuerdo.store.refused import check_bias, check_rows, check_version, checked_queries
from recuerdo.store.server_session import Session
from recuerdo.store.server_sql import said
from recuerdo.store.undoing import again, taken_back


class Server:
    """A store in a schema of a PostgreSQL server. See `recuerdo.store.contract.Store` for what it promises."""

    def __init__(
        self,
        dsn: str,
        *,
        width: int = 0,
        value_width: int = 0,
        schema: str = "recuerdo",
        wait: float = 5.0,
        read_only: bool = False,
        approximate: bool = False,
    ):
        """Opens the memory `schema` at `dsn` (postgresql://user@host:5432/database); makes it, with keys of `width`,
        where there is none and a width is given.

        `wait`: seconds to wait for another writer. `approximate`: scans go by an index and look at few rows;
        `Found.unseen` bounds the rest. The index is made where there is none: minutes for 100,000 rows, and nobody
        writes meanwhile. Raises StoreError for a server that cannot be used, InputError
        for names of no memory and for widths that are not those of the memory that is there.
        """
        widths = (width, value_width)
        self._session = Session(dsn, schema, widths, wait=wait, read_only=read_only, approximate=approximate)
        self.name, self.read_only = self._session.name, read_only
        self._words = Cutter()
        if not read_only:
            upkeep.finish_wiping(self._session)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def width(self) -> int:
        """d, the width of the keys."""
        return self._session.width

    @property
    def value_width(self) -> int:
        """e, the width of the values; 0 where rows have none."""
        return self._session.value_width

    # --------------------------------------------------------------------------------------------------------- writing

    def append(self, rows: Rows) -> np.ndarray:
        """Keep rows, all or none: their ids, [n] int64."""
        check_rows(rows, (self.width, self.value_width), self.name)
        if not len(rows):
            return np.empty(0, np.int64)
        with self._session.writing() as state:
            first = state.next
            state.next += len(rows)
            tables.keep(
                self._session, self._words, state, tables.records(rows, [(first + i, 1, 0.0) for i in range(len(rows))])
            )
        return np.arange(first, first + len(rows))

    def update(self, id: int, rows: Rows, *, reason: str = "") -> int:
        """Put one row in the place of another as its next version, whose number is returned; the old one is kept."""
        check_version(rows, (self.width, self.value_width), self.name)
        with self._session.writing() as state:
            version = tables.put_next(self._session, self._words, state, id, rows)
            tables.note(self._session, "correct", [id], None, rows.author, reason)
        return version

    def bias(self, ids: Ids, amount: float, *, author: str = "", reason: str = "") -> None:
        """Set what is added to the logits of rows: 0 = as they are, -inf = never read."""
        check_bias(amount)
        with self._session.writing():
            wanted = whole(ids)
            tables.present(self._session, wanted)
            tables.set_bias(self._session, wanted, float(amount))
            tables.note(self._session, "bias", wanted, float(amount), author, reason)

    def undo(self, id: int, *, author: str = "", reason: str = "") -> Hand:
        """Take back what a hand did last to a row, and is not taken back yet: what that was."""
        with self._session.writing() as state:
            version, _ = tables.present(self._session, [id])[id]
            back = taken_back(id, tables.hands(self._session, id), version, self.name)
            if back.version:
                old = tables.versions(self._session, id)[back.version - 1]
                tables.put_next(self._session, self._words, state, id, again(old))
            else:
                tables.set_bias(self._session, [id], back.amount)
            amount = None if back.version else back.amount
            tables.note(self._session, "undo", [id], amount, author, reason)
        return back.hand

    def adopt(self, records: Sequence[Record], hands: Sequence[Hand] = ()) -> None:
        """Keep rows of another store as they stand there, with ids, versions, biases and times: all or none."""
        versions = by_id(records, self.width, self.value_width)
        with self._session.writing() as state:
            low, high = min(versions, default=state.next), max(versions, default=-1) + 1
            if high - low > SPARSE * len(versions) + SPARSE_FREE or high >= 2**63:
                raise InputError(
                    f"ids from {low} to {high - 1} are too far apart to be kept: append the rows as new ones"
                )
            if low < state.next:
                raise InputError(f"row {low} of {self.name} is there already, or was: move into an empty memory")
            state.next = max(state.next, high, *(hand.id + 1 for hand in hands))
            tables.keep(
                self._session,
                self._words,
                state,
                [(one, one is told[-1]) for told in versions.values() for one in told],
            )
            for hand in hands:
                tables.note(self._session, hand.what, [hand.id], hand.amount, hand.author, hand.reason, hand.time)

    def forget(self, ids: Ids, *, author: str = "", reason: str = "") -> Receipt:
        """Erase rows and all their versions: afterwards no table and no copy holds them.

        What the server keeps beside its tables (its write-ahead log) is out of reach, and the receipt says so.
        """
        wanted = list(dict.fromkeys(whole(ids)))
        if not wanted:
            return Receipt(0, 0, ())
        with self._session.writing() as state:
            tables.present(self._session, wanted)
            tables.unsay(self._session, state, wanted)
            versions = self._session.run("DELETE FROM {rows} WHERE id = ANY(%s::bigint[])", (wanted,)).rowcount
            self._session.run("DELETE FROM {texts} WHERE id = ANY(%s::bigint[])", (wanted,))
            self._session.run("INSERT INTO {forgotten} SELECT unnest(%s::bigint[])", (wanted,))
            # What was said of it by hand may repeat what it was.
            self._session.run("UPDATE {hands} SET reason = '' WHERE id = ANY(%s::bigint[])", (wanted,))
            tables.note(self._session, "forget", wanted, None, author, reason)
            state.forgets += 1
            copies = upkeep.copies(self._session)
        owed = [*upkeep.finish_wiping(self._session), *upkeep.forget_in_copies(copies, wanted)]
        owed.append(
            f"the write-ahead log of the server of {self.name}, and what was made from it (replicas, archives, "
            "backups), hold what was forgotten until their files are used again: they are out of reach"
        )
        searched = [f"{self.name}.{table}" for table in server_sql.TABLES]
        return Receipt(len(wanted), versions, (*searched, *(path for path, _, _ in copies)), tuple(owed))

    # --------------------------------------------------------------------------------------------------------- reading

    def get(self, ids: Ids) -> list[Record]:
        """Rows as they are now, in the order of the ids."""
        with self._session.reading():
            wanted = whole(ids)
            tables.present(self._session, wanted)
            told = self._session.run(tables.RECORD + "WHERE r.id = ANY(%s::bigint[]) AND r.present", (wanted,))
            found = {one.id: one for one in map(tables.record, told)}
            if gone := [id for id in wanted if id not in found]:
                raise StoreError(f"{self.name} is damaged (row {gone[0]} has no text): restore it from a snapshot")
            return [found[id] for id in wanted]

    def history(self, id: int) -> list[Record]:
        """All versions of a row, oldest first; the last is the present one."""
        with self._session.reading():
            tables.present(self._session, [id])
            return tables.versions(self._session, id)

    def ids(self, where: Where | None = None) -> np.ndarray:
        """The ids of rows, rising."""
        text, given = server_scan.filtered(where)
        with self._session.reading():
            told = self._session.run("SELECT r.id FROM {rows} r WHERE r.present" + text + " ORDER BY 1", given)
            return np.fromiter((id for (id,) in told), np.int64)

    def scan(
        self, queries: np.ndarray, *, top: int = 10, rules: Rules | None = None, where: Where | None = None
    ) -> Found:
        """The best rows for queries [q, d], and the log-mass of all that was addressed."""
        asked = checked_queries(queries, top, self.width, self.name)
        with self._session.reading():
            return server_scan.scan(self._session, asked, top, rules or Rules(), where)

    def matches(self, text: str, *, top: int = 100, where: Where | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The rows whose texts share words with a text: ids [k] int64 and their BM25 [k], best first."""
        (asked,) = self._words.of([text])
        with self._session.reading():
            return server_words.matches(self._session, server_words.short(asked), top, where)

    def notes(self) -> dict[str, str]:
        """Small facts that are kept with the rows, such as which encoder makes the keys."""
        with self._session.reading():
            told = self._session.run("SELECT name, value FROM {notes} ORDER BY name")
            return {name.decode(): value.decode() for name, value in told}

    def note(self, name: str, value: str) -> None:
        """Keep such a fact; an empty value takes it away."""
        told = (said(name, "a name"), said(value, "a fact"))
        with self._session.writing():
            self._session.run("DELETE FROM {notes} WHERE name = %s", told[:1])
            if value:
                self._session.run("INSERT INTO {notes} VALUES(%s, %s)", told)

    def vectors(self, where: Where | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Ids [n], keys [n, d] and values [n, e] (None where rows have none) of rows, the ids rising."""
        text, given = server_scan.filtered(where)
        what: LiteralString = "SELECT r.id, r.key FROM {rows} r WHERE r.present"
        if self.value_width:
            what = "SELECT r.id, r.key, t.value FROM {rows} r JOIN {texts} t USING (id, version) WHERE r.present"
        with self._session.reading():
            told = self._session.run(what + text, given)
            n = told.rowcount
            ids, keys = np.empty(n, np.int64), np.empty((n, self.width), np.float32)
            values = np.empty((n, self.value_width), np.float32) if self.value_width else None
            for i, (id, key, *value) in enumerate(told):
                ids[i], keys[i] = id, key
                if values is not None:
                    values[i] = np.frombuffer(value[0], "<f4")
            order = np.argsort(ids)  # quicker here than with the keys on the server
            return ids[order], keys[order], None if values is None else values[order]

    def hands(self, id: int | None = None) -> list[Hand]:
        """What was done to a row by hand, or to all rows, oldest first."""
        if id is not None and not 0 <= id < 2**63:
            return []
        with self._session.reading():
            return tables.hands(self._session, id)

    def stats(self) -> Stats:
        """How large it is."""
        with self._session.reading():
            rows, versions = self._session.one(
                "SELECT count(*) FILTER (WHERE present), count(*) FILTER (WHERE NOT present) FROM {rows}"
            )
            (size,) = self._session.one(
                "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c JOIN pg_namespace n "
                "ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = ANY(%s::text[])",
                (self._session.schema, list(server_sql.TABLES)),
            )
            (after,) = self._session.one("SELECT next FROM {state}")
            return Stats(rows, versions, self.width, self.value_width, server_sql.SCHEMA, size, after)

    # ---------------------------------------------------------------------------------------------------------- upkeep

    def snapshot(self, path: Path) -> Path:
        """A copy of the store as it is now, as an embedded memory; `forget` reaches it as long as it stays there."""
        path = Path(path)
        if path.exists():
            raise InputError(f"{path} is there already: give a new name")
        if self.read_only:
            raise StoreError(f"{self.name} was opened to be read only: open it for writing")
        half = path.with_name(f"{path.name}.part")
        upkeep.remove(half)  # what was left by one that was cut off
        moved = False
        try:
            with self._session.reading():
                ids = upkeep.copy_all(self._session, half, (self.width, self.value_width))
            with self._session.writing():  # who forgets waits until the copy is where it is looked for
                gone = "SELECT id FROM {forgotten} WHERE id = ANY(%s::bigint[])"
                if late := [id for (id,) in self._session.run(gone, (ids,))]:
                    with Embedded(half) as copy:
                        copy.forget(late)
                upkeep.note_copy(self._session, path.absolute(), upkeep.made(half))
                with open(half, "rb") as file:
                    os.fsync(file.fileno())
                half.replace(path)
                moved = True
        except OSError as error:
            raise StoreError(f"{path} could not be written ({error}): give another place") from error
        except BaseException:
            if moved:  # and the server may not know of it
                upkeep.remove(path)
            raise
        finally:
            upkeep.remove(half)
        return path

    def check(self) -> list[str]:
        """Compare everything with everything: what is wrong, in words; nothing = all is well."""
        with self._session.reading():
            return upkeep.wrong(self._session, self.value_width)

    def close(self) -> None:
        """Let go of the connection."""
        self._session.close()
        self._words.close()

    # ----------------------------------------------------------------------------------------------- what is behind it
