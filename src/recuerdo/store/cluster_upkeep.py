"""The upkeep of a memory in a cluster: what was done by hand, snapshots, and its comparison with itself."""

import json
import os
import platform
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recuerdo.errors import StoreError
from recuerdo.store.cluster_engine import Engine, Point, both, equals
from recuerdo.store.cluster_points import live, unseen_hands
from recuerdo.store.cluster_state import STALE, State, hand_points
from recuerdo.store.embedded import Embedded
from recuerdo.store.record import Hand, Record

OWED = (
    "the engine of {} has deleted the points; their bytes stay in its segments until its optimizer has rewritten them, "
    "in its write-ahead log until that is cut, and in backups by its own snapshots until you delete those"
)


def hands(states: Engine, state: State, id: int | None) -> list[Hand]:
    """What was done to a row by hand, or to all rows, oldest first."""
    which = seen = unseen_hands(state)
    if id is not None:
        must = seen.must if isinstance(seen.must, list) else []
        but = seen.must_not if isinstance(seen.must_not, list) else []
        which = both([*must, equals("id", int(id))], but)
    found: dict[int, dict[str, Any]] = {
        one.payload["number"]: one.payload for page in states.pages(which) for one in page
    }
    for intent in state.intents:  # what is so already, should it not be noted yet
        if intent.phase == "settling":
            late = (one.payload for one in hand_points(intent) if id in (None, one.payload["id"]))
            found = {one["number"]: one for one in late} | found
            if intent.what == "forget":
                for number, one in found.items():
                    if number < intent.hands[0] and one["id"] in intent.ids:
                        one["reason"] = ""
    told = []
    for _, one in sorted(found.items()):
        amount, when = json.loads(one["exact"])
        told.append(Hand(one["what"], one["id"], amount, one["author"], one["reason"], when))
    return told


# ------------------------------------------------------------------------------------------------------------ snapshots


def write_copy(states: Engine, path: Path, state: State, held: Sequence[Record], told: Sequence[Hand]) -> None:
    """Write rows and hands into an embedded memory, which is noted before it has its name."""
    half = path.with_name(f"{path.name}.part")
    _remove(half)
    try:
        with Embedded(half, width=state.width, value_width=state.value_width) as copy:
            copy.adopt(held, told)
            for name, value in state.notes.items():
                copy.note(name, value)
        with open(half, "rb") as file:
            os.fsync(file.fileno())
        where = {"path": str(path.absolute()), "host": platform.node()}
        point = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(where))
        states.put([Point(str(point), {"kind": "copy", "time": time.time(), **where})])
        half.replace(path)
    except OSError as error:
        raise StoreError(f"{path} could not be written ({error.strerror}): look at its folder and its disk") from error
    finally:
        _remove(half)


def _remove(half: Path) -> None:
    """A half copy and the files beside it, which are caches: the copy makes them again."""
    for name in ("", "-keys", "-times", "-values", "-wal", "-shm"):
        half.with_name(half.name + name).unlink(missing_ok=True)


def drop_from_copy(path: Path, ids: Iterable[int]) -> list[str]:
    """Forget rows in a snapshot: what could not be done, in words."""
    wanted = {*ids}
    if not wanted:
        return []
    try:
        with Embedded(path) as copy:
            return list(copy.forget(sorted(wanted & {*copy.ids().tolist()})).owed)
    except StoreError as error:
        return [str(error)]


def forget_in_copies(states: Engine, ids: Iterable[int]) -> tuple[list[str], list[str]]:
    """Forget rows in the snapshots that are still there: their paths, and what could not be done."""
    wanted, paths, owed = list(ids), [], []
    found = [one.payload for page in states.pages(both([equals("kind", "copy")])) for one in page]
    for one in sorted(found, key=lambda one: one["path"]):
        paths.append(one["path"])
        if one["host"] != platform.node():
            owed.append(f"a snapshot on the machine {one['host']}, {one['path']}: forget the rows there too")
        elif Path(one["path"]).is_file():
            owed += drop_from_copy(Path(one["path"]), wanted)
    return paths, owed


# ---------------------------------------------------------------------------------------------------------------- check


def check(rows: Engine, states: Engine, state: State) -> list[str]:
    """What is wrong with a memory, in words."""
    wrong = [f"an unfinished {one.what} is {time.time() - one.since:.0f} seconds old: open the memory for writing"
             for one in state.intents if one.phase != "void" and time.time() - one.since > STALE]  # fmt: skip
    versions: dict[int, list[tuple[int, bool]]] = {}
    old = {one.old for one in state.intents if one.phase == "settling"}
    n, widths = 0, {"key": state.width} | ({"value": state.value_width} if state.value_width else {})
    for page in rows.pages(live(state, old=True), vectors=list(widths), width=sum(widths.values())):
        for one in page:
            n += 1
            versions.setdefault(int(one.payload["id"]), []).append(
                (int(one.payload["version"]), bool(one.payload["current"]) and one.id not in old)
            )
            wrong += _check_point(one, widths, state)
    for id, told in sorted(versions.items()):
        told.sort()
        if [version for version, _ in told] != list(range(1, len(told) + 1)):
            wrong.append(f"row {id} has the versions {[version for version, _ in told]}")
        elif [present for _, present in told] != [False] * (len(told) - 1) + [True]:
            wrong.append(f"the present version of row {id} is not its last")
    if (counted := rows.count(live(state, old=True))) != n:
        wrong.append(f"the engine counts {counted} versions, and gives {n}")
    if beyond := rows.count(both([], [live(state, old=True)])) - _hidden(rows, state):
        wrong.append(f"{beyond} points are beyond what the state knows")
    numbers = [one.payload["number"] for page in states.pages(both([equals("kind", "hand")])) for one in page]
    if numbers and max(numbers) >= state.hands:
        wrong.append("something done by hand is beyond what the state knows")
    return wrong


def _check_point(one: Point, widths: dict[str, int], state: State) -> list[str]:
    told, wrong = one.payload, []
    bias, name = float(told["bias"]), f"row {told['id']}, version {told['version']}"
    if (told["biased"], told["muted"]) != (bias != 0, bias == float("-inf")):
        wrong.append(f"the bias of {name} is {bias}, and its flags say otherwise")
    if {key: len(vector) for key, vector in one.vectors.items()} != widths:
        wrong.append(f"{name} has not the vectors of the memory")
    elif np.linalg.norm(one.vectors["key"].astype(np.float64)) > state.norm or bias > max(0.0, state.bias):
        wrong.append(f"{name} has a longer key or a larger bias than the state knows")
    return wrong


def _hidden(rows: Engine, state: State) -> int:
    """Points that readers leave out on purpose."""
    shown = State(state.width, state.value_width, state.next)
    return rows.count(live(shown, old=True)) - rows.count(live(state, old=True))
