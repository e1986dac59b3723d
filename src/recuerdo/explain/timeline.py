"""When was each word said? Attention over sound as a time line, by dynamic programming.

Weights of heads that follow the sound are set against what other pieces read at the same time, smoothed by a median,
averaged, and the cheapest way from the first piece to the last that never goes back in time says where each piece
begins (dynamic time warping: Sakoe & Chiba 1978; for Whisper: Radford et al. 2022, released code).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

SMOOTH = 7  # steps of the median
SETTLED = 1e-6


@dataclass(frozen=True)
class Word:
    """A word and when it was said, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """Words in their times; what each read of the sound, `shares` [words, steps] (rows sum to one), of `step` seconds
    each; and the sound itself, `mel` [bands, frames] from 0 to 1. `start`: where in the file it begins; `whole`: how
    long that is."""

    model: str
    words: list[Word]
    shares: np.ndarray
    step: float
    mel: np.ndarray
    note: str = ""
    start: float = 0.0
    whole: float = 0.0
    wav: bytes = field(default=b"", repr=False)
    command: str = ""

    @property
    def text(self) -> str:
        """The transcript."""
        return " ".join(word.text for word in self.words)


def timeline(
    pieces: Sequence[str], weights: np.ndarray, step: float, loud: np.ndarray | None = None
) -> tuple[list[Word], np.ndarray]:
    """Words with their times, and what each read, [words, steps].

    `pieces` [p] of a transcript, the last being its end; a piece that begins with a blank begins a word. `weights`
    [heads, p, steps]: what each read when it was said. Where `loud` [steps] says in which steps there is sound, a word
    begins and ends with some.
    """
    begins = [i for i, piece in enumerate(pieces[:-1]) if i == 0 or piece[:1].isspace()]
    if not begins:
        return [], np.zeros((0, weights.shape[2]))
    edges = [*begins, len(pieces) - 1]
    starts = warped(-_followed(weights))
    sounds = np.ones(weights.shape[2], bool) if loud is None else loud
    mean = weights.mean(0)
    words, shares = [], []
    for first, behind in pairwise(edges):
        text = "".join(pieces[first:behind]).strip()
        at = starts[first] + np.flatnonzero(sounds[starts[first] : starts[behind]])
        begin, end = (at[0], at[-1] + 1) if len(at) else (starts[first], max(starts[first], starts[behind]))
        words.append(Word(text, step * float(begin), step * float(end)))
        row = mean[first:behind].sum(0)
        shares.append(row / max(float(row.sum()), 1e-30))
    return words, np.stack(shares)


def _followed(weights: np.ndarray) -> np.ndarray:
    """How much more a piece reads of a step than the other pieces do, [p, steps]."""
    off = weights - weights.mean(1, keepdims=True)
    off = off / np.maximum(weights.std(1, keepdims=True), SETTLED)
    half = SMOOTH // 2
    if off.shape[2] > half:
        wide = np.pad(off, ((0, 0), (0, 0), (half, half)), mode="reflect")
        off = np.median(np.lib.stride_tricks.sliding_window_view(wide, SMOOTH, axis=2), axis=-1)
    return off.mean(0)


def warped(cost: np.ndarray) -> np.ndarray:
    """The step at which each row begins on the cheapest way through `cost` [rows, steps], from the first corner to the
    last, which goes on by a row, a step, or both."""
    rows, steps = cost.shape
    total = np.full((rows + 1, steps + 1), np.inf)
    total[0, 0] = 0.0
    came = np.zeros((rows + 1, steps + 1), np.int8)
    for i in range(1, rows + 1):
        for j in range(1, steps + 1):
            before = (total[i - 1, j - 1], total[i - 1, j], total[i, j - 1])
            least = min(range(3), key=before.__getitem__)
            total[i, j], came[i, j] = cost[i - 1, j - 1] + before[least], least
    starts, i, j = np.zeros(rows, int), rows, steps
    while i > 0:
        starts[i - 1] = max(j - 1, 0)
        i, j = (i - 1, j - 1) if came[i, j] == 0 else (i - 1, j) if came[i, j] == 1 else (i, j - 1)
    return starts
