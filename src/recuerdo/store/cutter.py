"""Texts cut into words and these into their stems, by SQLite's FTS5, so that all stores look for the same words."""

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Sequence

STEMS = "porter unicode61 remove_diacritics 2"  # how FTS5 cuts
MOST_WORDS = 64  # words of a question that are looked for
TOGETHER = 1000  # texts that are cut at once


class Cutter:
    """Texts in, their words out. For stores that keep an index of words of their own."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._lock = threading.Lock()
        self._db.execute(f"CREATE VIRTUAL TABLE texts USING fts5(text, content='', tokenize='{STEMS}')")
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
            try:
                # Half a letter, which a question may have, is no part of a word.
                whole = (text.encode(errors="replace").decode() for text in texts)
                self._db.executemany("INSERT INTO texts(rowid, text) VALUES(?, ?)", enumerate(whole))
                query = "SELECT doc, term, count(*) FROM found GROUP BY doc, term ORDER BY doc, min(offset)"
                for place, word, n in self._db.execute(query):
                    counts[place][word] += n
            finally:
                self._db.execute("ROLLBACK")
        return counts
