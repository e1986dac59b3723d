"""A memory as tools for programs: each takes plain values, and tells plain data and the same in words.

What a tool is called, what it takes and what it does stand in its name, its signature and its docstring; a door hands
them on as they are.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recuerdo.errors import InputError
from recuerdo.store.record import Record, Where
from recuerdo.workbench.remembering import Asked, Memory, Remembered
from recuerdo.workbench.rows import finite, plain
from recuerdo.workbench.tags import twins

READING = ("ask", "show", "history", "ls", "stats")
WRITING = ("remember", "correct", "pin", "boost", "mute", "forget")
PAGE = 100  # rows of a page, at most
BEGIN = 20  # characters of a row that are repeated before it is erased


@dataclass(frozen=True)
class Told:
    """What a tool has to say: plain data, and the same in words."""

    data: dict[str, Any]
    words: str


class Desk:
    """The tools of a memory, one at a time, whichever thread calls them.

    `folder`: files below it may be remembered; None = no files. `author` signs what is written. With `read_only` there
    are only the tools that read.
    """

    def __init__(self, memory: Memory, *, folder: Path | None = None, author: str = "", read_only: bool = False):
        if folder is not None and not folder.is_dir():
            raise InputError(f"there is no folder {folder}: make it first")
        self._memory, self._folder, self._author = memory, folder, author
        self._lock = threading.Lock()
        self.names = READING if read_only else (*READING, *WRITING, *(("remember_file",) if folder else ()))

    @property
    def tools(self) -> dict[str, Callable[..., Told]]:
        """Name -> tool."""
        return {name: getattr(self, name) for name in self.names}

    def call(self, name: str, **given: Any) -> Told:
        """Use a tool; who comes second waits. Raises what the tool raises."""
        with self._lock:
            return getattr(self, name)(**given)

    # ---------------------------------------------------------------------------------------------------------- reading

    def ask(
        self, question: str, top: int = 5, hops: int = 1, tags: list[str] | None = None, author: str | None = None
    ) -> Told:
        """Which rows answer a question: each with its share of the attention over all rows, and the sentence that is
        most like the question, between ▸ and ◂. `hops` 2 reads again with what was found. Only rows with all `tags`,
        by `author`."""
        where = Where(tags=tuple(tags or ()), author=author) if tags or author is not None else None
        asked = self._memory.ask(question, top=top, hops=hops, where=where)
        return Told(asked.as_json(), _answer(asked))

    def show(self, ids: list[int]) -> Told:
        """Rows as they stand now, whole."""
        if len(ids) > PAGE:
            raise InputError(f"{len(ids)} rows are too many at once: {PAGE} are the most")
        return _rows(self._memory.store.get(ids))

    def history(self, id: int) -> Told:
        """All versions of a row, oldest first, and what was done to it by hand, with author and reason."""
        versions, hands = self._memory.store.history(id), self._memory.store.hands(id)
        data = {"versions": [plain(one) for one in versions], "hands": [dict(vars(hand)) for hand in hands]}
        words = [f"version {one.version}  {one.author}\n{one.text}" for one in versions]
        words += [
            "  ".join(filter(None, (hand.what, _amount(hand.amount), hand.author, hand.reason))) for hand in hands
        ]
        return Told(finite(data), "\n".join(words))

    def ls(self, after: int = -1, most: int = 20, tags: list[str] | None = None) -> Told:
        """Rows in the order of their ids, `most` at a time, those with ids above `after`; `next` is the `after` of the
        next page, null at the end. Only rows with all `tags`."""
        if not 1 <= most <= PAGE:
            raise InputError(f"a page has 1 to {PAGE} rows, not {most}")
        ids = self._memory.store.ids(Where(tags=tuple(tags)) if tags else None)
        left = ids[ids > after]
        told = _rows(self._memory.store.get(left[:most]))
        data = told.data | {"total": len(ids), "next": int(left[most - 1]) if len(left) > most else None}
        return Told(data, f"{told.words}\n{len(told.data['rows'])} of {len(ids)} rows".strip())

    def stats(self) -> Told:
        """How many rows and older versions there are, and which encoder made the keys."""
        data = {**vars(self._memory.store.stats()), "encoder": self._memory.store.notes().get("encoder", "")}
        return Told(data, "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in data.items()))

    # ---------------------------------------------------------------------------------------------------------- writing

    def remember(self, text: str, source: str = "", tags: list[str] | None = None) -> Told:
        """Keep a text. It is cut into passages of about 120 words, one row each. What is there from the same `source`
        is not kept twice."""
        return _kept(self._memory.remember(text, source=source, tags=tags or (), author=self._author))

    def remember_file(self, path: str, tags: list[str] | None = None) -> Told:
        """Keep what a file says: txt, md, html, pdf, docx, csv or jsonl. `path` counts from the folder that was opened
        for this, and cannot leave it."""
        told = self._memory.remember_file(Path(path), folder=self._folder, tags=tags or (), author=self._author)
        return _kept(told)

    def correct(self, id: int, text: str, reason: str = "") -> Told:
        """Put another text in the place of a row's. The old one stays in its history."""
        version = self._memory.correct(id, text, author=self._author, reason=reason)
        return Told({"id": id, "version": version}, f"#{id} is version {version} now")

    def pin(self, ids: list[int], reason: str = "") -> Told:
        """Read rows far more than others: 4 is added to their logits. `boost` by 0 takes it back."""
        self._memory.pin(ids, author=self._author, reason=reason)
        return _done(ids, "pinned")

    def boost(self, ids: list[int], by: float, reason: str = "") -> Told:
        """Add a number to the logits of rows in every look, in the place of what was added before; 0 = as they are."""
        self._memory.boost(ids, by, author=self._author, reason=reason)
        return _done(ids, f"boosted by {by:g}")

    def mute(self, ids: list[int], reason: str = "") -> Told:
        """Never read rows, until they are boosted by 0."""
        self._memory.mute(ids, author=self._author, reason=reason)
        return _done(ids, "muted")

    def forget(self, ids: list[int], confirm: list[str], reason: str = "") -> Told:
        """Erase rows and all their versions, to the last byte. This cannot be undone. `confirm` repeats, for each id in
        the same order, how the row begins: 20 characters or more, or all of a shorter text."""
        rows = self._memory.store.get(ids)
        if len(confirm) != len(rows):
            raise InputError(f"{len(rows)} rows and {len(confirm)} texts in `confirm`: repeat how each row begins")
        for row, said in zip(rows, confirm, strict=True):
            text, begin = " ".join(row.text.split()), " ".join(said.split())
            if len(begin) < min(BEGIN, len(text)) or not text.startswith(begin):
                raise InputError(
                    f"#{row.id} is not confirmed, and nothing was erased: look at it with `show`, then repeat "
                    f"its first {BEGIN} characters or more"
                )
        same = twins(self._memory.store, ids)
        receipt = self._memory.forget(ids, author=self._author, reason=reason)
        words = [f"{receipt.rows} rows in {receipt.versions} versions were erased"]
        words += [f"still owed: {owed}" for owed in receipt.owed]
        words += [f"other rows say the same word for word, and stay: {_numbers(same)}"] if same else []
        return Told({**vars(receipt), "same": same}, "\n".join(words))


