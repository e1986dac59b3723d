"""The contract that every store signs; one suite of tests (tests/contracts/test_stores.py) runs over all of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from recuerdo.store.record import Found, Hand, Ids, Receipt, Record, Rows, Rules, Stats, Where


class Store(Protocol):
    """Rows that outlive the process, found by the softmax of their keys.

    What returned is kept: a write is on the disk when its call comes back. Ids are given by the store, rise, and are
    never used again. Whatever goes wrong is a StoreError that says what to do; what a person handed over and cannot be
    used is an InputError; after either the store is as it was before the call. Only where a server fell silent while it
    decided, the change may have been made as a whole, and the error says so.
    """

    @property
    def width(self) -> int:
        """d, the width of the keys."""
        ...

    @property
    def value_width(self) -> int:
        """e, the width of the values; 0 where rows have none."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def append(self, rows: Rows) -> np.ndarray:
        """Keep rows, all or none: their ids, [n] int64."""
        ...

    def get(self, ids: Ids) -> list[Record]:
        """Rows as they are now, in the order of the ids."""
        ...

    def history(self, id: int) -> list[Record]:
        """All versions of a row, oldest first; the last is the present one."""
        ...

    def update(self, id: int, rows: Rows, *, reason: str = "") -> int:
        """Put one row in the place of another as its next version, whose number is returned; the old one is kept."""
        ...

    def bias(self, ids: Ids, amount: float, *, author: str = "", reason: str = "") -> None:
        """Set what is added to the logits of rows: 0 = as they are, -inf = never read."""
        ...

    def undo(self, id: int, *, author: str = "", reason: str = "") -> Hand:
        """Take back what a hand did last to a row, and is not taken back yet: what that was.

        It is written down as one thing more, and whoever undoes again goes further back. A correction is taken back by
        a version more, which says what the one before it said. Raises InputError where nothing is left.
        """
        ...

    def scan(
        self, queries: np.ndarray, *, top: int = 10, rules: Rules | None = None, where: Where | None = None
    ) -> Found:
        """The best rows for queries [q, d], and the log-mass of all that was addressed."""
        ...

    def ids(self, where: Where | None = None) -> np.ndarray:
        """The ids of rows, rising."""
        ...

    def matches(self, text: str, *, top: int = 100, where: Where | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The rows whose texts share words with a text: ids [k] int64 and their BM25 [k], best first."""
        ...

    def notes(self) -> dict[str, str]:
        """Small facts that are kept with the rows, such as which encoder makes the keys."""
        ...

    def note(self, name: str, value: str) -> None:
        """Keep such a fact; an empty value takes it away."""
        ...

    def vectors(self, where: Where | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Ids [n], keys [n, d] and values [n, e] (None where rows have none) of rows, in one order."""
        ...

    def hands(self, id: int | None = None) -> list[Hand]:
        """What was done to a row by hand, or to all rows, oldest first."""
        ...

    def adopt(self, records: Sequence[Record], hands: Sequence[Hand] = ()) -> None:
        """Keep rows of another store as they stand there, with ids, versions, biases and times: all or none.

        All versions of a row come together. Later rows get ids above all of these, those that only hands tell of too.
        Raises InputError for an id that is there already, and for versions that do not follow each other.
        """
        ...

    def forget(self, ids: Ids, *, author: str = "", reason: str = "") -> Receipt:
        """Erase rows and all their versions: afterwards their bytes are nowhere within reach of the store.

        What is out of reach, such as the log and the backups of a server, is named in the receipt's `owed`.
        """
        ...

    def snapshot(self, path: Path) -> Path:
        """A copy of the store as it is now, in a file of its own; `forget` reaches it as long as it stays there."""
        ...

    def stats(self) -> Stats:
        """How large it is."""
        ...

    def check(self) -> list[str]:
        """Compare everything with everything: what is wrong, in words; nothing = all is well."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
