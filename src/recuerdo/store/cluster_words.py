"""The words of texts as sparse vectors, so that their dot product with those of a question is BM25.

The engine multiplies with how rare a word is (its IDF). How long a text is compared with others is not known to whoever
writes one of many, so a usual length stands in its place.
"""

import zlib
from collections import Counter
from collections.abc import Sequence

from recuerdo.store.cutter import MOST_WORDS, Cutter

USUAL = 32  # words of a text of usual length
K, B = 1.2, 0.75  # Robertson's: how soon a word's repetitions stop to count, how much a long text weighs less


class Words:
    """Texts in, sparse vectors out: number of a word -> its weight."""

    def __init__(self) -> None:
        self._cutter = Cutter()

    def of(self, texts: Sequence[str]) -> list[dict[int, float]]:
        """What each text weighs for its words; nothing for a text without words."""
        found: list[dict[int, float]] = []
        for count in map(_numbered, self._cutter.of(texts)):
            short = K * (1 - B + B * count.total() / USUAL)
            found.append({word: n * (K + 1) / (n + short) for word, n in count.items()})
        return found

    def asked(self, text: str) -> dict[int, float]:
        """The words of a question, each with the same weight."""
        (count,) = self._cutter.of([text])
        return dict.fromkeys(list(_numbered(count))[:MOST_WORDS], 1.0)

    def close(self) -> None:
        """Let go of the cutter."""
        self._cutter.close()


def _numbered(words: Counter[str]) -> Counter[int]:
    """Words by a number of theirs; two words with one number are one word: rare, and harmless."""
    found: Counter[int] = Counter()
    for word, n in words.items():
        found[zlib.crc32(word.encode())] += n
    return found
