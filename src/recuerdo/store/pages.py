"""The pages of an SQLite file, read without SQLite: for damaged files (https://www.sqlite.org/fileformat2.html).

SQLite goes from the root of a table down, and a damaged page hides all that hangs on it. Here every page is looked at
by itself, and the leaves of tables give their rows. Nothing is written, beside the file neither.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

LEAF, HEADER = 13, 100
SIZES = (8192, 4096)  # of the pages of our files, today's first
FRAME, WAL_HEADER, WAL_MAGIC = 24, 32, 0x377F0682
MOST = 2**27  # bytes of a row; the longest text is half of that
Value = int | float | str | bytes | None


class Torn(str):
    """A text some of whose bytes are no Unicode."""


class Damaged(Exception):
    """What stands here is no row."""


class Pages:
    """The pages of a file as it was last committed, with what its write-ahead log holds; numbered from 1."""

    def __init__(self, path: Path):
        """Raises OSError for a file that cannot be read."""
        self._data = _mapped(path)
        log = path.with_name(f"{path.name}-wal")
        self._log = _mapped(log) if log.is_file() else b""
        told = int.from_bytes(self._data[16:18], "big")
        known = 65_536 if told == 1 else told if told in (512, 1024, 2048, 4096, 8192, 16_384, 32_768) else 0
        # Where the head does not say the size of pages, the size with more rows is it.
        self.size = known or max(SIZES, key=self._rows_by)
        self.bad_frames = 0
        self._newer = self._committed()
        self.count = max([len(self._data) // self.size, *self._newer])

    def page(self, number: int) -> bytes:
        """One page. Raises Damaged for one that is not there."""
        at, source = (number - 1) * self.size, self._data
        if number in self._newer:
            at, source = self._newer[number], self._log
        found = source[at : at + self.size]
        if number < 1 or len(found) < self.size:
            raise Damaged
        return found

    def rows(self, number: int) -> Iterator[tuple[int, int, list[Value]]]:
        """The rows on a page: where, rowid and values; none where it is no leaf of a table, or nothing makes sense."""
        try:
            page = self.page(number)
        except Damaged:
            return
        start = HEADER if number == 1 else 0
        if page[start] != LEAF:
            return
        n = int.from_bytes(page[start + 3 : start + 5], "big")
        for i in range(min(n, self.size // 4)):
            at = int.from_bytes(page[start + 8 + 2 * i : start + 10 + 2 * i], "big")
            try:
                yield at, *self.row(number, at)
            except Damaged:
                continue

    def row(self, number: int, at: int) -> tuple[int, list[Value]]:
        """The row at a byte of a page: rowid and values. Raises Damaged where there is none."""
        try:
            return self._row(self.page(number), at)
        except (IndexError, struct.error):
            raise Damaged from None

    def _rows_by(self, size: int) -> int:
        """How many rows there are in the file itself, with pages of a size."""
        self.size, self._newer = size, {}
        return sum(1 for number in range(1, len(self._data) // size + 1) for _ in self.rows(number))

    def close(self) -> None:
        """Let go of the files."""
        for one in (self._data, self._log):
            if isinstance(one, mmap.mmap):
                one.close()

    def _row(self, page: bytes, at: int) -> tuple[int, list[Value]]:
        length, at = _varint(page, at)
        rowid, at = _varint(page, at)
        if not 0 < length <= MOST:
            raise Damaged
        most, least = self.size - 35, (self.size - 12) * 32 // 255 - 23
        here = length
        if length > most:  # the rest is on pages of its own
            here = least + (length - least) % (self.size - 4)
            here = here if here <= most else least
        told = bytearray(page[at : at + here])
        after = int.from_bytes(page[at + here : at + here + 4], "big") if here < length else 0
        while len(told) < length:
            more = self.page(after)
            after = int.from_bytes(more[:4], "big")
            told += more[4 : 4 + length - len(told)]
        return rowid - (rowid >> 63 << 64), _values(bytes(told))

    def _committed(self) -> dict[int, int]:
        """Page -> where in the log its newest committed state is; frames whose checksum is wrong are counted."""
        found: dict[int, int] = {}
        waiting: dict[int, int] = {}
        if len(self._log) < WAL_HEADER:
            return found
        magic, _, size, _, *salts = struct.unpack(">6I", self._log[:24])
        if magic & ~1 != WAL_MAGIC or size != self.size:
            return found
        order = ">" if magic & 1 else "<"
        before = struct.unpack(">2I", self._log[24:32])
        for at in range(WAL_HEADER, len(self._log) - FRAME - size + 1, FRAME + size):
            number, commits, *told = struct.unpack(">6I", self._log[at : at + FRAME])
            if told[:2] != salts:
                break
            data = self._log[at : at + 8] + self._log[at + FRAME : at + FRAME + size]
            if _checksum(data, order, before) == tuple(told[2:]):
                waiting[number] = at + FRAME
                if commits:
                    found |= waiting
                    waiting = {}
            else:
                self.bad_frames += 1
            before = (told[2], told[3])  # also of a bad one: what comes after may be good
        return found


def _mapped(path: Path) -> mmap.mmap | bytes:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    found = 0
    for i in range(8):
        byte = data[at + i]
        found = found << 7 | byte & 0x7F
        if byte < 0x80:
            return found, at + i + 1
    return found << 8 | data[at + 8], at + 9


def _values(told: bytes) -> list[Value]:
    """The values of a record. Raises Damaged where lengths do not fit."""
    end, at = _varint(told, 0)
    kinds = []
    while at < end:
        kind, at = _varint(told, at)
        kinds.append(kind)
    if at != end:
        raise Damaged
    found: list[Value] = []
    for kind in kinds:
        value, at = _value(told, kind, at)
        found.append(value)
    if at != len(told):
        raise Damaged
    return found


def _value(told: bytes, kind: int, at: int) -> tuple[Value, int]:
    if kind in (0, 8, 9):
        return (None if kind == 0 else kind - 8), at
    if kind < 8:
        n = (0, 1, 2, 3, 4, 6, 8, 8)[kind]
        data = told[at : at + n]
        return (struct.unpack(">d", data)[0] if kind == 7 else int.from_bytes(data, "big", signed=True)), at + n
    if kind < 12:
        raise Damaged
    n = (kind - 12) // 2
    data = told[at : at + n]
    if len(data) < n:
        raise Damaged
    if kind % 2 == 0:
        return data, at + n
    try:
        return data.decode(), at + n
    except UnicodeDecodeError:
        return Torn(data.decode("utf-8", "replace")), at + n


def _checksum(data: bytes, order: str, before: tuple[int, int]) -> tuple[int, int]:
    one, two = before
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for x, y in zip(words[::2], words[1::2], strict=True):
        one = (one + x + two) & 0xFFFFFFFF
        two = (two + y + one) & 0xFFFFFFFF
    return one, two
