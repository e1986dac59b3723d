"""An open memory on a server: the connection, which comes back by itself, and how one reads and writes."""

import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from recuerdo.errors import InputError, NoMemory, StoreError
from recuerdo.store import server_sql

PATIENCE = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
AWAKENING = (
    "starting up",
    "recovery",
    "not yet accepting",
    "closed the connection unexpectedly",
)  # said by a server that is about to be there
ONE_AT_A_TIME = 0x52434442  # the advisory lock under which memories are made: "RCDB"


@dataclass
class State:
    """The one row of the table `state`, as far as it changes.

    `longest` bounds the norms of all keys from above; `forgets` counts what was forgotten; `spoken` present
    rows have texts with words, `words` in all.
    """

    next: int
    longest: float
    forgets: int
    spoken: int
    words: int


class Session:
    """One process at one memory. Threads take turns."""

    def __init__(
        self, dsn: str, schema: str, widths: tuple[int, int], *, wait: float, read_only: bool, approximate: bool = False
    ):
        """Opens, or makes, the memory; see `Server`."""
        server_sql.check_name(schema)
        self.schema, self.read_only, self.approximate = schema, read_only, approximate
        self._dsn, self._wait, self._asked = dsn, wait, widths
        self.name, self._more = _address(dsn, schema)
        self._names: dict[str, sql.Composable] = {
            "schema": sql.Identifier(schema),
            **{table: sql.Identifier(schema, table) for table in server_sql.TABLES},
        }
        self.lock = threading.RLock()
        self.width = self.value_width = 0
        self._generation: uuid.UUID | None = None
        self._db: psycopg.Connection | None = None
        self._closed = False
        with self._telling():
            self._connected()

    # ------------------------------------------------------------------------------------------------------- statements

    def run(self, text: LiteralString, given: Sequence[object] | Mapping[str, object] = ()) -> psycopg.Cursor:
        """One statement; `{rows}` and the like are the tables of this memory."""
        return self._open.execute(sql.SQL(text).format(**self._names), given, binary=True)

    def one(self, text: LiteralString, given: Sequence[object] | Mapping[str, object] = ()) -> tuple[Any, ...]:
        """The one row that a statement tells."""
        told = self.run(text, given).fetchone()
        if told is None:
            raise StoreError(f"the memory {self.name} has no state: it was not made by recuerdo, or is damaged")
        return told

    def copy(self, text: LiteralString, types: Sequence[str], told: Iterator[Sequence[object]]) -> None:
        """Rows into a table at once, by a COPY statement."""
        with self._open.cursor() as cursor, cursor.copy(sql.SQL(text).format(**self._names)) as copy:
            copy.set_types(types)
            for row in told:
                copy.write_row(row)

    @property
    def _open(self) -> psycopg.Connection:
        if self._db is None:
            raise StoreError(f"{self.name} was closed: open it again")
        return self._db

    # ----------------------------------------------------------------------------------------------------- transactions

    @contextmanager
    def reading(self) -> Iterator[None]:
        """All that is read inside is of one moment."""
        with self.lock, self._telling():
            self._begin("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            try:
                yield
            finally:
                self._rollback()

    @contextmanager
    def writing(self) -> Iterator[State]:
        """One transaction: all that is done inside, or nothing; afterwards it is on the disk of the server."""
        if self.read_only:
            raise StoreError(f"{self.name} was opened to be read only: open it for writing")
        with self.lock, self._telling():
            self._begin("BEGIN ISOLATION LEVEL READ COMMITTED")
            try:
                state = State(*self.one("SELECT next, longest, forgets, spoken, words FROM {state} FOR UPDATE"))
                yield state
                new = "UPDATE {state} SET next = %s, longest = %s, forgets = %s, spoken = %s, words = %s"
                self.run(new, (state.next, state.longest, state.forgets, state.spoken, state.words))
                self._commit()
            except BaseException:
                self._rollback()
                raise

    @contextmanager
    def alone(self) -> Iterator[psycopg.Connection]:
        """Statements that no transaction may hold, as VACUUM."""
        with self.lock, self._telling():
            self._begin("BEGIN ISOLATION LEVEL READ COMMITTED")
            self._rollback()
            yield self._open

    def _begin(self, how: LiteralString) -> None:
        """Start a transaction. Nothing was asked yet: a connection that died meanwhile is made anew."""
        if self._connected():
            try:
                self._open.execute(how)
                return
            except psycopg.OperationalError:
                if not self._open.closed:
                    raise
            self._connected()
        self._open.execute(how)

    def _commit(self) -> None:
        try:
            self._open.execute("COMMIT")
        except psycopg.Error as error:
            if not self._open.closed:
                raise
            raise StoreError(
                f"the connection to {self.name} was cut ({server_sql.first_line(error)}) while the write was being "
                "kept: whether it was is not known: look before you write it again"
            ) from error

    def _rollback(self) -> None:
        db = self._db
        if db is None or db.closed:
            return
        with suppress(psycopg.Error):
            if db.info.transaction_status != TransactionStatus.IDLE:
                db.execute("ROLLBACK")
        if db.info.transaction_status != TransactionStatus.IDLE:
            db.close()  # the next call makes a new one

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What goes wrong inside is told as a StoreError."""
        try:
            yield
        except psycopg.Error as error:
            lost = self._db is None or self._db.closed
            raise StoreError(server_sql.words(self.name, error, lost=lost)) from error

    # ------------------------------------------------------------------------------------------------------- connecting

    def _connected(self) -> bool:
        """Make a connection where there is none; True where the old one may still be good."""
        if self._closed:
            raise StoreError(f"{self.name} was closed: open it again")
        if self._db is not None and not self._db.closed:
            return True
        for last in (False, True):  # a server that comes back may cut the first who are there
            self._db = self._connect()
            try:
                self._settle(self._db)
                self._open_memory()
                break
            except psycopg.Error as error:
                if last or not self._db.closed:
                    lost = self._db.closed
                    self._db.close()
                    raise StoreError(server_sql.words(self.name, error, lost=lost)) from error
            except BaseException:
                self._db.close()
                raise
        return False

    def _connect(self) -> psycopg.Connection:
        until = time.monotonic() + self._wait
        while True:
            try:
                return psycopg.connect(self._dsn, autocommit=True, prepare_threshold=None, **self._more)
            except psycopg.OperationalError as error:
                told = server_sql.first_line(error)
                if time.monotonic() > until or not any(word in str(error) for word in AWAKENING):
                    raise StoreError(
                        f"the server of {self.name} cannot be reached ({told}); nothing was changed: is it running, "
                        "and may this user come in?"
                    ) from error
            time.sleep(0.05)

    def _settle(self, db: psycopg.Connection) -> None:
        """What every connection needs."""
        # remote_apply waits for more than the disk of this server; all else that people set waits for less.
        db.execute(
            "SELECT set_config('synchronous_commit', 'on', false) "
            "WHERE current_setting('synchronous_commit') <> 'remote_apply'"
        )
        for setting, value in (
            ("lock_timeout", str(max(1, round(1000 * self._wait)))),  # 0 would be for ever
            ("jit", "off"),  # takes longer than it saves
            ("default_transaction_read_only", "on" if self.read_only else "off"),
        ):
            db.execute("SELECT set_config(%s, %s, false)", (setting, value))

    def _open_memory(self) -> None:
        """Make the memory if it is to be made, and see that it is the one that was meant."""
        width = self._asked[0]
        known = server_sql.learn_vectors(self._open)
        if not self._made():
            if self.read_only or not width or self._generation is not None:
                raise NoMemory(f"there is no memory {self.name}: make one by remembering something")
            self._create(known)
        elif not known:
            raise StoreError(f"the server of {self.name} has no pgvector any more: run CREATE EXTENSION vector on it")
        version, generation, *mine = self.one("SELECT schema, generation, width, value_width FROM {state}")
        if version != server_sql.SCHEMA:
            raise StoreError(
                f"the memory {self.name} is of version {version}, and this recuerdo knows {server_sql.SCHEMA}: "
                "use the recuerdo that made it, or a newer one"
            )
        if width and tuple(mine) != self._asked:
            raise InputError(
                f"{self.name} has keys and values of width {tuple(mine)}, not {self._asked}: another encoder made it"
            )
        if self._generation not in (None, generation):
            raise StoreError(f"{self.name} was made anew by somebody else: open it again")
        self._generation, (self.width, self.value_width) = generation, mine
        if self.approximate:
            self._index()

    def _made(self) -> bool:
        """Whether the memory is there. Raises StoreError where something else is in its place."""
        told = self._open.execute(
            "SELECT c.relname, obj_description(c.oid, 'pg_class') FROM pg_class c JOIN pg_namespace n "
            "ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = ANY(%s::text[])",
            (self.schema, list(server_sql.TABLES)),
        ).fetchall()
        if told and dict(told).get("state") != server_sql.MARK:
            raise StoreError(f"{self.name} is no memory of recuerdo: give the schema of one, or a new name")
        return bool(told)

    def _create(self, known: bool) -> None:
        width, value_width = self._asked
        if not 0 < width <= server_sql.WIDEST or value_width < 0:
            raise InputError(f"keys on a server are of width 1 to {server_sql.WIDEST:,}, not {width}")
        db = self._open
        if db.execute("SHOW server_encoding").fetchone() != ("UTF8",):
            raise StoreError(f"the database of {self.name} is not in UTF8: make one that is")
        with db.transaction():
            db.execute("SELECT pg_advisory_xact_lock(%s)", (ONE_AT_A_TIME,))
            if not known:
                self._extend()
            if self._made():  # by another process, meanwhile
                return
            names = {**self._names, "width": sql.Literal(width), "mark": sql.Literal(server_sql.MARK)}
            for statement in server_sql.CREATE:
                db.execute(sql.SQL(statement).format(**names))
            first = (server_sql.SCHEMA, uuid.uuid4(), width, value_width)
            self.run("INSERT INTO {state} VALUES(1, %s, %s, %s, %s, 0, 0, 0, 0, 0, 0)", first)

    def _extend(self) -> None:
        """Make pgvector known in this database."""
        try:
            with self._open.transaction():
                self._open.execute("CREATE EXTENSION IF NOT EXISTS vector")
            if server_sql.learn_vectors(self._open):
                return
            told = "it is not there after it was made"
        except psycopg.Error as error:
            told = server_sql.first_line(error)
        raise StoreError(
            f"the server of {self.name} has no pgvector ({told}): install it there, and have its administrator run "
            "CREATE EXTENSION vector"
        )

    def _index(self) -> None:
        """Make the index of the approximate mode, if nobody did."""
        if self.width > server_sql.INDEXED:
            raise InputError(
                f"keys of width {self.width} are too wide for pgvector's index ({server_sql.INDEXED:,} are the most): "
                "leave approximate away"
            )
        there = self._open.execute(
            "SELECT 1 FROM pg_indexes WHERE schemaname = %s AND indexname = 'rows_near'", (self.schema,)
        ).fetchone()
        if there is None and self.read_only:
            raise StoreError(f"{self.name} has no index for approximate scans: open it once for writing with it")
        if there is None:
            with self._open.transaction():
                # A graph that does not fit into memory takes many times as long; workers would need it in shared
                # memory, which containers have little of.
                self.run(
                    "SELECT set_config('maintenance_work_mem', '512MB', true) FROM pg_settings "
                    "WHERE name = 'maintenance_work_mem' AND setting::bigint < 524288"
                )
                self.run("SELECT set_config('max_parallel_maintenance_workers', '0', true)")
                self.run("CREATE INDEX rows_when ON {rows}(time) WHERE present AND bias > '-infinity'")
                self.run("CREATE INDEX rows_near ON {rows} USING hnsw(key vector_ip_ops) WHERE present")

    def close(self) -> None:
        """Let go of the connection."""
        with self.lock:
            self._closed = True
            if self._db is not None:
                self._db.close()


def _address(dsn: str, schema: str) -> tuple[str, dict[str, Any]]:
    """How a memory is called, without passwords; and what is asked of the connection where the address says nothing."""
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:  # its words may repeat the password
        raise StoreError(
            "the address of the server cannot be read: write it as postgresql://user@host:5432/database"
        ) from None
    host = given.get("host") or given.get("hostaddr") or "localhost"
    more = {name: value for name, value in PATIENCE.items() if name not in given}
    return f"{host}/{schema}", more
