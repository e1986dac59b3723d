"""The views: from rows of tokens in many heads to maps over words.

raw     the mean of the heads, as the model has it; mostly sinks
aside   sinks set aside and every head's row renormalised over the text
lift    what this word adds: how much more it reads a key than three times that key's usual share, head by head

Why lift is the default: measured on questions over encyclopedia paragraphs (docs/evidence.md), its most-read sentence
held the answer far more often than that of any other view. Clipping head by head matters: a mean over heads first lets
the sinks of some heads hide what others found. Sinks vanish without a rule, since their usual share is high.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from recuerdo.explain.evidence import Atlas, View
from recuerdo.explain.rows import ROWS_AT_ONCE, Layer, Selection
from recuerdo.explain.sinks import Sink, find_sinks
from recuerdo.explain.sparse import Sparse
from recuerdo.explain.words import pool

FLOOR = 1e-4  # cells below this part of a row's weight are not kept: a hundredth of a percent
BEYOND = 3.0  # times its usual share: what a key must get before it counts; 1.5 to 6 do the same within noise
ATLAS_WORDS = 12
ATLAS_QUERIES = 400  # more queries than this make no atlas: it would outweigh the page


@dataclass(frozen=True, eq=False)
class Queries:
    """Which rows are asked about: `word` holds, from row `first` on, the query word of each row (or -1)."""

    first: int
    word: np.ndarray
    count: int

    @property
    def last(self) -> int:
        """The row behind the last one."""
        return self.first + len(self.word)

    def rows_of_words(self) -> np.ndarray:
        """How many rows each query word has (1 at least)."""
        return np.maximum(np.bincount(self.word[self.word >= 0], minlength=self.count), 1)


@dataclass(frozen=True, eq=False)
class Keys:
    """What the rows read: token texts, which are special, and the text word of each (-1 = outside the text)."""

    tokens: list[str]
    special: list[bool]
    word: np.ndarray
    count: int


@dataclass(frozen=True, eq=False)
class Views:
    """Maps, what was set aside, and which heads point."""

    views: list[View]
    sinks: list[Sink]
    atlas: Atlas | None


def usual_share(selection: Selection, layer: Layer, keys: int, *, beyond: float = BEYOND) -> np.ndarray:
    """What each key gets from the queries that come anyway, times `beyond`: [h, keys].

    The usual share is the mean over the first read's later rows, without the key's own row and without the last row
    (the one that chooses the next token). Cross-attention has no such rows of its own: there it is the plain mean.
    """
    first = layer.steps[0]
    q, k = first.shape[2:]
    with torch.no_grad():
        received = first.received()[0].float()
        if q != k:
            usual = received / q
        else:
            last = first.weights[q - 1, :][0, :, 0].float()
            causal = bool(first.weights[0, 1 : min(k, 65)].sum() == 0)
            received = received - first.diagonal()[0].float() - last
            received[:, -1] += last[:, -1]  # the last key's own row was taken away twice
            at = torch.arange(k)
            others = (q - 2 - at).clamp_min(1) if causal else torch.full_like(at, max(q - 2, 1))
            usual = received.clamp_min(0.0) / others
    usual = torch.nn.functional.pad(usual, (0, max(keys - k, 0)))[:, :keys]
    chosen = usual if selection.head is None else usual[selection.head : selection.head + 1]
    return beyond * chosen.numpy()


def make_views(
    selection: Selection,
    queries: Queries,
    keys: Keys,
    *,
    others: str = "the later words of the text and the question",
    beyond: float = BEYOND,
    progress: Callable[[int, int], None] | None = None,
) -> Views:
    """All views of these queries over these keys; `others` names who gives a key its usual share.

    Some query words at a time, over all layers: nothing words x words is held but the cells that are kept.
    """
    n = len(keys.tokens)
    sinks = find_sinks(_sample(selection, queries, n), keys.tokens, keys.special, _value_sizes(selection, n))
    kept = keys.word >= 0
    kept[[sink.token for sink in sinks]] = False
    usual = [usual_share(selection, layer, n, beyond=beyond)[:, None] for layer in selection.layers]
    peaks = _HeadPeaks(queries.count, selection) if queries.count <= ATLAS_QUERIES else None
    lift, aside, raw = (_Growing(keys.count, together) for together in (np.maximum, np.add, np.add))
    for some in _some_words(queries):
        size = some.rows_of_words()[:, None]
        found = np.zeros((3, some.count, keys.count), np.float32)
        for i, layer in enumerate(selection.layers):
            rows = selection.rows(layer, some.first, some.last, n)[:, some.word >= 0]
            at = some.word[some.word >= 0]
            added = pool(np.maximum(rows - usual[i], 0.0), keys.word, keys.count)
            np.add.at(found[0], at, added.mean(0))
            np.add.at(found[2], at, pool(rows, keys.word, keys.count).mean(0))
            rows = np.where(kept, rows, 0.0)
            np.add.at(found[1], at, pool(rows / (rows.sum(-1, keepdims=True) + 1e-9), keys.word, keys.count).mean(0))
            if peaks is not None:
                by_head = np.zeros((selection.heads, some.count, keys.count), np.float32)
                np.add.at(by_head.swapaxes(0, 1), at, added.swapaxes(0, 1))
                peaks.add(i, some.start, by_head / size)
        for view, rows in zip((lift, aside, raw), found / size / len(selection.layers), strict=True):
            view.add(rows)
        if progress is not None:
            progress(some.start + some.count, queries.count)
    times = f"{beyond:g} times " if beyond != 1 else ""
    beyond_usual = f"share beyond {times}what {others} usually give the same word, head by head"
    views = [
        # Together, each text word shows its strongest query: a mean would drown what one word of the answer found.
        View("lift", "what this word adds", beyond_usual, lift.map(1)),
        View("aside", "sinks aside", _note(sinks), aside.map(queries.count)),
        View("raw", "raw", f"{selection.words}, as the model has it", raw.map(queries.count)),
    ]
    return Views(views, sinks, peaks.atlas() if peaks else None)


@dataclass(frozen=True, eq=False)
class _Some(Queries):
    """A run of query words; `word` counts from `start`."""

    start: int = 0


def _some_words(queries: Queries) -> Iterator[_Some]:
    """Runs of whole query words, of about ROWS_AT_ONCE rows; words stand in the order of their rows."""
    before = np.maximum.accumulate(np.concatenate([[-1], queries.word]))[:-1]
    cuts = np.flatnonzero(queries.word > before)  # rows with which a word begins
    first, start = 0, 0
    while first < len(queries.word):
        later = cuts[cuts >= first + ROWS_AT_ONCE]
        last = int(later[0]) if len(later) else len(queries.word)
        count = (int(queries.word[last]) if len(later) else queries.count) - start
        words = queries.word[first:last]
        yield _Some(queries.first + first, np.where(words >= 0, words - start, -1), count, start)
        first, start = last, start + count


class _Growing:
    """A view made run by run: its rows as sparse cells, and all queries together on top."""

    def __init__(self, columns: int, together: Callable):
        self._parts: list[Sparse] = []
        self._together = together
        self._all = np.zeros(columns)

    def add(self, rows: np.ndarray) -> None:
        """Rows [words, columns] of the next query words."""
        self._parts.append(Sparse.of(rows, FLOOR))
        if len(rows):
            self._all = self._together(self._all, self._together.reduce(rows, axis=0))

    def map(self, by: int) -> Sparse:
        """The whole map; the row on top divided by `by`."""
        top = Sparse.of((self._all / max(by, 1))[None], FLOOR)
        return Sparse.stacked([top, *self._parts], len(self._all))


def _note(sinks: list[Sink]) -> str:
    if not sinks:
        return "no sinks found; renormalised over the text"
    return f"{len(sinks)} sink{'' if len(sinks) == 1 else 's'} set aside, the rest renormalised over the text"


def _sample(selection: Selection, queries: Queries, keys: int) -> np.ndarray:
    """Mean rows over layers and heads of up to 64 of the queries, late ones (they see all keys): [rows, keys]."""
    rows = queries.first + np.flatnonzero(queries.word >= 0)
    late = rows[-max(64, len(rows) // 3) :]
    chosen = late[np.unique(np.linspace(0, len(late) - 1, min(len(late), 64)).astype(int))] if len(late) else late
    mean = np.zeros((len(chosen), keys), np.float32)
    for layer in selection.layers:
        if len(chosen) and chosen[-1] - chosen[0] < 64:
            block = selection.rows(layer, int(chosen[0]), int(chosen[-1]) + 1, keys).mean(0)
            mean += block[chosen - chosen[0]]
        else:
            mean += np.concatenate([selection.rows(layer, int(i), int(i) + 1, keys).mean(0) for i in chosen])
    return mean / len(selection.layers)


def _value_sizes(selection: Selection, keys: int) -> np.ndarray:
    """The size of each key's value against the median key's, mean over layers: [keys]."""
    total = np.zeros(keys)
    for layer in selection.layers:
        size = layer.steps[-1].value[0, :, :keys].float().norm(dim=-1).mean(0)
        total += (size / size.median().clamp_min(1e-9)).numpy()
    return total / len(selection.layers)


def together(name: str, label: str, note: str, words: np.ndarray, how: Callable) -> View:
    """A view with row 0, all queries together, on top."""
    everything = how(words, axis=0, keepdims=True) if len(words) else np.zeros((1, words.shape[1]))
    return View(name, label, note, Sparse.of(np.concatenate([everything, words]), FLOOR))


class _HeadPeaks:
    """Collects what each head adds for each query: its largest cell and its strongest words."""

    def __init__(self, queries: int, selection: Selection):
        shape = (queries + 1, len(selection.layers), selection.heads)
        self.peak = np.zeros(shape, np.float32)
        self.index = np.full((*shape, ATLAS_WORDS), 65535, np.int64)
        self.value = np.zeros((*shape, ATLAS_WORDS), np.float32)

    def add(self, layer: int, start: int, words: np.ndarray) -> None:
        """What the heads [h, queries, words] of one layer add, for the query words from `start` on."""
        if not words.shape[1] or not words.shape[2]:
            return
        self._write(layer, slice(1 + start, 1 + start + words.shape[1]), words.swapaxes(0, 1))
        strongest = words.max(1)
        head, place = np.nonzero(self.index[0, layer] != 65535)  # what earlier runs found
        word = self.index[0, layer, head, place]
        strongest[head, word] = np.maximum(strongest[head, word], self.value[0, layer, head, place])
        self._write(layer, slice(0, 1), strongest[None])

    def _write(self, layer: int, queries: slice, lift: np.ndarray) -> None:
        top = min(ATLAS_WORDS, lift.shape[-1])
        best = np.argpartition(-lift, top - 1, axis=-1)[..., :top]
        value = np.take_along_axis(lift, best, -1)
        self.peak[queries, layer] = lift.max(-1)
        self.index[queries, layer, :, :top] = np.where(value > 0, best, 65535)
        self.value[queries, layer, :, :top] = value

    def atlas(self) -> Atlas:
        return Atlas(self.peak, self.index, self.value)