def _answer(asked: Asked) -> str:
    lines: list[str] = []
    for number, hop in enumerate(asked.hops, 1):
        lines += [f"hop {number}"] if len(asked.hops) > 1 else []
        for one in hop:
            lines.append(f"{100 * one.weight:.1f} %  {_about(one.record, one.source)}")
            lines.append(one.record.text.replace(one.sentence, f"▸{one.sentence}◂", 1))
    if not any(asked.hops):
        return "nothing is there to be read"
    share = f"these hold {100 * asked.covered:.1f} % of the attention"
    return "\n".join([*lines, f"{share}; {asked.looked} of {asked.addressed} rows were looked at"])


def _rows(records: list[Record]) -> Told:
    data = [plain(one) for one in records]
    pairs = zip(records, data, strict=True)
    return Told({"rows": data}, "\n".join(f"{_about(one, told['source'])}\n{one.text}" for one, told in pairs))


def _about(record: Record, source: str) -> str:
    hand = f"bias {record.bias:+g}" if record.bias else ""
    return "  ".join(filter(None, (f"#{record.id}", source, record.author, hand)))


def _kept(told: Remembered) -> Told:
    same = f"; {len(told.same)} of them said by another row already (linked)" if told.same else ""
    known = f"; {told.known} were there" if told.known else ""
    ids = f" ({_numbers(told.ids)})" if told.ids else ""
    return Told(
        {"ids": list(told.ids), "known": told.known, "same": {str(new): old for new, old in told.same.items()}},
        f"{len(told.ids)} passages kept{ids}{same}{known}",
    )


def _done(ids: list[int], what: str) -> Told:
    return Told({"ids": ids}, f"{_numbers(ids)} {what}")


def _numbers(ids: list[int] | tuple[int, ...]) -> str:
    return ", ".join(f"#{id}" for id in ids[:20]) + (" …" if len(ids) > 20 else "")


def _amount(amount: float | None) -> str:
    return "" if amount is None else f"{amount:+g}"
