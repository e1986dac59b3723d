"""From characters to words, sentences and paragraphs, and from a model's tokens to those words.

People read words; models read pieces of them. A token belongs to the word that holds its first visible character.
"""

import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache

import numpy as np

_SPACELESS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_STOP = re.compile(r"[.!?…।؟][\"'”’»)\]]*\s+|[。！？]+[」』”]?|\n\s*\n")
_PARAGRAPH = re.compile(r"\n\s*\n|\n(?=\s*[-*#•])")


@cache
def _word() -> re.Pattern[str]:
    """A word with its inner marks (don't, 3.5, well-known), one character of a script without spaces, or another mark.

    Combining marks belong to their letter; Python's \\w leaves them out.
    """
    marks = "".join(re.escape(c) for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c) in ("Mn", "Mc"))
    letters = rf"(?:[^\W{_SPACELESS}][{marks}\u200c\u200d]*)+"
    return re.compile(rf"[{_SPACELESS}]|{letters}(?:['’.,\-]{letters})*|[^\w\s]")


@dataclass(frozen=True)
class Words:
    """A text cut into words: `words[i]` is followed by `glue[i]`; sentences and paragraphs by their first words."""

    words: list[str]
    glue: list[str]
    sentences: list[int]
    paragraphs: list[int]
    spans: list[tuple[int, int]]  # characters of each word in the text that was cut

    def __len__(self) -> int:
        return len(self.words)

    def sentence_of(self) -> np.ndarray:
        """The number of each word's sentence, [words]."""
        return np.searchsorted(self.sentences, np.arange(len(self)), side="right") - 1

    def sentence(self, number: int) -> str:
        """A sentence as it is written."""
        first = self.sentences[number]
        last = self.sentences[number + 1] if number + 1 < len(self.sentences) else len(self)
        return "".join(w + g for w, g in zip(self.words[first:last], self.glue[first:last], strict=True)).strip()


def cut(text: str) -> Words:
    """Cut a text into words, sentences and paragraphs."""
    spans = [match.span() for match in _word().finditer(text)]
    starts = [start for start, _ in spans]
    ends = [*starts[1:], len(text)][: len(starts)]
    paragraphs = _firsts(starts, [match.end() for match in _PARAGRAPH.finditer(text)])
    # A stop before a small letter is an abbreviation or a pause.
    stops = [match.end() for match in _STOP.finditer(text) if not text[match.end() : match.end() + 1].islower()]
    sentences = sorted({*_firsts(starts, stops), *paragraphs})
    return Words(
        words=[text[start:end] for start, end in spans],
        glue=[text[end:following] for (_, end), following in zip(spans, ends, strict=True)],
        sentences=sentences,
        paragraphs=paragraphs,
        spans=spans,
    )


def _firsts(starts: list[int], cuts: list[int]) -> list[int]:
    """The first word of each part, given the characters at which parts begin."""
    first = {bisect_right(starts, at - 1) for at in cuts}
    return sorted({0, *(i for i in first if i < len(starts))}) if starts else []


def words_of_tokens(words: Words, offsets: list[tuple[int, int]], text: str, start: int = 0) -> np.ndarray:
    """The word of each token, or -1: [tokens].

    `offsets` are the tokens' characters in `text`; the words' spans count from its character `start`.
    """
    begins = [begin for begin, _ in words.spans]
    of = np.full(len(offsets), -1, dtype=np.int64)
    for i, (left, right) in enumerate(offsets):
        piece = text[left:right]
        at = left + len(piece) - len(piece.lstrip()) - start
        word = bisect_right(begins, at) - 1
        if piece.strip() and word >= 0 and at < words.spans[word][1]:
            of[i] = word
    return of


def pool(rows: np.ndarray, of: np.ndarray, count: int) -> np.ndarray:
    """Sum the last axis by group: [..., tokens] and a group of each token (-1 = none) -> [..., count]."""
    inside = np.flatnonzero(of >= 0)
    out = np.zeros((*rows.shape[:-1], count), rows.dtype)
    order = inside[np.argsort(of[inside], kind="stable")]
    groups, first = np.unique(of[order], return_index=True)
    if len(groups):
        out[..., groups] = np.add.reduceat(rows[..., order], first, axis=-1)
    return out
