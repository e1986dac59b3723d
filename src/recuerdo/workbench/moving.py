"""Move a memory from any store to any other: rows with ids, versions, biases and times, the journal, the facts.

The source stays as it is. A move may be killed at any moment: the target knows of it, and the same call goes on where
it was. At its end everything is read again from both sides and compared.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recuerdo.errors import InputError, StoreError
from recuerdo.store.broken import Broken, Lost
from recuerdo.store.contract import Store
from recuerdo.store.embedded import SPARSE_FREE
from recuerdo.store.record import Hand, Record
from recuerdo.workbench.opening import Place, open_store, place_of
from recuerdo.workbench.tags import TEXT, mark

TOGETHER = 256  # rows that are kept in one go
MOVING = "moving"  # the fact by which a memory is known that is still being moved: from where
Step = Callable[[str, int, int], None]
Source = Store | Broken


@dataclass(frozen=True)
class Moved:
    """What is in the target, compared with the source to the last bit: rows, versions of them, things done by hand."""

    rows: int
    versions: int
    hands: int


def move(source: str | Path, target: str | Path, *, step: Step | None = None) -> Moved:
    """Copy all of a memory into a new one, or go on with that, and compare both: what was compared.

    Raises InputError for a target that holds something else, and StoreError where the two differ in the end, as after a
    write into the source meanwhile; then the target is no copy, and says so to whoever opens it.
    """
    origin, goal = _whole(place_of(source)), _whole(place_of(target))
    if origin == goal:
        raise InputError(f"{origin} cannot be moved to itself: give another place")
    with (
        open_store(source, read_only=True) as old,
        open_store(target, width=old.width, value_width=old.value_width) as new,
    ):
        if MOVING in old.notes():
            raise InputError(f"{origin} is half of a move from {old.notes()[MOVING]}: finish that one first")
        return _moved(old, new, origin, goal, step)


def salvage(broken: Path, target: str | Path, *, step: Step | None = None) -> tuple[Moved, Lost]:
    """Copy what can still be read of a damaged file into a new memory, of any kind: what that was, and what is lost.

    Nothing of the damaged file is changed. Raises StoreError where nothing can be read of it, InputError for a target
    that holds something else.
    """
    goal = _whole(place_of(target))
    if goal == str(broken.resolve()):
        raise InputError(f"{broken} cannot be salvaged into itself: give another place")
    with Broken(broken) as old, open_store(target, width=old.width, value_width=old.value_width) as new:
        moved, lost = _moved(old, new, str(broken.resolve()), goal, step), old.lost
        odd = dict(lost.doubtful)
        for one in (one for some in batches(old.ids()) for one in new.get(some)):
            marks = [tag for tag in one.tags if tag.startswith(TEXT)]
            if marks and TEXT + mark("", one.text) not in marks:
                odd[one.id] = "its text is not as it was remembered"
    return moved, replace(lost, doubtful=dict(sorted(odd.items())))


def held(store: Source, ids: Sequence[int] | np.ndarray) -> list[Record]:
    """All versions of rows, in the order of the ids."""
    found = store.get(ids)
    return [one for now in found for one in ([now] if now.version == 1 else store.history(now.id))]


def batches(ids: np.ndarray) -> Iterator[np.ndarray]:
    """Rising ids in parts that a store adopts at once: few, and not far apart."""
    gaps = np.flatnonzero(np.diff(ids) > SPARSE_FREE // TOGETHER) + 1
    for run in np.split(ids, gaps):
        yield from (run[i : i + TOGETHER] for i in range(0, len(run), TOGETHER))


def same(one: Record, other: Record) -> bool:
    """Whether two records are alike to the last bit."""
    return _told(one) == _told(other)


def later(hands: Sequence[Hand], there: Sequence[Hand]) -> list[Hand]:
    """What of a journal is not there yet."""
    have, missing = Counter(there), []
    for hand in hands:
        have[hand] -= 1
        if have[hand] < 0:
            missing.append(hand)
    return missing


def _moved(old: Source, new: Store, origin: str, goal: str, step: Step | None) -> Moved:
    ids, there = old.ids(), new.ids()
    moving = new.notes().get(MOVING)
    if moving not in (None, origin):
        raise InputError(f"{goal} is half of a move from {moving}: finish that one, or give another place")
    if moving is None and len(there) and not np.array_equal(ids, there):
        raise InputError(f"{goal} holds other rows already: give a new place, or export and import the rows")
    if moving is not None or not len(there):
        new.note(MOVING, origin)
        _copy(old, new, ids[ids > there.max(initial=-1)], step)
    moved = _compared(old, new, ids, f"{goal} is not as {origin}", step)
    new.note(MOVING, "")
    return moved


def _copy(old: Source, new: Store, ids: np.ndarray, step: Step | None) -> None:
    done = 0
    for some in batches(ids):
        new.adopt(held(old, some))
        done += len(some)
        if step is not None:
            step("moving rows", done, len(ids))
    hands = later(old.hands(), new.hands())
    for i in range(0, len(hands), TOGETHER):
        new.adopt([], hands[i : i + TOGETHER])
    for name, value in _facts(old).items():
        new.note(name, value)


def _compared(old: Source, new: Store, ids: np.ndarray, wrong: str, step: Step | None) -> Moved:
    """Compare everything; `wrong` says what a difference means."""
    fix = "nobody may write there meanwhile; erase the new one, and move again"
    if not np.array_equal(ids, old.ids()) or not np.array_equal(ids, new.ids()):
        raise StoreError(f"{wrong}, which has other rows now: {fix}")
    done = versions = 0
    for some in batches(ids):
        ours, theirs = held(old, some), held(new, some)
        bad = [one.id for one, other in zip(ours, theirs, strict=False) if not same(one, other)]
        if bad or len(ours) != len(theirs):
            raise StoreError(f"{wrong}: row {bad[0] if bad else some[0]} differs; {fix}")
        versions += len(ours)
        done += len(some)
        if step is not None:
            step("comparing rows", done, len(ids))
    hands = old.hands()
    if hands != new.hands() or _facts(old) != _facts(new):
        raise StoreError(f"{wrong}: what hands did or the facts differ; {fix}")
    return Moved(len(ids), versions, len(hands))


def _facts(store: Source) -> dict[str, str]:
    return {name: value for name, value in store.notes().items() if name != MOVING}


def _told(one: Record) -> tuple[object, ...]:
    vectors = (one.key.tobytes(), None if one.value is None else one.value.tobytes())
    return (one.id, one.version, one.text, one.tags, one.author, one.time, one.written, one.bias, *vectors)


def _whole(place: Place) -> str:
    """A place as it is known from everywhere."""
    return place.name if place.path is None else str(place.path.resolve())
