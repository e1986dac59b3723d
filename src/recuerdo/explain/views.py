"""The views: from rows of tokens in many heads to maps over words.

raw     the mean of the heads, as the model has it; mostly sinks
aside   sinks set aside and every head's row renormalised over the text
lift    what this word adds: the part of a row above what the other queries read anyway
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recuerdo.explain.evidence import Atlas, View
from recuerdo.explain.rows import Layer, Selection
from recuerdo.explain.sinks import Sink, find_sinks
from recuerdo.explain.sparse import Sparse
from recuerdo.explain.words import Words, pool

FLOOR = 1e-4  # cells below are not kept: a hundredth of a percent
ATLAS_WORDS = 12
ATLAS_QUERIES = 400  # more queries than this make no atlas: it would outweigh the page


@dataclass(frozen=True, eq=False)
class Queries:
    """Which rows are asked about: rows first … first + len(word) - 1, each with the query word it belongs to (or -1)."""

    first: int
    word: np.ndarray
    count: int

    @property
    def last(self) -> int:
        return self.first + len(self.word)


@dataclass(frozen=True, eq=False)
class Keys:
    """What the rows read: token texts, which are special, and the text word of each (-1 = outside the text)."""

    tokens: list[str]
    special: list[bool]
    word: np.ndarray
    count: int


@dataclass(frozen=True, eq=False)
class Views:
    """Maps and what was set aside."""

    views: list[View]
    sinks: list[Sink]
    atlas: Atlas | None


def make_views(
    selection: Selection,
    queries: Queries,
    keys: Keys,
    *,
    noun: str = "answer words",
    progress: Callable[[int, int], None] | None = None,
) -> Views:
    """All views of these queries over these keys."""
    n = len(keys.tokens)
    mean = _mean_rows(selection, queries, n)
    sinks = find_sinks(mean[queries.word >= 0], keys.tokens, keys.special)
    kept = np.ones(n, bool)
    kept[[sink.token for sink in sinks]] = False
    kept &= keys.word >= 0
    calm = np.zeros((queries.count, keys.count))
    heads = _HeadPeaks(queries.count, selection) if queries.count <= ATLAS_QUERIES else None
    for i, layer in enumerate(selection.layers):
        total = np.zeros((selection.heads, queries.count, keys.count), np.float32) if heads else None
        for first, last in selection.chunks(queries.first, queries.last):
            rows = selection.rows(layer, first, last, n)
            rows = np.where(kept, rows, 0.0)
            rows /= rows.sum(-1, keepdims=True) + 1e-9
            words = pool(rows, np.where(kept, keys.word, -1), keys.count)
            at = queries.word[first - queries.first : last - queries.first]
            if total is not None:
                for row, q in enumerate(at):
                    if q >= 0:
                        total[:, q] += words[:, row]
            else:
                np.add.at(calm, at[at >= 0], words.mean(0)[at >= 0])
        if total is not None:
            total /= _sizes(queries)[:, None]
            calm += total.mean(0) * _sizes(queries)[:, None]
            heads.add(i, total)
        if progress is not None:
            progress(i + 1, len(selection.layers))
    calm /= len(selection.layers) * _sizes(queries)[:, None]
    raw = _pooled_queries(pool(mean, keys.word, keys.count), queries)
    lift = np.maximum(calm - calm.mean(0), 0.0)
    views = [
        _view("lift", "what this word adds", f"share above what the other {noun} give the same word", lift),
        _view("aside", "sinks aside", _note(sinks), calm),
        _view("raw", "raw", f"{selection.words}, as the model has it", raw),
    ]
    return Views(views, sinks, heads.atlas() if heads else None)


def _note(sinks: list[Sink]) -> str:
    count = f"{len(sinks)} sink{'' if len(sinks) == 1 else 's'}" if sinks else "no sinks found; the rest"
    return f"{count} set aside, the rest renormalised" if sinks else "no sinks found; renormalised over the text"


def _sizes(queries: Queries) -> np.ndarray:
    """How many rows each query word has (1 at least)."""
    return np.maximum(np.bincount(queries.word[queries.word >= 0], minlength=queries.count), 1)


def _mean_rows(selection: Selection, queries: Queries, keys: int) -> np.ndarray:
    """The mean over layers and heads, [rows, keys]."""
    mean = np.zeros((queries.last - queries.first, keys), np.float32)
    for first, last in selection.chunks(queries.first, queries.last):
        part = mean[first - queries.first : last - queries.first]
        for layer in selection.layers:
            part += selection.rows(layer, first, last, keys).mean(0)
    return mean / len(selection.layers)


def _pooled_queries(rows: np.ndarray, queries: Queries) -> np.ndarray:
    """Mean rows of each query word: [rows, words] -> [queries, words]."""
    out = np.zeros((queries.count, rows.shape[1]))
    np.add.at(out, queries.word[queries.word >= 0], rows[queries.word >= 0])
    return out / _sizes(queries)[:, None]


def _view(name: str, label: str, note: str, words: np.ndarray) -> View:
    """A view with row 0, all queries together, on top."""
    everything = words.mean(0, keepdims=True) if len(words) else np.zeros((1, words.shape[1]))
    return View(name, label, note, Sparse.of(np.concatenate([everything, words]), FLOOR))


class _HeadPeaks:
    """Collects what each head adds for each query: its largest cell and its strongest words."""

    def __init__(self, queries: int, selection: Selection):
        shape = (queries + 1, len(selection.layers), selection.heads)
        self.peak = np.zeros(shape, np.float32)
        self.index = np.full((*shape, ATLAS_WORDS), 65535, np.int64)
        self.value = np.zeros((*shape, ATLAS_WORDS), np.float32)

    def add(self, layer: int, words: np.ndarray) -> None:
        """words [h, queries, words] of one layer."""
        lift = np.maximum(words - words.mean(1, keepdims=True), 0.0)
        lift = np.concatenate([lift.mean(1, keepdims=True), lift], 1).swapaxes(0, 1)
        top = min(ATLAS_WORDS, lift.shape[-1])
        best = np.argpartition(-lift, top - 1, axis=-1)[..., :top]
        value = np.take_along_axis(lift, best, -1)
        self.peak[:, layer] = lift.max(-1)
        self.index[:, layer, :, :top] = np.where(value > 0, best, 65535)
        self.value[:, layer, :, :top] = value

    def atlas(self) -> Atlas:
        return Atlas(self.peak, self.index, self.value)
