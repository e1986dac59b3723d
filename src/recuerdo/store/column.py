"""A column beside the database: one row of numbers for each place, mapped into memory. A cache, never the truth.

    header (4,096 bytes): what it belongs to, and up to where it can be trusted     row 0     row 1     …

A writer puts rows here before the database commits them. Both carry a token that is new with every transaction; the
header keeps the last two. So whoever opens finds out by one comparison whether the column belongs to the database as
it is: after a kill between the two, the database has the token before. After a loss of power, which the boot number
tells, only rows that were synced are trusted, and the others are compared with the database.
"""

import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from recuerdo.errors import StoreError

MAGIC, VERSION, HEADER = b"RECUERDO", 1, 4096
LAYOUT = struct.Struct("<8sII16s16s16sQ16s")  # magic, version, bytes a row, generation, two tokens, synced, boot
CRC = struct.Struct("<I")
NOTHING = bytes(16)
ROOM = 2**18  # bytes of zeros behind the last row


@dataclass
class _Head:
    row: int
    generation: bytes
    before: bytes
    token: bytes
    synced: int
    boot: bytes

    def packed(self) -> bytes:
        told = LAYOUT.pack(MAGIC, VERSION, self.row, self.generation, self.before, self.token, self.synced, self.boot)
        return told + CRC.pack(zlib.crc32(told))

    @classmethod
    def read(cls, fd: int) -> "_Head | None":
        """The header of a file, None where it is no header of ours or is torn."""
        told = os.pread(fd, LAYOUT.size + CRC.size, 0)
        if len(told) < LAYOUT.size + CRC.size or CRC.unpack(told[LAYOUT.size :])[0] != zlib.crc32(told[: LAYOUT.size]):
            return None
        magic, version, row, generation, before, token, synced, boot = LAYOUT.unpack(told[: LAYOUT.size])
        return cls(row, generation, before, token, synced, boot) if (magic, version) == (MAGIC, VERSION) else None


@cache
def boot_number() -> bytes:
    """A number of this run of the machine; of zeros where the system does not tell."""
    try:
        return bytes.fromhex(
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", "")
        )
    except (OSError, ValueError):
        return NOTHING


