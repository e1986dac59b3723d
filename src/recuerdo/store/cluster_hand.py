"""What hands do to rows of a cluster, and rows on their way there."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from recuerdo.errors import InputError, StoreError
from recuerdo.store import cluster_points as points
from recuerdo.store import cluster_upkeep as upkeep
from recuerdo.store.cluster_engine import Point, among, both, equals
from recuerdo.store.cluster_session import Session
from recuerdo.store.cluster_state import Intent, State, chunks
from recuerdo.store.record import Record, Rows, Where, whole
from recuerdo.store.refused import check_said
from recuerdo.store.undoing import Back, taken_back


def put_next(session: Session, id: int, rows: Rows, author: str, reason: str, *, undone: Back | None = None) -> int:
    """One row as the next version of another, whose number is returned."""
    check_said(author, reason)
    made: list[Point] = []

    def begin(state: State, token: str) -> tuple[State, Intent]:
        old = session.there(state, whole([id]))[int(id)]
        _check_last(session, state, id, undone)
        version, bias = int(old.payload["version"]) + 1, float(old.payload["bias"])
        one = next(records(rows, [(int(id), version, bias)]))
        words = session.words.of([one.text])[0]
        made[:] = [points.point(one, words, current=True, stamp=state.change + 1)]
        hands = (state.hands, state.hands + 1)
        state = replace(state, hands=hands[1], norm=max(state.norm, longest(rows.keys)))
        more = {"hands": hands, "new": made[0].id, "old": old.id, "author": author, "reason": reason}
        return state.opened("update", "doing", token, ids=(int(id),), undo=undone is not None, **more)

    with session.ledger.doing(begin) as intent:
        session.rows.put(made)
        session.ledger.note_hands(intent)
    with suppress(StoreError):  # it is so already, and the next write tries again
        session.ledger.finish(intent)
    return int(made[0].payload["version"])


def set_bias(
    session: Session, ids: tuple[int, ...], amount: float, author: str, reason: str, *, undone: Back | None = None
) -> None:
    """What is added to the logits of rows that are there."""
    check_said(author, reason)

    def begin(state: State, token: str) -> tuple[State, Intent]:
        session.there(state, ids)
        _check_last(session, state, ids[0], undone)
        hands = (state.hands, state.hands + len(ids))
        state = replace(state, hands=hands[1], bias=max(state.bias, amount))
        more = {"hands": hands, "amount": amount, "author": author, "reason": reason}
        return state.opened("bias", "settling", token, ids=ids, undo=undone is not None, **more)

    intent = session.ledger.noted(begin)
    with suppress(StoreError):  # it is so already, and the next write tries again
        session.ledger.finish(intent)


def _check_last(session: Session, state: State, id: int, undone: Back | None) -> None:
    """Whether what is to be undone is still the last thing that was done to a row."""
    if undone is None:
        return
    hands = upkeep.hands(session.states, state, id)
    versions = session.rows.count(points.live(state, Where(ids=(int(id),)), old=True))
    if taken_back(id, hands, versions, session.name) != undone:
        raise StoreError(f"another process is changing row {id} of {session.name}: wait for it, and try again")


def retaken(session: Session, state: State, ids: Sequence[int], span: tuple[int, int]) -> State:
    """The state in which ids that were given out may be adopted: those of a writer who did not come to its end.

    That one is given up, should it still be alive. Raises InputError for ids of rows that are there, or were.
    """
    for some in chunks(ids):
        hand = [equals("kind", "hand"), equals("what", "forget"), among("id", some)]
        pages = (session.rows.pages(points.live(state, Where(ids=tuple(some)))), session.states.pages(both(hand)))
        there, was = ({int(one.payload["id"]) for page in told for one in page} for told in pages)
        was |= {id for one in state.intents if one.what == "forget" for id in one.ids} & {*some}
        if there or was:
            id = min(there | was)
            raise InputError(f"row {id} of {session.name} is there already, or was: move into an empty memory")
    for one in state.intents:
        if ids and one.what == "append" and one.phase == "doing" and one.low < span[1] and one.high > span[0]:
            state = state.moved(one.token, phase="void")
    return state


def records(rows: Rows, named: Sequence[tuple[int, int, float]]) -> Iterator[Record]:
    """Rows as records with these ids, versions and biases."""
    now = time.time()
    for i, (id, version, bias) in enumerate(named):
        value = None if rows.values is None else rows.values[i]
        text, tags = rows.texts[i] if rows.texts else "", tuple(rows.tags[i]) if rows.tags else ()
        when = now if rows.times is None else float(rows.times[i])
        yield Record(id, version, rows.keys[i], value, text, tags, rows.author, when, now, bias)


def longest(keys: np.ndarray) -> float:
    """The norm of the longest key, rounded up."""
    return float(np.linalg.norm(keys.astype(np.float64), axis=1).max(initial=0.0)) * (1 + 1e-9)
