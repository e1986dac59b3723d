"""What a cluster knows of a memory as a whole: one point that is only written under the condition that nobody else did.

A cluster has no transactions. The state is one point, and the engine writes a point under a condition ("if the number
of changes is still 41") as a whole or not at all. So whatever takes several steps is first noted in the state as an
intent, and the last write of the state is what makes it so:

    doing       rows are being written; readers leave them out. A crash here = it never was.
    settling    it is so; readers see it so. What is left to be done can be done by anybody, twice, or later.
    void        it was given up; readers leave its points out as long as a late write may still arrive.
"""

import json
import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from recuerdo.errors import StoreError
from recuerdo.store.cluster_engine import Condition, Engine, Point, among, both, equals, parts, these, within

SCHEMA = 1
STATE = str(uuid.UUID(int=1))  # the point of the state; hands and copies have points of their own
KEPT = 64  # tokens of the last changes, by which a writer sees that its own was among them
SOON, STALE, OVER = 2.0, 120.0, 86_400.0  # seconds: after which others settle; void; forget an intent of a dead writer
MANY = 1000  # ids in one condition


@dataclass(frozen=True)
class Intent:
    """Something that takes several steps: ids, or the range low <= id < high; hands[0] <= number of a hand < hands[1].

    `new` and `old` are the points of the versions of an update. `undo`: it takes something back. `stamp` is the
    change in which it was noted; it was asked for at the time `when`, and at `since` its writer was alive.
    """

    token: str
    what: str
    phase: str
    since: float
    when: float
    stamp: int
    ids: tuple[int, ...] = ()
    low: int = 0
    high: int = 0
    hands: tuple[int, int] = (0, 0)
    new: str = ""
    old: str = ""
    amount: float = 0.0
    author: str = ""
    reason: str = ""
    undo: bool = False


@dataclass(frozen=True)
class State:
    """`next` id and `hands` to be given, the longest key (`norm`) and largest `bias` ever kept, facts, intents."""

    width: int
    value_width: int
    next: int = 0
    hands: int = 0
    norm: float = 0.0
    bias: float = 0.0
    change: int = 0
    notes: dict[str, str] = field(default_factory=dict)
    recent: tuple[str, ...] = ()
    intents: tuple[Intent, ...] = ()

    @cached_property
    def pending(self) -> dict[int, float]:
        """Biases that are so, and may not have reached their rows yet."""
        return {id: one.amount for one in self.intents if one.what == "bias" for id in one.ids}

    def intent(self, token: str) -> Intent | None:
        """An intent that is still open."""
        return next((one for one in self.intents if one.token == token), None)

    def opened(self, what: str, phase: str, token: str, **more: Any) -> tuple["State", Intent]:
        """The same with an intent more."""
        one = Intent(token, what, phase, time.time(), time.time(), self.change + 1, **more)
        return replace(self, intents=(*self.intents, one)), one

    def without(self, token: str) -> "State":
        """The same with an intent less."""
        return replace(self, intents=tuple(one for one in self.intents if one.token != token))

    def moved(self, token: str, **to: Any) -> "State":
        """The same with an intent in another phase."""
        return replace(self, intents=tuple(replace(one, **to) if one.token == token else one for one in self.intents))

    def busy(self, ids: Sequence[int]) -> int | None:
        """A row of these that somebody is changing."""
        taken = {id for one in self.intents if one.phase != "void" for id in one.ids}
        return next((id for id in ids if id in taken), None)


class Busy(Exception):
    """A row that another process is changing just now."""


