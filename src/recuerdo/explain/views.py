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
from recuerdo.explain.sinks import Sink, list_sinks, sink_mask
from recuerdo.explain.sparse import Sparse
from recuerdo.explain.words import pool
from recuerdo.read import Reading

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


def by_later_rows(reading: Reading) -> torch.Tensor:
    """The usual share of each key in self-attention, [b, h, k]: the mean over the rows that come anyway.

    These are the rows that can see the key, without its own (a token usually reads itself) and without the last row
    (it chooses the next token, so it is what is asked about).
    """
    q, k = reading.shape[2:]
    last = reading.weights[q - 1, :][:, :, 0].float()
    received = reading.received().float() - reading.diagonal().float() - last
    received[..., -1] += last[..., -1]  # the last key's own row was taken away twice
    causal = bool(reading.weights[0, 1 : min(k, 65)].sum() == 0)
    at = torch.arange(k)
    others = (q - 2 - at).clamp_min(1) if causal else torch.full_like(at, max(q - 2, 1))
    return received.clamp_min(0.0) / others


def by_all_rows(reading: Reading) -> torch.Tensor:
    """The usual share of each key in cross-attention, [b, h, k]: the mean over all rows, since none comes anyway."""
    return reading.received().float() / reading.shape[2]


def _usual(selection: Selection, keys: int, by: Callable[[Reading], torch.Tensor]) -> list[np.ndarray]:
    """The usual shares of every layer, [h, keys] each; keys that came later have none."""
    shares = []
    for layer in selection.layers:
        with torch.no_grad():
            share = by(layer.steps[0])[0]
        share = torch.nn.functional.pad(share, (0, max(keys - share.shape[-1], 0)))[:, :keys]
        shares.append((share if selection.head is None else share[selection.head : selection.head + 1]).numpy())
    return shares


def make_views(
    selection: Selection,
    queries: Queries,
    keys: Keys,
    *,
    others: str = "the later words of the text and the question",
    by: Callable[[Reading], torch.Tensor] = by_later_rows,
    beyond: float = BEYOND,
    progress: Callable[[int, int], None] | None = None,
) -> Views:
    """All views of these queries over these keys; `others` names who gives a key its usual share, found `by`.

    Some query words at a time, over all layers: nothing words x words is held but the cells that are kept.
    """
    n = len(keys.tokens)
    usual = _usual(selection, n, by)
    sunk = [
        sink_mask(share, _value_sizes(selection, layer, n))
        for share, layer in zip(usual, selection.layers, strict=True)
    ]
    in_sinks, rows_read = np.zeros(n), 0
    peaks = _HeadPeaks(queries.count, selection) if queries.count <= ATLAS_QUERIES else None
    lift, aside, raw = (_Growing(keys.count, together) for together in (np.maximum, np.add, np.add))
    for some in _some_words(queries):
        size = some.rows_of_words()[:, None]
        at = some.word[some.word >= 0]
        found = np.zeros((3, len(at), keys.count), np.float32)  # lift, aside, raw: [rows, words]
        for i, layer in enumerate(selection.layers):
            rows = selection.rows(layer, some.first, some.last, n)[:, some.word >= 0]
            added = pool(np.maximum(rows - beyond * usual[i][:, None], 0.0), keys.word, keys.count)
            found[0] += added.mean(0)
            found[2] += pool(rows, keys.word, keys.count).mean(0)
            in_sinks += np.where(sunk[i], rows.sum(1), 0.0).mean(0)
            rows = np.where(sunk[i][:, None] | (keys.word < 0), 0.0, rows)
            found[1] += pool(rows / (rows.sum(-1, keepdims=True) + 1e-9), keys.word, keys.count).mean(0)
            if peaks is not None:
                by_head = np.zeros((selection.heads, some.count, keys.count), np.float32)
                np.add.at(by_head.swapaxes(0, 1), at, added.swapaxes(0, 1))
                peaks.add(i, some.start, by_head / size, added.max(1, initial=0.0))
        rows_read += len(at)
        for view, rows in zip((lift, aside, raw), found / len(selection.layers), strict=True):
            words = np.zeros((some.count, keys.count), np.float32)
            np.add.at(words, at, rows)
            view.add(words / size, rows if view is lift else words / size)
        if progress is not None:
            progress(some.start + some.count, queries.count)
    shares = in_sinks / max(rows_read, 1) / len(selection.layers)
    sinks = list_sinks(shares, np.sum([mask.sum(0) for mask in sunk], 0), keys.tokens, keys.special)
    times = f"{beyond:g} times " if beyond != 1 else ""
    beyond_usual = f"share beyond {times}what {others} usually give the same word, head by head"
    views = [
        # Together, each text word shows its strongest query: a mean would drown what one token of the answer found.
        View("lift", "what this word adds", beyond_usual, lift.map(1)),
        View("aside", "sinks aside", "sinks set aside in every head, the rest renormalised", aside.map(queries.count)),
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

    def __init__(self, columns: int, together: np.ufunc):
        self._parts: list[Sparse] = []
        self._together = together
        self._all = np.zeros(columns)

    def add(self, words: np.ndarray, rows: np.ndarray) -> None:
        """The next query words [words, columns], and the rows that count for the row on top."""
        self._parts.append(Sparse.of(words, FLOOR))
        if len(rows):
            self._all = self._together(self._all, self._together.reduce(rows, axis=0))

    def map(self, by: int) -> Sparse:
        """The whole map; the row on top divided by `by`."""
        top = Sparse.of((self._all / max(by, 1))[None], FLOOR)
        return Sparse.stacked([top, *self._parts], len(self._all))


def _value_sizes(selection: Selection, layer: Layer, keys: int) -> np.ndarray:
    """The sizes of the values of the chosen heads: [h, keys]."""
    value = layer.steps[-1].value[0, :, :keys]
    size = value.float().norm(dim=-1).repeat_interleave(layer.heads // value.shape[0], 0)
    return (size if selection.head is None else size[selection.head : selection.head + 1]).numpy()


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

    def add(self, layer: int, start: int, words: np.ndarray, strongest: np.ndarray) -> None:
        """What the heads [h, queries, words] of one layer add from query word `start` on, and their strongest rows."""
        if not words.shape[1] or not words.shape[2]:
            return
        self._write(layer, slice(1 + start, 1 + start + words.shape[1]), words.swapaxes(0, 1))
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
