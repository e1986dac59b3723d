"""The tables of the server store, how keys travel to PostgreSQL, and its errors in words.

state      one row: version of the schema, generation, widths, the next id, the longest key, how many forgets
           there were and after which the tables were swept, how many texts have words, and how many words
rows       every version of every row: what a scan reads; `present` = the version that is read
texts      what a scan does not read: texts and values, in bytes (PostgreSQL's text has no room for NUL); of present
           versions also the words, by which texts are found
forgotten  ids that were erased
hands      who changed what by hand, when and why
copies     snapshots, which `forget` has to reach: where they are, and by what they are known
notes      small facts
"""

import re

import numpy as np
import psycopg
from psycopg import errors, sql
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format
from psycopg.types import TypeInfo

from recuerdo.errors import InputError

SCHEMA = 1
MARK = "a memory of recuerdo"  # the comment of the table `state`, by which a memory is known
WIDEST, INDEXED = 16_000, 2_000  # numbers in a vector of pgvector, and in one that its index takes
TABLES = ("state", "rows", "texts", "forgotten", "hands", "copies", "notes")
NAME = re.compile(r"(?!pg_|information_schema$)[a-z][a-z0-9_]{0,62}")

# Keys stay beside their row as long as it fits on a page: to fetch them from elsewhere would make a scan slower. The
# server keeps no statistics of what people wrote: `forget` could not reach them.
CREATE = (
    "CREATE SCHEMA IF NOT EXISTS {schema}",
    """CREATE TABLE {state}(one int PRIMARY KEY CHECK(one = 1), schema int NOT NULL, generation uuid NOT NULL,
        width int NOT NULL, value_width int NOT NULL, next bigint NOT NULL, longest float8 NOT NULL,
        forgets bigint NOT NULL, wiped bigint NOT NULL, spoken bigint NOT NULL, words bigint NOT NULL)""",
    """CREATE TABLE {rows}(id bigint NOT NULL, version int NOT NULL, present boolean NOT NULL, bias float8 NOT NULL,
        time float8 NOT NULL, written float8 NOT NULL, key vector({width}) NOT NULL, author text NOT NULL,
        tags text[] NOT NULL, PRIMARY KEY(id, version)) WITH (toast_tuple_target = 8160)""",
    "CREATE INDEX ON {rows} USING gin(tags)",
    "CREATE INDEX ON {rows}(author) WHERE author <> ''",
    "CREATE INDEX ON {rows}(bias) WHERE present AND bias <> 0",
    """CREATE TABLE {texts}(id bigint NOT NULL, version int NOT NULL, text bytea NOT NULL, value bytea,
        length int NOT NULL, words text[] NOT NULL, counts int[] NOT NULL, PRIMARY KEY(id, version))""",
    "CREATE INDEX ON {texts} USING gin(words)",
    "CREATE TABLE {forgotten}(id bigint PRIMARY KEY)",
    """CREATE TABLE {hands}(number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text NOT NULL,
        id bigint NOT NULL, amount float8, author bytea NOT NULL, reason bytea NOT NULL, time float8 NOT NULL)""",
    "CREATE INDEX ON {hands}(id)",
    """CREATE TABLE {copies}(path bytea NOT NULL, host text NOT NULL, made bytea NOT NULL, time float8 NOT NULL,
        PRIMARY KEY(path, host))""",
    "CREATE TABLE {notes}(name bytea PRIMARY KEY, value bytea NOT NULL)",
    """ALTER TABLE {rows} ALTER key SET STATISTICS 0, ALTER author SET STATISTICS 0, ALTER tags SET STATISTICS 0""",
    "ALTER TABLE {texts} ALTER text SET STATISTICS 0, ALTER value SET STATISTICS 0, ALTER words SET STATISTICS 0",
    "ALTER TABLE {hands} ALTER author SET STATISTICS 0, ALTER reason SET STATISTICS 0",
    "COMMENT ON TABLE {state} IS {mark}",
)


class Vector:
    """A key or a query on its way to the server, [d] float32."""

    __slots__ = ("numbers",)

    def __init__(self, numbers: np.ndarray):
        self.numbers = numbers


class _VectorDumper(Dumper):
    """As pgvector sends it: the width, two empty bytes, the numbers; all big-endian."""

    format = Format.BINARY

    def dump(self, obj: Vector) -> Buffer:
        return len(obj.numbers).to_bytes(2, "big") + b"\0\0" + obj.numbers.astype(">f4").tobytes()


class _VectorLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> np.ndarray:
        return np.frombuffer(data, ">f4", offset=4).astype("<f4")


def learn_vectors(db: psycopg.Connection) -> bool:
    """Tell a connection how keys travel, and where pgvector's operators are; False where there is no pgvector."""
    told = db.execute(
        "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'vector'"
    ).fetchone()
    if told is None:
        return False
    path = sql.Identifier(told[0]).as_string(db)
    db.execute("SELECT set_config('search_path', %s, false)", (f"{path}, pg_temp",))
    info = TypeInfo.fetch(db, "vector")
    if info is None:
        return False
    info.register(db)
    db.adapters.register_dumper(Vector, type("VectorDumper", (_VectorDumper,), {"oid": info.oid}))
    db.adapters.register_loader(info.oid, _VectorLoader)
    return True


def check_name(schema: str) -> None:
    """Raises InputError for a name that no memory has."""
    if not NAME.fullmatch(schema):
        raise InputError(f"a memory on a server has a name of 1 to 63 small letters, digits and _, not {schema[:80]!r}")


def said(text: str, what: str) -> bytes:
    """A text as it is kept, or InputError."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{what} is no Unicode (a lone surrogate): {text[:40]!r}") from None


def first_line(error: Exception) -> str:
    """What the server said, without where and how."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def words(name: str, error: psycopg.Error, *, lost: bool) -> str:
    """What went wrong with a memory, and the way out; `lost`: the connection is gone."""
    told = first_line(error)
    if isinstance(error, errors.LockNotAvailable | errors.DeadlockDetected):
        return f"another process writes into {name}: wait for it, and try again"
    if isinstance(error, errors.DiskFull):
        return f"the disk of {name} is full; nothing was changed: make room and try again"
    if isinstance(error, errors.InsufficientPrivilege | errors.ReadOnlySqlTransaction):
        return f"{name} cannot be written or opened ({told}); nothing was changed: look at the rights of its user"
    if isinstance(error, errors.DataCorrupted | errors.IndexCorrupted):
        return f"{name} is damaged ({told}): restore it from a snapshot"
    if lost:
        return f"the connection to {name} was cut ({told}); nothing was changed: try again when the server is back"
    return f"{name} could not be used ({told}); nothing was changed"