class Ledger:
    """Reads and writes the state, and finishes or undoes what was begun."""

    def __init__(self, states: Engine, rows: Engine, *, wait: float):
        """`states` and `rows` are the two collections; `wait`: seconds to wait for other writers."""
        self.states, self.rows, self.wait = states, rows, wait
        self._mine: set[str] = set()  # what this process is in the middle of
        self._left: set[str] = set()  # what it could not bring to an end

    # ----------------------------------------------------------------------------------------------------------- state

    def found(self) -> State | None:
        """The state as it is now; None = none yet. Raises StoreError for one of another version."""
        told = self.states.one(STATE)
        if told is None:
            return None
        if told.payload.get("schema") != SCHEMA:
            is_of = f"is of version {told.payload.get('schema')}, and this recuerdo knows {SCHEMA}"
            raise StoreError(f"the memory {self.states.name} {is_of}: use the recuerdo that made it, or a newer one")
        try:
            given = json.loads(told.payload["told"])
            intents = tuple(
                Intent(**{**one, "ids": tuple(one["ids"]), "hands": tuple(one["hands"])}) for one in given["intents"]
            )
            return State(**{**given, "recent": tuple(given["recent"]), "intents": intents})
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"the state of {self.states.name} is damaged ({error}): restore it from a backup"
            ) from None

    def read(self) -> State:
        """The state as it is now."""
        state = self.found()
        if state is None:
            raise StoreError(f"the state of {self.states.name} is gone: restore it from a backup")
        return state

    def create(self, state: State) -> None:
        """Write the first state, if nobody did meanwhile."""
        self.states.put([_point(state)], only=equals("change", -1))

    def change(self, make: Callable[[State], State]) -> State:
        """Write what is made of the state, made anew as often as somebody else was faster; returns what was written."""
        until = time.monotonic() + self.wait
        while True:
            state = self.read()
            if self._tend(state):
                continue
            try:
                made = make(state)
            except Busy as busy:
                if time.monotonic() > until:
                    what = f"another process is changing row {busy} of {self.rows.name}"
                    raise StoreError(f"{what}: wait for it, and try again") from None
                time.sleep(0.05)
                continue
            if (written := self._swap(state, made)) is not None:
                return written
            if time.monotonic() > until:
                raise StoreError(f"many processes write into {self.rows.name}: wait for them, and try again")
            time.sleep(random.uniform(0, 0.05))

    def _swap(self, old: State, new: State) -> State | None:
        token = uuid.uuid4().hex
        new = replace(new, change=old.change + 1, recent=(*old.recent, token)[-KEPT:])
        self.states.put([_point(new)], only=equals("change", old.change))
        return new if token in self.read().recent else None

    # --------------------------------------------------------------------------------------------------------- intents

    @contextmanager
    def doing(self, begin: Callable[[State, str], tuple[State, Intent]]) -> Iterator[Intent]:
        """An intent that is noted, then what the block does for it, then it is so; or it never was.

        An update settles, others are simply done. Where only the answer to the last write was lost, it is so.
        """
        intent = self.noted(begin)
        self._mine.add(intent.token)
        try:
            yield intent
            self.change(lambda state: self._so(state, intent))
        except BaseException as error:
            if not self._undo(intent) or not isinstance(error, Exception):
                raise
        finally:
            self._mine.discard(intent.token)

    def noted(self, begin: Callable[[State, str], tuple[State, Intent]]) -> Intent:
        """Note an intent. `begin` makes the state with it, and it, of a state and a token."""
        token = uuid.uuid4().hex
        made: list[Intent] = []

        def make(state: State) -> State:
            new, intent = begin(state, token)
            made[:] = [intent]
            return new

        try:
            self.change(make)
        except BaseException:
            if made:
                self._left.add(token)
            raise
        return made[0]

    def still(self, intent: Intent) -> None:
        """Say that a long write is still going on, so that nobody takes it for dead."""
        self.change(lambda state: state.moved(intent.token, since=time.time()))

    def _so(self, state: State, intent: Intent) -> State:
        told = state.intent(intent.token)
        if told is None or told.phase != "doing":
            raise StoreError(f"writing into {self.rows.name} took too long, and was undone: try again with fewer rows")
        return state.moved(intent.token, phase="settling") if intent.what == "update" else state.without(intent.token)

    def _undo(self, intent: Intent) -> bool:
        """Give an intent up: whether it was so already."""
        try:
            state = self.read()
            told = state.intent(intent.token)
            if told is None or told.phase == "settling":
                return True
            self._void(intent)
        except StoreError:
            self._left.add(intent.token)
        return False

    def _void(self, intent: Intent) -> None:
        gone = replace(intent, phase="void")

        def make(state: State) -> State:
            told = state.intent(intent.token)
            return state.moved(intent.token, phase="void") if told and told.phase == "doing" else state

        state = self._write(make)
        if (told := state.intent(intent.token)) and told.phase == "void":
            self._sweep(gone)

    def _write(self, make: Callable[[State], State]) -> State:
        """`change` without tending to others: it is what tends."""
        until = time.monotonic() + max(self.wait, SOON)
        while time.monotonic() <= until:
            state = self.read()
            if (written := self._swap(state, make(state))) is not None:
                return written
            time.sleep(random.uniform(0, 0.05))
        raise StoreError(f"many processes write into {self.rows.name}: wait for them, and try again")

    def _sweep(self, intent: Intent) -> None:
        """Delete the points of what never was."""
        if intent.high > intent.low:
            self.rows.delete(both([begun(intent)]))
        if intent.new:
            self.rows.delete(both([these([intent.new])]))
        if intent.hands[1] > intent.hands[0]:
            self.states.delete(both([equals("kind", "hand"), within("number", *intent.hands)]))

    def _tend(self, state: State) -> bool:
        """Bring to an end what others, or this process before, left behind: whether there was anything."""
        now, did = time.time(), False
        for one in state.intents:
            age = now - one.since
            if one.token in self._mine:
                continue
            if one.phase == "settling" and (age > SOON or one.token in self._left):
                self.finish(one)
            elif one.phase == "doing" and (age > STALE or one.token in self._left):
                self._void(one)
            elif one.phase == "void" and age > OVER:
                self._sweep(one)
                self._write(lambda state, one=one: state.without(one.token))
            else:
                continue
            self._left.discard(one.token)
            did = True
        return did

    def finish_all(self) -> None:
        """Settle all that is so; on opening, when the writer of it may have died a moment ago."""
        for one in self.read().intents:
            if one.phase == "settling":
                self.finish(one)

    def finish(self, intent: Intent) -> None:
        """Do what is left of an intent that settles. Done twice or late, it does no harm."""
        try:
            if intent.what == "update":
                self.rows.flag({"current": False, **bias_fields(0.0, intent.stamp)}, both([these([intent.old])]))
                self.rows.unword([intent.old])
            elif intent.what == "bias":
                for some in chunks(intent.ids):
                    # A later bias stands with its later stamp, should this one come late.
                    which = [among("id", some), equals("current", True), within("stamp", None, intent.stamp)]
                    self.rows.flag(bias_fields(intent.amount, intent.stamp), both(which))
                self.note_hands(intent)
            else:
                for some in chunks(intent.ids):
                    self.rows.delete(both([among("id", some)]))
                    # What was said of it by hand may repeat what it was.
                    earlier = [equals("kind", "hand"), among("id", some), within("number", None, intent.hands[0])]
                    self.states.flag({"reason": ""}, both(earlier))
                self.note_hands(intent)
        except BaseException:
            self._left.add(intent.token)
            raise
        try:
            self._write(lambda state: state.without(intent.token))
        except StoreError:  # all is done, only not crossed out: whoever writes next does it once more
            self._left.add(intent.token)

    def note_hands(self, intent: Intent) -> None:
        """Note what was done by hand; what is noted already stays, for a forget may have blanked it since."""
        for some in parts(hand_points(intent)):
            self.states.put(some, only=equals("number", -1))


