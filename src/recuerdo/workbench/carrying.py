"""Export a memory to a file, and import such a file into a memory, a new one or one that has rows already.

Rows keep their numbers where these are free. Where not, they get the next ones, in the same order; the tags that name
other rows follow them, and they get a tag of their own by which the same file, imported again, is known. A row that is
there already stays as it is there.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from recuerdo.errors import InputError, NoMemory
from recuerdo.store.contract import Store
from recuerdo.store.record import Hand, Record, Rows, Where
from recuerdo.workbench import exported
from recuerdo.workbench.exported import Header
from recuerdo.workbench.moving import MOVING, TOGETHER, Step, batches, held, later
from recuerdo.workbench.opening import open_store, place_of
from recuerdo.workbench.tags import CAME, SAME

Encode = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Imported:
    """What became of a file: how many rows and versions are new, how many rows were there, how many things done by
    hand came along, which rows have other numbers now (old -> new), and whether keys were made anew."""

    rows: int
    versions: int
    known: int
    hands: int
    numbers: dict[int, int] = field(default_factory=dict)
    encoded: bool = False


def export_file(where: str | Path, path: Path, *, vectors: bool = False, step: Step | None = None) -> Header:
    """Write all of a memory to a .jsonl or .parquet file: what its first line says.

    Rows that others write meanwhile may be there or not. Raises InputError for another kind of file, StoreError for one
    that cannot be written.
    """
    with open_store(where, read_only=True) as store:
        ids = store.ids()
        facts = {name: value for name, value in store.notes().items() if name != MOVING}
        header = Header(store.width, store.value_width, vectors, len(ids), facts)

        def lines() -> Iterator[Record | Hand]:
            done = 0
            for some in batches(ids):
                there = some[np.isin(some, store.ids(Where(ids=tuple(some.tolist()))))]  # others may have forgotten
                yield from held(store, there)
                done += len(some)
                if step is not None:
                    step("exporting rows", done, len(ids))
            yield from store.hands()

        exported.write(path, header, lines())
    return header


def import_file(
    path: Path,
    where: str | Path,
    *,
    encoder: str = "",
    step: Step | None = None,
    progress: Callable[..., None] | None = None,
) -> Imported:
    """Keep the rows of an export with versions, biases, journal, tags and times. Stopped, it may be repeated.

    Keys are those of the file where it has them and the memory's encoder made them, else the memory's encoder makes
    them anew. `encoder` is that of a new memory; without it, the file's. Raises InputError for a file that is none, and
    for one whose rows the memory cannot keep.
    """
    header, lines = exported.read(path)
    with ExitStack() as stack:
        store, encode = _target(where, header, encoder, stack, progress)
        if store.value_width != (header.value_width if header.vectors else 0):
            raise InputError(
                f"the rows of {path} and of {place_of(where).name} have values of other widths: export with vectors, "
                "and import into a new memory"
            )
        work = _Import(store, encode, header.rows, step)
        batch: dict[int, list[Record]] = {}
        hands: list[Hand] = []
        last = -1
        for number, one in lines:
            if isinstance(one, Hand):
                hands.append(one)
                continue
            if hands or one.id < last:
                raise InputError(f"line {number} of {path} is out of order: rows by rising ids, then what hands did")
            if one.id != last and len(batch) == TOGETHER:
                work.keep(batch)
                batch = {}
            batch.setdefault(one.id, []).append(one)
            last = one.id
        work.keep(batch)
        return work.done(work.note(hands))


class _Import:
    """One run of an import: which number each row of the file has in the memory, and what was counted."""

    def __init__(self, store: Store, encode: Encode | None, rows: int, step: Step | None):
        self.store, self.encode, self.rows, self.step = store, encode, rows, step
        self.free = store.stats().next
        self.empty = self.free == 0
        self.numbers: dict[int, int] = {}
        self.differ: set[int] = set()  # rows of the file that were changed in the memory since they were kept
        self.new = self.versions = 0

    def keep(self, batch: dict[int, list[Record]]) -> None:
        """Keep rows (id -> versions), all or none."""
        there = {} if self.empty else self._known(batch)
        self.numbers |= there
        told: list[Record] = []
        for id, versions in batch.items():
            if id not in there:
                self.numbers[id] = max(id, self.free)
                self.free = self.numbers[id] + 1
                told += versions if self.numbers[id] == id else [self._renamed(one, versions[0]) for one in versions]
        if told:
            self.store.adopt(self._checked(told))
        self.new += len(batch) - len(there)
        self.versions += len(told)
        if self.step is not None:
            self.step("importing rows", len(self.numbers), self.rows)

    def note(self, hands: Sequence[Hand]) -> int:
        """Keep what of a journal belongs to the rows as they are in the memory, and is not there: how much."""
        here, renamed = {*self.store.ids().tolist()}, any(old != new for old, new in self.numbers.items())
        mine = []
        for hand in hands:
            id = self.numbers.get(hand.id)
            if id is not None and hand.id not in self.differ:
                mine.append(replace(hand, id=id))
            elif id is None and not renamed and hand.id not in here:
                mine.append(hand)  # of a row that was forgotten
        missing = later(mine, self.store.hands())
        for i in range(0, len(missing), TOGETHER):
            self.store.adopt([], missing[i : i + TOGETHER])
        return len(missing)

    def done(self, hands: int) -> Imported:
        """What became of all."""
        numbers = {old: new for old, new in self.numbers.items() if old != new}
        known = len(self.numbers) - self.new
        return Imported(self.new, self.versions, known, hands, numbers, self.encode is not None)

    def _known(self, batch: dict[int, list[Record]]) -> dict[int, int]:
        """The rows that are there already, under their numbers or under others: number in the file -> in the memory."""
        found: dict[int, int] = {}
        for id in self.store.ids(Where(ids=tuple(batch))).tolist():
            if _content(self.store.history(id)[0]) == _content(batch[id][0]):
                found[id] = id
        for id, (first, *_) in batch.items():
            if id not in found and len(other := self.store.ids(Where(tags=(_mark(first),)))):
                found[id] = int(other[0])
        for id, here in found.items():
            mine, theirs = self.store.history(here), batch[id]
            same = [one.text for one in mine] == [one.text for one in theirs] and mine[-1].bias == theirs[-1].bias
            self.differ |= set() if same else {id}
        return found

    def _renamed(self, one: Record, first: Record) -> Record:
        """A version under the number that its row gets; tags that name other rows follow these."""
        tags = [tag for tag in one.tags if not tag.startswith(SAME)]
        for tag in one.tags:
            number = tag.removeprefix(SAME)
            if tag != number and number.isdecimal() and (other := self.numbers.get(int(number))) is not None:
                tags.append(f"{SAME}{other}")
        came = [] if any(tag.startswith(CAME) for tag in tags) else [_mark(first)]
        return replace(one, id=self.numbers[one.id], tags=(*tags, *came))

    def _checked(self, told: list[Record]) -> list[Record]:
        """Records with the keys that they are kept with. Raises InputError for what no row may have."""
        texts = [one.text for one in told]
        keys = np.stack([one.key for one in told]) if self.encode is None else self.encode(texts)
        Rows(keys, texts, tags=[one.tags for one in told], times=[one.time for one in told])
        for author in {one.author for one in told}:
            Rows(keys[:0], author=author)
        return [replace(one, key=key) for one, key in zip(told, keys, strict=True)]


def _target(
    where: str | Path, header: Header, encoder: str, stack: ExitStack, progress: Callable[..., None] | None
) -> tuple[Store, Encode | None]:
    """The store that rows go to, and what makes their keys; None = the keys of the file are good."""
    from recuerdo.workbench.remembering import Memory  # late: whoever exports needs no model

    theirs = header.facts.get("encoder", "")
    fits = header.vectors and encoder in ("", theirs)
    try:
        store = stack.enter_context(open_store(where))
    except NoMemory:
        if fits:
            store = stack.enter_context(open_store(where, width=header.width, value_width=header.value_width))
            for name, value in header.facts.items():
                store.note(name, value)
            return store, None
        memory = stack.enter_context(Memory(where, encoder=encoder or theirs, progress=progress))
        return memory.store, memory.encoder.encode
    mine = store.notes()
    widths = (store.width, store.value_width) == (header.width, header.value_width)
    if fits and widths and all(mine.get(name) == header.facts.get(name) for name in ("encoder", "probe", MOVING)):
        return store, None
    stack.close()
    memory = stack.enter_context(Memory(where, encoder=encoder, progress=progress))
    return memory.store, memory.encoder.encode


def _content(one: Record) -> tuple[object, ...]:
    """By what a version is known again, whatever its number and its key."""
    return one.version, one.text, one.author, one.time, one.written


def _mark(first: Record) -> str:
    """The tag by which a row that was imported under another number is known again."""
    told = json.dumps([first.id, *_content(first)])
    return CAME + hashlib.sha256(told.encode()).hexdigest()[:20]
