"""Rows on a server by the words of their texts: BM25 (Robertson et al. 1994), worked out in SQL.

SQLite's FTS5 cuts and stems the words, as in the embedded store, so that both find the same texts.
"""

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import LiteralString

import numpy as np

from recuerdo.store.record import Where
from recuerdo.store.server_scan import filtered
from recuerdo.store.server_session import Session

MOST_WORDS = 64  # words of a question that are looked for, as in the embedded store
LONGEST = 64  # characters of a word that count; the index of the server takes no longer ones for sure
TOGETHER = 1000  # texts that are cut at once
MATCHES: LiteralString = (
    "WITH every AS (SELECT spoken, greatest(1, words::float8 / greatest(1, spoken)) AS usual FROM {state}), "
    "hits AS MATERIALIZED (SELECT t.id, t.length, told.word, told.n FROM {texts} t "
    "CROSS JOIN unnest(t.words, t.counts) AS told(word, n) "
    "WHERE t.words && %(words)s::text[] AND told.word = ANY(%(words)s::text[])), "
    "rare AS (SELECT word, greatest(1e-6, ln((greatest(spoken, count(*)) - count(*) + 0.5) / (count(*) + 0.5))) "
    "AS weight FROM hits CROSS JOIN every GROUP BY word, spoken) "
    "SELECT h.id, sum(weight * 2.2 * h.n / (h.n + 1.2 * (0.25 + 0.75 * h.length / usual))) AS score "
    "FROM hits h JOIN rare USING (word) CROSS JOIN every JOIN {rows} r ON r.id = h.id AND r.present WHERE true"
)
FIRST: LiteralString = " GROUP BY h.id ORDER BY score DESC, h.id LIMIT %(top)s::bigint"


class Words:
    """Cuts texts into their words, as they are looked for."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._lock = threading.Lock()
        how = "porter unicode61 remove_diacritics 2"
        self._db.execute(f"CREATE VIRTUAL TABLE texts USING fts5(text, content='', tokenize='{how}')")
        self._db.execute("CREATE VIRTUAL TABLE found USING fts5vocab(texts, 'instance')")

    def of(self, texts: Sequence[str]) -> Iterator[Counter[str]]:
        """How often each word is in each text; the words in the order of the text."""
        for first in range(0, len(texts), TOGETHER):
            yield from self._cut(texts[first : first + TOGETHER])

    def close(self) -> None:
        """Let go of what cuts."""
        self._db.close()

    def _cut(self, texts: Sequence[str]) -> list[Counter[str]]:
        counts: list[Counter[str]] = [Counter() for _ in texts]
        if not any(texts):
            return counts
        with self._lock:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT INTO texts(rowid, text) VALUES(?, ?)", enumerate(texts))
            query = "SELECT doc, term, count(*) FROM found GROUP BY doc, term ORDER BY doc, min(offset)"
            for place, word, n in self._db.execute(query):
                counts[place][word[:LONGEST]] += n
            self._db.execute("ROLLBACK")
        return counts


def matches(session: Session, words: Counter[str], top: int, where: Where | None) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose texts have some of these words, and their BM25, best first; inside of a transaction that reads."""
    text, given = filtered(where)
    told = session.run(MATCHES + text + FIRST, {**given, "words": list(words)[:MOST_WORDS], "top": top}).fetchall()
    return np.array([id for id, _ in told], np.int64), np.array([score for _, score in told], np.float64)