def begun(intent: Intent) -> Condition:
    """The points of rows that an intent writes; others may have taken their ids since it was given up."""
    return both([within("id", intent.low, intent.high), within("stamp", intent.stamp, intent.stamp + 1)])


def bias_fields(amount: float, stamp: int) -> dict[str, Any]:
    """The fields of a row's bias. It is told as text: JSON knows no -inf."""
    return {"bias": repr(float(amount)), "biased": amount != 0, "muted": amount == float("-inf"), "stamp": stamp}


def hand_point(number: int, what: str, id: int, amount: float | None, author: str, reason: str, when: float) -> Point:
    """The point of what was done by hand."""
    payload: dict[str, Any] = {"kind": "hand", "number": number, "id": id, "what": what, "author": author}
    payload |= {"reason": reason, "exact": json.dumps([amount, when])}
    return Point(str(uuid.UUID(int=(1 << 64) + number)), payload)


def hand_points(intent: Intent) -> Iterator[Point]:
    """The points of what an intent does by hand."""
    amount = intent.amount if intent.what == "bias" else None
    what = "undo" if intent.undo else "correct" if intent.what == "update" else intent.what
    for i, id in enumerate(intent.ids):
        yield hand_point(intent.hands[0] + i, what, id, amount, intent.author, intent.reason, intent.when)


def chunks(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Ids in parts that fit into one condition."""
    return (ids[i : i + MANY] for i in range(0, len(ids), MANY))


def _point(state: State) -> Point:
    return Point(STATE, {"kind": "state", "schema": SCHEMA, "change": state.change, "told": json.dumps(asdict(state))})
