"""Two looks at the same text, side by side as one signed map: what the second read more (+) and what less (-)."""

import numpy as np

from recuerdo.errors import InputError
from recuerdo.explain.evidence import Evidence, View
from recuerdo.explain.rows import Selection
from recuerdo.explain.sparse import Sparse
from recuerdo.explain.views import FLOOR, Queries


def compare(first: Evidence, second: Evidence, view: str | None = None) -> Evidence:
    """The second look minus the first, in one view: shares of what each row shows, so that both weigh the same.

    Row by row when both have the same query words, else only all queries together. Raises InputError when the texts
    differ.
    """
    if first.text.words != second.text.words:
        raise InputError("the two looks are over different texts: compare looks at the same text")
    name = first.view(view).name
    a, b = _shares(first.view(name).map), _shares(second.view(name).map)
    same = first.queries.words == second.queries.words
    rows = b - a if same else np.concatenate([b[:1] - a[:1], np.zeros_like(a[1:])])
    who = f"{_who(second)} minus {_who(first)}"
    note = f"{who}; {first.view(name).label}" + (
        "" if same else "; the answers differ, so only all words together compare"
    )
    signed = View("difference", "difference", note, Sparse.of(rows, FLOOR, signed=True))
    return Evidence(
        kind=first.kind,
        title=first.title,
        question=first.question,
        model=f"{second.model} − {first.model}",
        tokens=first.tokens,
        layers=first.layers,
        heads=first.heads,
        selection=first.selection,
        text=first.text,
        answer=first.answer,
        views=[signed, first.view(name), *([_named(second.view(name), "second", "the second look")] if same else [])],
    )


def moved(before: Evidence, after: Evidence) -> View:
    """What the answer of the second look read more, and what less, as shares of all it read: one signed row.

    In the raw view, since only that one sums to what was read. Raises InputError when the texts differ.
    """
    if before.text.words != after.text.words:
        raise InputError("the two looks are over different texts: what moved is seen in the same text")
    row = after.view("raw").map.row(0) - before.view("raw").map.row(0)
    note = "mean share of what the answer read, after minus before, over all layers and heads"
    return View("moved", "what moved", note, Sparse.of(row[None], FLOOR, signed=True))


def share_on(selection: Selection, queries: Queries, keys: np.ndarray) -> float:
    """The share of what the query words read that lies on some keys, [n] bool: mean over rows, heads and layers."""
    total, rows = 0.0, 0
    columns = keys.nonzero()[0]
    for first, last in selection.chunks(queries.first, queries.last):
        asked = queries.word[first - queries.first : last - queries.first] >= 0
        rows += int(asked.sum())
        for layer in selection.layers:
            total += float(selection.rows(layer, first, last, len(keys))[:, asked][..., columns].sum(-1).mean(0).sum())
    return total / max(rows * len(selection.layers), 1)


def _who(look: Evidence) -> str:
    return f"{look.model}, {look.selection}" + (f", “{look.question}”" if look.question else "")


def _shares(sparse: Sparse) -> np.ndarray:
    dense = sparse.dense()
    return dense / np.maximum(np.abs(dense).sum(-1, keepdims=True), 1e-12)


def _named(view: View, name: str, label: str) -> View:
    return View(name, label, view.note, view.map)
