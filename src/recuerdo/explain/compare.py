"""Two looks at the same text, side by side as one signed map: what the second read more (+) and what less (-)."""

import numpy as np

from recuerdo.errors import InputError
from recuerdo.explain.evidence import Evidence, View
from recuerdo.explain.sparse import Sparse
from recuerdo.explain.views import FLOOR


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


def _who(look: Evidence) -> str:
    return f"{look.model}, {look.selection}" + (f", “{look.question}”" if look.question else "")


def _shares(sparse: Sparse) -> np.ndarray:
    dense = sparse.dense()
    return dense / np.maximum(np.abs(dense).sum(-1, keepdims=True), 1e-12)


def _named(view: View, name: str, label: str) -> View:
    return View(name, label, view.note, view.map)
