"""One look: what the words of an answer (or of a text) read, as maps over words that people can compare.

Everything a renderer needs, and nothing of the model: terminal, page, picture and file are made from this.
"""

from dataclasses import dataclass, field
from typing import Any

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


@dataclass(frozen=True)
class MarkedWords:
    """A person's mark on the text: runs of words (first, behind the last), what it asks, and who said so and why."""

    words: list[tuple[int, int]]
    action: str
    label: str
    scope: str = ""
    author: str = ""
    reason: str = ""
    date: str = ""


@dataclass(frozen=True)
class Trusted:
    """How far a map can be trusted: 0 = chance, 100 = the best that was found; None with a verdict that says why.

    `view` is the map it was measured on, `removal` (keys or input) how words were taken away, `measure`
    (comprehensiveness or sufficiency) what was asked; `reason` why there is no score, or too little to tell.
    """

    view: str
    label: str
    removal: str
    measure: str
    score: float | None
    low: float | None
    high: float | None
    verdict: str
    reason: str | None = None


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
    marks: list[MarkedWords] = field(default_factory=list)  # this look was steered by them
    before: "Evidence | None" = None  # the same look without the marks
    moved: View | None = None  # signed, one row: what the answer read more, and what less, than before
    guard: dict[str, Any] | None = None  # how far the steered answer is from the model's own
    trust: list[Trusted] = field(default_factory=list)

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
