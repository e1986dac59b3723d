"""One look: what the words of an answer (or of a text) read, as maps over words that people can compare.

Everything a renderer needs, and nothing of the model: terminal, page, picture and file are made from this.
"""

from dataclasses import dataclass, field

import numpy as np

from recuerdo.errors import InputError
from recuerdo.explain.sinks import Sink
from recuerdo.explain.sparse import Sparse
from recuerdo.explain.tokenmap import TokenMap
from recuerdo.explain.words import Words


@dataclass(frozen=True, eq=False)
class View:
    """One way to look: a map queries x text words. Row 0 is all queries together, row 1 + i is query word i."""

    name: str
    label: str
    note: str
    map: Sparse


@dataclass(frozen=True, eq=False)
class Atlas:
    """Which heads point, in the default view: largest cell [Q, L, H], and the strongest words of each [Q, L, H, T]."""

    peak: np.ndarray
    index: np.ndarray
    value: np.ndarray


@dataclass(eq=False)
class Evidence:
    """`kind`: "answer" (a question was answered over a text), "text" (a text read itself) or "alignment"."""

    kind: str
    title: str
    model: str
    tokens: int
    layers: int
    heads: int
    selection: str
    text: Words
    views: list[View]
    question: str | None = None
    answer: Words | None = None
    atlas: Atlas | None = None
    sinks: list[Sink] = field(default_factory=list)
    map: TokenMap | None = None
    command: str = ""

    @property
    def queries(self) -> Words:
        """The words one can choose."""
        return self.answer if self.answer is not None else self.text

    def view(self, name: str | None = None) -> View:
        """A view by its name; the default one without."""
        for view in self.views:
            if name in (None, view.name):
                return view
        raise InputError(f"there is no view {name!r} here: choose {', '.join(v.name for v in self.views)}")

    def sentences(self, name: str | None = None, query: int = 0) -> np.ndarray:
        """The share of each sentence of the text in a row of a view: [sentences]; sums to 1 where anything is read."""
        row = self.view(name).map.row(query)
        sums = np.bincount(self.text.sentence_of(), np.maximum(row, 0.0), minlength=len(self.text.sentences))
        return sums / max(sums.sum(), 1e-12)
