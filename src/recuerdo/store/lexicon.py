"""Rows by the words of their texts: BM25 (Robertson et al. 1994), by SQLite's FTS5.

Indexing costs several times what keeping a row costs, so it is put off: the index is brought up to date when somebody
asks for words. Who may only read looks through what is not indexed yet in an index in memory.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence

from recuerdo.store.cutter import MOST_WORDS, STEMS

PART = 4096  # rows indexed in one transaction
TEMPORARY = f"CREATE VIRTUAL TABLE IF NOT EXISTS temp.later USING fts5(text, content='', tokenize='{STEMS}')"


def behind(db: sqlite3.Connection) -> tuple[int, int]:
    """From which place to which the index lacks what is there."""
    last = "(SELECT coalesce(max(place), -1) + 1 FROM bodies)"
    return db.execute(f"SELECT min(indexed, {last}), {last} FROM state").fetchone()


def catch_up(db: sqlite3.Connection) -> bool:
    """Index some rows more, inside a transaction: whether there are more still."""
    first, places = behind(db)
    last = min(places, first + PART)
    some = "place >= ? AND place < ? AND text != '' AND place NOT IN (SELECT place FROM old)"
    db.execute(f"INSERT INTO words(rowid, text) SELECT place, text FROM bodies WHERE {some}", (first, last))
    db.execute("UPDATE state SET indexed = ?", (last,))
    return last < places


def leave_out(db: sqlite3.Connection, places: Sequence[int]) -> None:
    """Take places out of the index, inside a transaction, while their bodies are still there."""
    indexed, _ = behind(db)
    for place in places:
        if place < indexed and not db.execute("SELECT 1 FROM old WHERE place = ?", (place,)).fetchone():
            told = db.execute("SELECT text FROM bodies WHERE place = ?", (place,)).fetchone()
            if told is not None and told[0]:
                db.execute("INSERT INTO words(words, rowid, text) VALUES('delete', ?, ?)", (place, told[0]))


def purge(db: sqlite3.Connection) -> None:
    """Make sure that nothing of what was taken out is left in the index, where its FTS5 cannot do it by itself."""
    if sqlite3.sqlite_version_info < (3, 42):
        db.execute("INSERT INTO words(words) VALUES('optimize')")


def asked(text: str) -> str:
    """The words of a text as a query: any of them, none of them a command."""
    found = dict.fromkeys(re.findall(r"\w+", text.lower()))
    return " OR ".join(f'"{word}"' for word in list(found)[:MOST_WORDS])


def matches(db: sqlite3.Connection, text: str) -> Iterator[tuple[int, float]]:
    """Places of rows that share words with a text, and their BM25, best first; also those not indexed yet."""
    query = asked(text)
    if not query:
        return
    found = db.execute("SELECT rowid, -rank FROM words WHERE words MATCH ? ORDER BY rank", (query,)).fetchall()
    first, places = behind(db)
    if first < places:
        db.execute(TEMPORARY)
        try:
            rows = db.execute("SELECT place, text FROM bodies WHERE place >= ? AND place < ?", (first, places))
            db.executemany("INSERT INTO temp.later(rowid, text) VALUES(?, ?)", rows)
            found += db.execute("SELECT rowid, -rank FROM temp.later WHERE later MATCH ?", (query,)).fetchall()
        finally:
            db.execute("DROP TABLE temp.later")
    yield from sorted(found, key=lambda pair: (-pair[1], pair[0]))
