"""The words of texts as sparse vectors, so that their dot product with those of a question is BM25.

SQLite's FTS5 cuts and stems the words, as in the embedded store, so that both find the same texts. The engine
multiplies with how rare a word is (its IDF). How long a text is compared with others is not known to whoever writes one
of many, so a usual length stands in its place.
"""

import sqlite3
import threading
import zlib
from collections import Counter
from collections.abc import Sequence

MOST_WORDS = 64  # words of a question that are looked for, as in the embedded store
USUAL = 32  # words of a text of usual length
K, B = 1.2, 0.75  # Robertson's: how soon a word's repetitions stop to count, how much a long text weighs less


class Words:
    """Texts in, sparse vectors out: number of a word -> its weight."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._lock = threading.Lock()
        how = "porter unicode61 remove_diacritics 2"
        self._db.execute(f"CREATE VIRTUAL TABLE texts USING fts5(text, content='', tokenize='{how}')")
        self._db.execute("CREATE VIRTUAL TABLE found USING fts5vocab(texts, 'instance')")

    def of(self, texts: Sequence[str]) -> list[dict[int, float]]:
        """What each text weighs for its words; nothing for a text without words."""
        counts = self._counts(texts)
        found: list[dict[int, float]] = []
        for count in counts:
            short = K * (1 - B + B * count.total() / USUAL)
            found.append({word: n * (K + 1) / (n + short) for word, n in count.items()})
        return found

    def asked(self, text: str) -> dict[int, float]:
        """The words of a question, each with the same weight."""
        return dict.fromkeys(list(self._counts([text])[0])[:MOST_WORDS], 1.0)

    def close(self) -> None:
        """Let go of the cutter."""
        self._db.close()

    def _counts(self, texts: Sequence[str]) -> list[Counter[int]]:
        counts: list[Counter[int]] = [Counter() for _ in texts]
        with self._lock:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT INTO texts(rowid, text) VALUES(?, ?)", enumerate(texts))
            query = "SELECT doc, term, count(*) FROM found GROUP BY doc, term ORDER BY doc, min(offset)"
            for place, word, n in self._db.execute(query):
                counts[place][zlib.crc32(word.encode())] += n  # two words with one number are one word: rare, harmless
            self._db.execute("ROLLBACK")
        return counts
