"""Words cut into pieces in other ways than usual, for training: BPE-dropout (Provilkov et al. 2020, arXiv 1910.13267).

Subwords are made by merging neighbours, the most frequent pair first. Here each merge is left out with some chance
whenever it could be made, so that a network meets a word in many pieces and learns what these are made of. The same
seed gives the same pieces: each word is cut in `WAYS` ways, once, and each time it comes one of these is drawn.
"""

import json
import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from recuerdo.data.subwords import END, Subwords

WAYS = 16


class Frayed:
    """Lines whose words come in pieces of many ways; `dropped` is the chance that a merge is left out."""

    def __init__(self, subwords: Subwords, lines: Sequence[str], dropped: float):
        told = json.loads(subwords.told)["model"]
        self._ids: dict[str, int] = told["vocab"]
        self._ranks = {tuple(pair): rank for rank, pair in enumerate(told["merges"])}
        known: dict[str, int] = {}
        self._lines = [[known.setdefault(word, len(known)) for word in words] for words in subwords.words(lines)]
        self._ways = [self._cut(word, dropped) for word in known]

    def drawn(self, draw: np.random.Generator) -> list[list[int]]:
        """The pieces of each line, and the end."""
        found = []
        for words, ways in zip(self._lines, self._which(draw), strict=True):
            found.append([piece for word, way in zip(words, ways, strict=True) for piece in self._ways[word][way]])
            found[-1].append(END)
        return found

    def _which(self, draw: np.random.Generator) -> list[list[int]]:
        """Which way each word of each line comes."""
        ends = np.cumsum([len(words) for words in self._lines])
        ways = draw.integers(0, WAYS, ends[-1] if len(ends) else 0).tolist()
        return [ways[end - len(words) : end] for words, end in zip(self._lines, ends.tolist(), strict=True)]

    def _cut(self, word: str, dropped: float) -> list[tuple[int, ...]]:
        draw = random.Random(word)
        return [tuple(self._ids[piece] for piece in self._merged(word, dropped, draw)) for _ in range(WAYS)]

    def _merged(self, word: str, dropped: float, draw: random.Random) -> list[str]:
        pieces = list(word)
        while True:
            could = [
                (rank, i)
                for i, pair in enumerate(pairwise(pieces))
                if (rank := self._ranks.get(pair)) is not None and draw.random() >= dropped
            ]
            if not could:
                return pieces
            _, i = min(could)
            pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
