"""A damaged file of an embedded store, read as far as it goes: rows, versions, biases, the journal, facts.

Rows are known by their shape, on whatever page they stand (`recuerdo.store.pages`). Where the tables beside them are
damaged, what is left says the most likely: a row's present version is its last, its bias what hands did last.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from recuerdo.errors import InputError, StoreError
from recuerdo.store.column import HEADER
from recuerdo.store.pages import Pages, Torn, Value
from recuerdo.store.record import Hand, Record, Rows, whole

DONE = ("correct", "bias", "undo", "forget")
Spot = tuple[int, int]  # page, and which row of it


@dataclass(frozen=True)
class Lost:
    """What a damaged file does not give any more: rows of which nothing is left, how many versions of others, and
    rows that are there but not as they were, with what is wrong; pages of the log that were damaged; and whether it is
    still known how many rows there were, without which the last ones may be lost unsaid."""

    rows: tuple[int, ...]
    versions: int
    doubtful: dict[int, str]
    frames: int
    counted: bool


class Broken:
    """What can be read of a damaged memory; the reading half of `recuerdo.store.contract.Store`."""

    def __init__(self, path: Path):
        """Looks at every page. Raises StoreError for a file in which there is no row."""
        self.path = Path(path)
        try:
            self._pages = Pages(self.path)
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror}): look at its name and its rights") from None
        self._spots: dict[int, dict[int, list[tuple[int, Spot]]]] = {}  # id -> version -> places and spots
        self._rows: dict[int, tuple[int | None, int, float]] = {}  # id -> place, version, bias
        self._old: dict[int, int] = {}
        self._hands: dict[int, Hand] = {}
        self._notes: dict[str, str] = {}
        self._places, self._generation = 0, b""
        sizes: Counter[tuple[int, int]] = Counter()
        for number in range(1, self._pages.count + 1):
            for at, rowid, told in self._pages.rows(number):
                if size := self._take(rowid, told, (number, at)):
                    sizes[size] += 1
        if not sizes:
            self.close()
            raise StoreError(f"{path} has no row that could be read: take a snapshot or a backup")
        bytes_of_key, bytes_of_value = sizes.most_common(1)[0][0]
        self.width, self.value_width = bytes_of_key // 4, bytes_of_value // 4
        self._cache = self._cached()
        self._erased = {hand.id for hand in self._hands.values() if hand.what == "forget"}
        self._set = {hand.id: hand.amount for hand in self.hands() if hand.amount is not None}
        self.doubtful: dict[int, str] = {}
        self._told = {id: told for id in sorted(self._spots) if (told := self._versions(id))}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._pages.close()

    def ids(self) -> np.ndarray:
        """The ids of rows, rising."""
        return np.array(list(self._told), np.int64)

    def get(self, ids: Sequence[int] | np.ndarray) -> list[Record]:
        """Rows as they are now, in the order of the ids."""
        return [self.history(id)[-1] for id in whole(ids)]

    def history(self, id: int) -> list[Record]:
        """All versions of a row that could be read, oldest first, numbered from 1 on."""
        told = self._told[int(id)]
        return [
            self._record(int(id), version, spot, self._bias(id) if version == len(told) else 0.0)
            for version, (_, spot) in enumerate(told, 1)
        ]

    def hands(self) -> list[Hand]:
        """What was done by hand, oldest first."""
        return [hand for _, hand in sorted(self._hands.items())]

    def notes(self) -> dict[str, str]:
        """Small facts."""
        return dict(sorted(self._notes.items()))

    @property
    def lost(self) -> Lost:
        """What could not be read."""
        places = {place for told in self._told.values() for place, _ in told}
        owner = {row[0]: id for id, row in self._rows.items() if row[0] is not None}
        top = max([self._places, *(place + 1 for place in places), *(place + 1 for place in owner)])
        forgotten = {id for id, row in self._rows.items() if row[0] is None}
        rows, versions = set(), 0
        for place in range(top):
            id = self._old.get(place, owner.get(place, place))
            if place in places or id == -1 or id in forgotten:
                continue
            versions += id in self._told
            rows |= set() if id in self._told else {id}
        return Lost(
            tuple(sorted(rows)),
            versions,
            dict(sorted(self.doubtful.items())),
            self._pages.bad_frames,
            bool(self._generation),
        )

    # ----------------------------------------------------------------------------------------------- what is behind it

    def _take(self, rowid: int, told: list[Value], spot: Spot) -> tuple[int, int] | None:
        """Know a row by its shape; of a version, how many bytes its key and value have."""
        match told:
            case [None, int(id), int(version), time, written, str(), str(), str(), bytes(key), None | bytes() as value]:
                if 0 <= id <= rowid and version > 0 and _is_number(time) and _is_number(written) and key:
                    self._spots.setdefault(id, {}).setdefault(version, []).append((rowid, spot))
                    return len(key), len(value or b"")
            case [None, None | int() as place, int(version), int() | float() as bias, int()]:
                if bias < math.inf:
                    self._rows[rowid] = (place, version, float(bias))
            case [None, int(id), int()]:
                self._old[rowid] = id
            case [None, str(what), int(id), amount, str(author), str(reason), int() | float() as time] if what in DONE:
                if (amount is None or _is_number(amount) or amount == -math.inf) and _is_number(time):
                    said = None if amount is None else float(str(amount))
                    self._hands[rowid] = Hand(what, id, said, str(author), str(reason), float(time))
            case [str(name), str(value)]:
                self._notes[name] = value
            case [None, int(), bytes(generation), int(), int(), int(places), int(), int()]:
                self._places, self._generation = places, generation
        return None

    def _versions(self, id: int) -> list[tuple[int, Spot]]:
        """Places and spots of the versions of a row, oldest first; what is odd about the row is noted."""
        place, present, _ = self._rows.get(id, (id, 0, 0.0))
        if place is None and id in self._erased:
            return []
        chosen = {version: max(found, key=self._trust(id, version)) for version, found in self._spots[id].items()}
        chosen = {version: one for version, one in sorted(chosen.items()) if self._trust(id, version)(one)}
        versions = list(chosen)
        if not versions:
            return []
        for version, (_, spot) in chosen.items():
            self._record(id, version, spot, 0.0)
        if place is None:  # only one of two tables says so
            self.doubtful[id] = "it may have been forgotten"
        elif versions[-1] < present:
            self.doubtful[id] = f"version {present} is lost, and version {versions[-1]} stands in its place"
        elif versions != list(range(1, len(versions) + 1)):
            self.doubtful[id] = "an earlier version is lost"
        return list(chosen.values())

    def _trust(self, id: int, version: int) -> Callable[[tuple[int, Spot]], int]:
        """How far what stands at a place is to be taken for a version: 0 = the number of another row was damaged."""

        def trust(found: tuple[int, Spot]) -> int:
            place, spot = found
            if place in (id, self._rows.get(id, (None,))[0]) or self._old.get(place) == id:
                return 2
            if version == 1 or place >= len(self._cache) > 0:
                return 0
            key = self._pages.row(*spot)[1][8]
            return int(not len(self._cache) or key == self._cache[place].tobytes())

        return trust

    def _record(self, id: int, version: int, spot: Spot, bias: float) -> Record:
        place, (_, _, _, time, written, author, tags, text, key, value) = self._pages.row(*spot)
        if isinstance(text, Torn):
            self.doubtful[id] = "bytes of its text are lost"
        try:
            labels = tuple(json.loads(str(tags))) if tags else ()
            Rows(np.zeros((1, 1)), [str(text)], tags=[labels], author=str(author))
        except (InputError, TypeError, ValueError):
            self.doubtful[id], labels, author = "its tags and its author are lost", (), ""
        found = self._key(id, place, key), self._vector(value, self.value_width) if self.value_width else None
        if self.value_width and found[1] is None:
            self.doubtful[id] = "its value is lost"
            found = found[0], np.zeros(self.value_width, np.float32)
        return Record(id, version, *found, str(text), labels, str(author), _float(time), _float(written), bias)

    def _key(self, id: int, place: int, data: Value) -> np.ndarray:
        """The key of a version, compared with the cache beside the file, which may help out."""
        key = self._vector(data, self.width)
        cached = self._cache[place] if place < len(self._cache) and np.isfinite(self._cache[place]).all() else None
        if key is not None and (cached is None or np.array_equal(key, cached)):
            return key
        if key is not None:
            self.doubtful[id] = "its key is another one than in the cache beside the memory"
            return key
        if cached is not None and cached.any():
            self.doubtful[id] = "its key is that of the cache beside the memory"
            return np.array(cached)
        self.doubtful[id] = "its key is lost: correct the row, and it gets another one"
        return np.zeros(self.width, np.float32)

    def _cached(self) -> np.ndarray:
        """The keys of the cache beside the file, where it is of this memory."""
        path, row = self.path.with_name(f"{self.path.name}-keys"), 4 * self.width
        try:
            with open(path, "rb") as file:
                known = file.read(32)[16:] == self._generation
            n = (path.stat().st_size - HEADER) // row
            if known and n > 0:
                return np.memmap(path, "<f4", "r", HEADER, (n, self.width))
        except OSError:
            pass
        return np.empty((0, self.width), np.float32)

    def _vector(self, data: Value, width: int) -> np.ndarray | None:
        if not isinstance(data, bytes) or len(data) != 4 * width:
            return None
        found = np.frombuffer(data, "<f4")
        return found if np.isfinite(found).all() else None

    def _bias(self, id: int) -> float:
        return self._rows[id][2] if id in self._rows else self._set.get(id, 0.0)


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _float(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