class Column:
    """One open column of `width` numbers of `dtype` a row. Not for two threads at once."""

    def __init__(self, path: Path, dtype: str, width: int, generation: bytes, *, write: bool):
        """Opens the file, and makes it where there is none and `write`. Raises OSError where it cannot."""
        self.path, self.dtype, self.width, self.generation = path, np.dtype(dtype), width, generation
        self.row = self.dtype.itemsize * width
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT if write else os.O_RDONLY, 0o600)
        self._name, self._node = os.fspath(path), os.fstat(self._fd).st_ino
        self._size = os.fstat(self._fd).st_size
        self._map: mmap.mmap | None = None
        self._rows = np.empty((0, width), self.dtype)
        self._head = _Head(self.row, generation, NOTHING, NOTHING, 0, NOTHING)

    @property
    def current(self) -> bool:
        """Whether the file under this name is still the one that is open."""
        try:
            return os.stat(self._name).st_ino == self._node
        except OSError:
            return False

    def trusted(self, token: bytes, n: int) -> int:
        """How many of the first n rows are what the database with this token says: the others must be put again."""
        head = _Head.read(self._fd)
        if head is None or (head.row, head.generation) != (self.row, self.generation):
            return 0
        there = max(0, os.fstat(self._fd).st_size - HEADER) // max(1, self.row)
        if token not in (head.before, head.token):
            return 0
        self._head = head
        awake = head.boot != NOTHING and head.boot == boot_number()
        return min(n, there, n if awake else head.synced)

    def put(self, place: int, rows: np.ndarray) -> None:
        """Write rows from a place on. Raises OSError, after which what stands there is not to be trusted."""
        data = np.ascontiguousarray(rows, self.dtype).reshape(-1).view(np.uint8).data
        at = HEADER + place * self.row
        while data:
            done = os.pwrite(self._fd, data, at)
            data, at = data[done:], at + done
        if at > self._size:  # room for the next rows: a file that grows with each makes the disk wait for its size
            self._size = max(at, os.fstat(self._fd).st_size)
            if at == self._size:
                self._size += os.pwrite(self._fd, bytes(ROOM), at)

    def put_apart(self, first: int, told: Sequence[tuple[int, np.ndarray | float | None]], n: int) -> None:
        """Write single rows at rising places, and zeros at all others from `first` to n.

        A write that came to nothing may have left something there; behind the end of the file zeros come by themselves.
        """
        at, size = HEADER + first * self.row, os.fstat(self._fd).st_size
        while at < size:
            at += os.pwrite(self._fd, bytes(min(size - at, ROOM)), at)
        places = np.array([place for place, _ in told], np.int64)
        rows = np.array([row for _, row in told], self.dtype).reshape(len(told), self.width)
        for run in np.split(np.arange(len(told)), np.flatnonzero(np.diff(places) > 1) + 1):
            if len(run):
                self.put(int(places[run[0]]), rows[run])
        if n > places.max(initial=first - 1) + 1:
            self.put(n - 1, np.zeros((1, self.width), self.dtype))

    def wipe(self, places: np.ndarray) -> None:
        """Write zeros over rows, on the disk."""
        for place in places.tolist():
            os.pwrite(self._fd, bytes(self.row), HEADER + place * self.row)
        os.fsync(self._fd)

    def mark(self, before: bytes, token: bytes) -> None:
        """Say that what was put belongs to the transaction `token`, which follows `before`."""
        self._head.before, self._head.token, self._head.boot = before, token, boot_number()
        os.pwrite(self._fd, self._head.packed(), 0)

    def sync(self, n: int) -> None:
        """Bring the first n rows to the disk, and say so."""
        os.fsync(self._fd)
        self._head.synced = n
        os.pwrite(self._fd, self._head.packed(), 0)
        os.fsync(self._fd)

    def rows(self, n: int) -> np.ndarray:
        """The first n rows as they stand in the file, [n, width], to be read only."""
        if len(self._rows) < n:
            size = os.fstat(self._fd).st_size
            there = max(0, size - HEADER) // max(1, self.row)
            if there < n:
                raise StoreError(f"{self.path} ends too early: open the memory again, it is made anew")
            self._map = mmap.mmap(self._fd, size, access=mmap.ACCESS_READ)  # the one before lives as long as its views
            flat = np.frombuffer(self._map, self.dtype, there * self.width, HEADER)
            self._rows = flat.reshape(there, self.width)
        return self._rows[:n]

    def close(self) -> None:
        """Let go of the file; views that were handed out stay good."""
        self._rows, self._map = self._rows[:0], None
        with suppress(OSError):
            os.close(self._fd)


class Copy:
    """The rows of a column once more, in the memory of this process.

    There they lie on large pages, which a mapped file does not: a pass over many rows is faster.
    """

    def __init__(self) -> None:
        self._held, self._n = np.empty((0, 0), np.float32), 0

    def rows(self, mapped: np.ndarray, alive: np.ndarray) -> np.ndarray:
        """What is mapped [n, d], with zeros where a row is not alive [n]; new rows are copied first."""
        n, have = len(mapped), self._n
        if n > len(self._held):
            room = np.empty((n + n // 8, mapped.shape[1]), mapped.dtype)
            if have:
                room[:have] = self._held[:have]
            self._held = room
        if n > have:
            self._held[have:n] = mapped[have:]
            self._held[have:n][~alive[have:]] = 0
            self._n = n
        return self._held[:n]

    def wipe(self, place: int) -> None:
        """Let go of a row that is no longer read."""
        if place < self._n:
            self._held[place] = 0
