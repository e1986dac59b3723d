"""A store in a Qdrant cluster: many machines hold the rows, many processes write and look.

    <collection>         every version of every row: a point with key, value, words, and what is filtered by
    <collection>-state   one point that says what is so (see `cluster_state`), what was done by hand, and snapshots

What is promised, and what not. A write is acknowledged when the engine has it in its log and has applied it on a
majority of the replicas; whether that outlives a power failure is the engine's promise. Every change is all or none,
for readers too: one conditional write of one point decides, and what is left to be done after it is done by whoever
writes or opens next. A scan that runs while others write may see some of their rows and not others, never half a row.
Where the answer to the deciding write is lost, the store looks whether it was made; where the cluster then stays
silent too, a StoreError is told for a write that may have been made. Clocks of writers may differ by a minute.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from recuerdo.errors import InputError, StoreError
from recuerdo.store import cluster_hand as hand
from recuerdo.store import cluster_points as points
from recuerdo.store import cluster_upkeep as upkeep
from recuerdo.store.cluster_engine import Point, parts
from recuerdo.store.cluster_scan import Look, scan
from recuerdo.store.cluster_session import Session
from recuerdo.store.cluster_state import SCHEMA, STALE, Intent, State, chunks, hand_point
from recuerdo.store.record import Found, Hand, Ids, Receipt, Record, Rows, Rules, Stats, Where, by_id, whole
from recuerdo.store.refused import check_bias, check_rows, check_said, check_version, checked_queries
from recuerdo.store.undoing import again, taken_back

MOST_ID = 2**53  # the engine compares numbers as float64


class Cluster:
    """A store in a cluster. See `recuerdo.store.contract.Store` for what it promises, and this file for what else."""

    def __init__(  # noqa: PLR0913 - where the cluster is and how it is cut up has no smaller form
        self,
        url: str | None = None,
        *,
        collection: str,
        width: int = 0,
        value_width: int = 0,
        api_key: str | None = None,
        client: Any = None,
        exact: bool = True,
        read_only: bool = False,
        shards: int = 1,
        replicas: int = 1,
        whole: int = 10_000,
        wait: float = 5.0,
        timeout: int = 60,
    ):
        """Opens the memory in `collection`; makes it, with keys of `width`, where there is none and a width is given.

        `url` and `api_key` say where the cluster is; `client` is one that is open already. `exact`: the engine compares
        every row, else its graph (HNSW) proposes. Up to `whole` rows are all looked at here, beyond that the engine is
        asked for the best. `wait`: seconds to wait for other writers, `timeout`: for an answer. Raises StoreError for a
        cluster that cannot be used, InputError for widths that are not those of the memory that is there.
        """
        if min(width, value_width) < 0 or min(shards, replicas, whole, timeout) < 1:
            raise InputError("widths are 0 or more; shards, replicas, whole and timeout are 1 or more")
        self.exact, self.whole, self.read_only = exact, whole, read_only
        self._session = Session(
            url, collection, client, api_key=api_key, replicas=replicas, read_only=read_only, wait=wait, timeout=timeout
        )
        self.name, self._words = self._session.name, self._session.words
        self._rows, self._states, self._ledger = self._session.rows, self._session.states, self._session.ledger
        self._session.open(width, value_width, shards)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def width(self) -> int:
        """d, the width of the keys."""
        return self._session.width

    @property
    def value_width(self) -> int:
        """e, the width of the values; 0 where rows have none."""
        return self._session.value_width

    # --------------------------------------------------------------------------------------------------------- writing

    def append(self, rows: Rows) -> np.ndarray:
        """Keep rows, all or none: their ids, [n] int64."""
        check_rows(rows, (self.width, self.value_width), self.name)
        n, norm = len(rows), hand.longest(rows.keys)
        with self._session.writing():
            if not n:
                return np.empty(0, np.int64)

            def begin(state: State, token: str) -> tuple[State, Intent]:
                low = state.next
                state = replace(state, next=low + n, norm=max(state.norm, norm))
                return state.opened("append", "doing", token, low=low, high=low + n)

            with self._ledger.doing(begin) as intent:
                ids = range(intent.low, intent.high)
                self._put(hand.records(rows, [(id, 1, 0.0) for id in ids]), intent)
        return np.arange(intent.low, intent.high)

    def update(self, id: int, rows: Rows, *, reason: str = "") -> int:
        """Put one row in the place of another as its next version, whose number is returned; the old one is kept."""
        check_version(rows, (self.width, self.value_width), self.name)
        check_said(reason)
        with self._session.writing():
            return hand.put_next(self._session, id, rows, rows.author, reason)

    def bias(self, ids: Ids, amount: float, *, author: str = "", reason: str = "") -> None:
        """Set what is added to the logits of rows: 0 = as they are, -inf = never read."""
        check_bias(amount)
        check_said(author, reason)
        wanted = tuple(whole(ids))
        with self._session.writing():
            if wanted:
                hand.set_bias(self._session, wanted, float(amount), author, reason)

    def undo(self, id: int, *, author: str = "", reason: str = "") -> Hand:
        """Take back what a hand did last to a row, and is not taken back yet: what that was."""
        with self._session.writing():
            told = self.history(id)
            back = taken_back(id, self.hands(id), told[-1].version, self.name)
            if back.version:
                hand.put_next(self._session, id, again(told[back.version - 1]), author, reason, undone=back)
            else:
                hand.set_bias(self._session, (id,), back.amount, author, reason, undone=back)
        return back.hand

    def note(self, name: str, value: str) -> None:
        """Keep such a fact; an empty value takes it away."""
        check_said(name, value)
        with self._session.writing():

            def make(state: State) -> State:
                kept = {key: told for key, told in state.notes.items() if key != name}
                return replace(state, notes={**kept, **({name: value} if value else {})})

            self._ledger.change(make)

    def adopt(self, records: Sequence[Record], hands: Sequence[Hand] = ()) -> None:
        """Keep rows of another store as they stand there, with ids, versions, biases and times: all or none."""
        versions = by_id(records, self.width, self.value_width)
        if not all(np.isfinite([one.time, one.written]).all() and one.bias < np.inf for one in records):
            raise InputError("times are finite numbers, and a bias is a number or -inf")
        check_said(*(words for one in hands for words in (one.author, one.reason)))
        low, high = min(versions, default=0), max(versions, default=-1) + 1
        after = max([high, *(one.id + 1 for one in hands)])
        if after > MOST_ID:
            raise InputError(f"a cluster keeps ids up to {MOST_ID}, not {after - 1}: append the rows as new ones")
        norm = max((hand.longest(one.key[None]) for one in records), default=0.0)
        largest = max((told[-1].bias for told in versions.values()), default=0.0)
        with self._session.writing():

            def begin(state: State, token: str) -> tuple[State, Intent]:
                state = hand.retaken(self._session, state, [id for id in versions if id < state.next], (low, high))
                numbers = (state.hands, state.hands + len(hands))
                more = {"low": min(low, high), "high": high, "hands": numbers}
                state = replace(state, next=max(state.next, after), hands=numbers[1])
                state = replace(state, norm=max(state.norm, norm), bias=max(state.bias, largest))
                return state.opened("append", "doing", token, **more)

            with self._ledger.doing(begin) as intent:
                last = {id: told[-1].version for id, told in versions.items()}
                self._put((one for told in versions.values() for one in told), intent, last)
                told = ((one.what, one.id, one.amount, one.author, one.reason, one.time) for one in hands)
                for some in parts(hand_point(intent.hands[0] + i, *one) for i, one in enumerate(told)):
                    self._states.put(some)

    def forget(self, ids: Ids, *, author: str = "", reason: str = "") -> Receipt:
        """Erase rows and all their versions: from then on nobody finds them.

        When the engine and its backups let go of their bytes is told in what is `owed`.
        """
        wanted = tuple(dict.fromkeys(whole(ids)))
        check_said(author, reason)
        versions = 0
        with self._session.writing():
            if not wanted:
                return Receipt(0, 0, ())

            def begin(state: State, token: str) -> tuple[State, Intent]:
                nonlocal versions
                self._session.there(state, wanted)
                found = (
                    self._rows.count(points.live(state, Where(ids=tuple(some)), old=True)) for some in chunks(wanted)
                )
                versions = sum(found)
                hands = (state.hands, state.hands + len(wanted))
                state = replace(state, hands=hands[1])
                return state.opened("forget", "settling", token, ids=wanted, hands=hands, author=author, reason=reason)

            intent = self._ledger.noted(begin)
            self._session.keys.clear()
            owed, copies = [upkeep.OWED.format(self.name)], []
            try:
                self._ledger.finish(intent)
                copies, late = upkeep.forget_in_copies(self._states, wanted)
                owed += late
            except StoreError as error:
                owed.append(f"the rows are out of sight, and deleted with the next write: {error}")
        searched = (self._rows.collection, self._states.collection, *copies)
        return Receipt(len(wanted), versions, searched, tuple(owed))

    # --------------------------------------------------------------------------------------------------------- reading

    def get(self, ids: Ids) -> list[Record]:
        """Rows as they are now, in the order of the ids."""
        wanted = whole(ids)
        with self._session.reading() as state:
            found: dict[int, Record] = {}
            for some in chunks(list(dict.fromkeys(wanted))):
                which = points.live(state, Where(ids=tuple(some)))
                found |= {one.id: one for one in points.rows(self._rows, which, state)}
            self._session.check_there(state, wanted, found)
            return [found[id] for id in wanted]

    def history(self, id: int) -> list[Record]:
        """All versions of a row, oldest first; the last is the present one."""
        with self._session.reading() as state:
            wanted = whole([id])
            told = points.rows(self._rows, points.live(state, Where(ids=tuple(wanted)), old=True), state)
            self._session.check_there(state, wanted, {one.id for one in told})
            return told

    def ids(self, where: Where | None = None) -> np.ndarray:
        """The ids of rows, rising."""
        with self._session.reading() as state:
            return np.array(sorted({int(one.payload["id"]) for one in self._seen(state, where)}), np.int64)

    def scan(
        self, queries: np.ndarray, *, top: int = 10, rules: Rules | None = None, where: Where | None = None
    ) -> Found:
        """The best rows for queries [q, d], and the log-mass of all that was addressed."""
        asked = checked_queries(queries, top, self.width, self.name)
        where = Where(ids=()) if points.empty(where) else where
        with self._session.reading() as state:
            keys = self._session.keys
            return scan(Look(self._rows, state, asked, top, rules or Rules(), where, self.whole, self.exact, keys))

    def matches(self, text: str, *, top: int = 100, where: Where | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The rows whose texts share words with a text: ids [k] int64 and their BM25 [k], best first."""
        with self._session.reading() as state:
            words = self._words.asked(text)
            if not words or top < 1 or points.empty(where):
                return np.empty(0, np.int64), np.empty(0)
            found = self._rows.by_words(words, points.live(state, where), top, payload=["id"])
            scores = {int(one.payload["id"]): one.score for one in found}
            best = sorted(scores, key=lambda id: (-scores[id], id))
            return np.array(best, np.int64), np.array([scores[id] for id in best])

    def notes(self) -> dict[str, str]:
        """Small facts that are kept with the rows, such as which encoder makes the keys."""
        with self._session.reading() as state:
            return dict(sorted(state.notes.items()))

    def vectors(self, where: Where | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Ids [n], keys [n, d] and values [n, e] (None where rows have none) of rows, in the order of their ids."""
        names = list(self._session.widths)
        with self._session.reading() as state:
            rows = {int(one.payload["id"]): one.vectors for one in self._seen(state, where, names)}
            ids = sorted(rows)
            found = {
                name: np.array([rows[id][name] for id in ids], np.float32).reshape(len(ids), width)
                for name, width in self._session.widths.items()
            }
            return np.array(ids, np.int64), found["key"], found.get("value")

    def hands(self, id: int | None = None) -> list[Hand]:
        """What was done to a row by hand, or to all rows, oldest first."""
        with self._session.reading() as state:
            return upkeep.hands(self._states, state, id)

    def stats(self) -> Stats:
        """How large it is; the engine does not tell its bytes."""
        with self._session.reading() as state:
            rows = self._rows.count(points.live(state))
            versions = self._rows.count(points.live(state, old=True)) - rows
            return Stats(rows, versions, self.width, self.value_width, SCHEMA, 0, state.next)

    # ---------------------------------------------------------------------------------------------------------- upkeep

    def snapshot(self, path: Path) -> Path:
        """A copy of the store as it is now, an embedded one in a file of its own.

        `forget` reaches it as long as it stays there, from the machine that made it.
        """
        path = Path(path)
        if path.exists():
            raise InputError(f"{path} is there already: give a new name")
        with self._session.writing():
            state = self._ledger.read()
            held = points.rows(self._rows, points.live(state, old=True), state)
            told = upkeep.hands(self._states, state, None)
            upkeep.write_copy(self._states, path, state, held, told)
            # Whoever forgot a row before the copy had its name could not reach it there.
            upkeep.drop_from_copy(path, {one.id for one in held} - {*self.ids().tolist()})
        return path

    def check(self) -> list[str]:
        """Compare everything with everything: what is wrong, in words; nothing = all is well."""
        with self._session.reading() as state:
            return upkeep.check(self._rows, self._states, state)

    def close(self) -> None:
        """Let go of the connection, where it was opened here."""
        self._session.close()

    # ----------------------------------------------------------------------------------------------- what is behind it

    def _put(self, records: Iterable[Record], intent: Intent, last: dict[int, int] | None = None) -> None:
        """Write rows in parts. `last`: the present version of each; None = there is one only."""
        since = time.monotonic()

        def made() -> Iterator[Point]:
            for one in records:
                current = last is None or one.version == last[one.id]
                words = self._words.of([one.text])[0] if current else {}
                yield points.point(one, words, current=current, stamp=intent.stamp)

        for some in parts(made()):
            self._rows.put(some)
            if time.monotonic() - since > STALE / 4:
                self._ledger.still(intent)
                since = time.monotonic()

    def _seen(self, state: State, where: Where | None, names: Sequence[str] = ()) -> Iterator[Point]:
        if points.empty(where):
            return
        width = sum(self._session.widths[name] for name in names)
        for page in self._rows.pages(points.live(state, where), payload=["id"], vectors=names, width=width):
            yield from page
