"""Rows on a server by the words of their texts: BM25 (Robertson et al. 1994), worked out in SQL."""

from collections import Counter
from typing import LiteralString

import numpy as np

from recuerdo.store.cutter import MOST_WORDS
from recuerdo.store.record import Where
from recuerdo.store.server_scan import filtered
from recuerdo.store.server_session import Session

LONGEST = 64  # characters of a word that count; the index of the server takes no longer ones for sure
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


def short(words: Counter[str]) -> Counter[str]:
    """Words as the index of the server takes them."""
    found: Counter[str] = Counter()
    for word, n in words.items():
        found[word[:LONGEST]] += n
    return found


def matches(session: Session, words: Counter[str], top: int, where: Where | None) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose texts have some of these words, and their BM25, best first; inside of a transaction that reads."""
    text, given = filtered(where)
    told = session.run(MATCHES + text + FIRST, {**given, "words": list(words)[:MOST_WORDS], "top": top}).fetchall()
    return np.array([id for id, _ in told], np.int64), np.array([score for _, score in told], np.float64)
