"""The tables of the embedded store, and what connects to them.

state   one row: version of the schema, generation, widths, the least number of places, changes other than new rows,
        how many places are in the index of words
bodies  every version of every row, by the place that it has in the columns; places rise and are never used again
rows    only what differs from "id = place, first version, bias 0": corrected, boosted and forgotten rows
old     places that are no longer read: older versions, and what was forgotten
labels  tags and authors, by which rows are filtered
hands   who changed what by hand, when and why
copies  snapshots, which `forget` has to reach
wiped   places whose bytes in the columns are still to be overwritten after a forget
notes   small facts, such as which encoder makes the keys
words   the index of the texts (FTS5), which is brought up to date when it is asked
"""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from recuerdo.errors import NoMemory, StoreError
from recuerdo.store.cutter import STEMS

SCHEMA = 1
# Rows of some kilobytes: pages that hold several of them, and a log that is not emptied after every few batches, let
# batches be written faster. The size of pages counts for new files only.
SETTINGS = ("page_size=8192", "journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "wal_autocheckpoint=4000")
NAME = 0x52434442  # application_id: "RCDB"
TABLES = f"""
CREATE TABLE state(one INTEGER PRIMARY KEY CHECK(one = 1), schema INTEGER, generation BLOB, width INTEGER,
    value_width INTEGER, places INTEGER, change INTEGER, indexed INTEGER);
CREATE TABLE bodies(place INTEGER PRIMARY KEY, id INTEGER NOT NULL, version INTEGER NOT NULL, time REAL NOT NULL,
    written REAL NOT NULL, author TEXT NOT NULL, tags TEXT NOT NULL, text TEXT NOT NULL, key BLOB NOT NULL, value BLOB);
CREATE TABLE rows(id INTEGER PRIMARY KEY, place INTEGER, version INTEGER NOT NULL, bias REAL NOT NULL,
    change INTEGER NOT NULL);
CREATE INDEX rows_by_change ON rows(change);
CREATE TABLE old(place INTEGER PRIMARY KEY, id INTEGER NOT NULL, change INTEGER NOT NULL);
CREATE INDEX old_by_id ON old(id);
CREATE INDEX old_by_change ON old(change);
CREATE TABLE labels(kind TEXT NOT NULL, name TEXT NOT NULL, place INTEGER NOT NULL, PRIMARY KEY(kind, name, place))
    WITHOUT ROWID;
CREATE TABLE hands(number INTEGER PRIMARY KEY, what TEXT NOT NULL, id INTEGER NOT NULL, amount REAL,
    author TEXT NOT NULL, reason TEXT NOT NULL, time REAL NOT NULL);
CREATE INDEX hands_by_id ON hands(id);
CREATE TABLE copies(path TEXT PRIMARY KEY, time REAL NOT NULL);
CREATE TABLE wiped(place INTEGER PRIMARY KEY);
CREATE TABLE notes(name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE VIRTUAL TABLE words USING fts5(text, content='bodies', content_rowid='place',
    tokenize='{STEMS}');
"""


def connect(path: Path, *, write: bool, wait: float) -> sqlite3.Connection:
    """A connection with the settings that durability and erasure need. Raises StoreError, or sqlite3.Error."""
    if write:
        db = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)
    else:
        if not path.is_file():
            raise NoMemory(f"there is no memory {path}: make one by remembering something")
        # A reader needs to write beside the database (its part of the WAL); on a disk that cannot be written, nobody
        # else writes either.
        alone = (
            not os.access(path.parent, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
            and not path.with_name(f"{path.name}-wal").exists()
        )
        uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if alone else ''}"
        db = sqlite3.connect(uri, uri=True, timeout=wait, isolation_level=None, check_same_thread=False)
    try:
        for setting in ("trusted_schema=OFF", "cell_size_check=ON", "temp_store=MEMORY", "mmap_size=0"):
            db.execute(f"PRAGMA {setting}")
        if write:
            _prepare(db, path)
        elif db.execute("PRAGMA application_id").fetchone()[0] != NAME:
            raise StoreError(f"{path} is no memory of recuerdo: give the file of one")
        _check_schema(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    name, tables = (db.execute(f"PRAGMA {what}").fetchone()[0] for what in ("application_id", "schema_version"))
    if tables and name != NAME:
        raise StoreError(f"{path} is no memory of recuerdo: give the file of one, or a new name")
    for setting in SETTINGS:
        db.execute(f"PRAGMA {setting}")
    if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        raise StoreError(f"{path} cannot be written ahead (WAL), as on a network disk: put the memory on a local one")


def _check_schema(db: sqlite3.Connection, path: Path) -> None:
    if not made(db):
        return
    told = db.execute("SELECT schema FROM state").fetchone()
    if told is None or told[0] != SCHEMA:
        what = "has no state" if told is None else f"is of version {told[0]}, and this recuerdo knows {SCHEMA}"
        raise StoreError(f"the memory {path} {what}: use the recuerdo that made it, or a newer one")


def made(db: sqlite3.Connection) -> bool:
    """Whether the tables are there."""
    return bool(db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'state'").fetchone()[0])


def create(db: sqlite3.Connection, width: int, value_width: int) -> None:
    """Make the tables of an empty memory, if nobody did meanwhile; inside a transaction of its own."""
    db.execute("BEGIN IMMEDIATE")
    try:
        if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            for statement in TABLES.split(";\n"):
                if statement.strip():
                    db.execute(statement)
            first = (SCHEMA, os.urandom(16), width, value_width, 0, 0, 0)
            db.execute("INSERT INTO state VALUES(1, ?, ?, ?, ?, ?, ?, ?)", first)
            if sqlite3.sqlite_version_info >= (3, 42):
                db.execute("INSERT INTO words(words, rank) VALUES('secure-delete', 1)")
            db.execute(f"PRAGMA application_id = {NAME}")
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def copied(db: sqlite3.Connection, path: Path) -> None:
    """A copy of a database, whole and on the disk before it has its name."""
    half = path.with_name(f"{path.name}.part")
    try:
        with sqlite3.connect(half) as copy:
            db.backup(copy)
        copy.close()
        with open(half, "rb") as file:
            os.fsync(file.fileno())
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def words(path: Path, error: Exception) -> str:
    """What went wrong with a database, and the way out."""
    told, code = str(error), getattr(error, "sqlite_errorname", "")
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"another process writes into {path}: wait for it, and try again"
    if code.startswith("SQLITE_FULL") or getattr(error, "errno", None) == 28:
        return f"the disk of {path} is full; nothing was changed: make room and try again"
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")) or isinstance(error, PermissionError):
        return f"{path} cannot be written or opened ({told}): look at its rights and its disk"
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        fix = f"put a snapshot in its place, or save what can be read: `recuerdo memories salvage {path} NEW`"
        return f"{path} is damaged, or no memory ({told}): {fix}"
    return f"{path} could not be used ({told}); nothing was changed"
