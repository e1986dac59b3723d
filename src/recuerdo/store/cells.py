"""The index of approximate scans: keys once more, those that are alike side by side, in one file beside the database.

    header (4,096 bytes)     table: of each cell its mean and its reach, of each row its place     row 0     row 1     …

It is a cache of the first places of a memory and is never the truth. File and database carry one token, which is new
with every index and whenever rows are overwritten in it; a file that has another one, or whose table does not have the
sum that its header tells, is not used. Rows that are no longer read stay in the table, and whoever looks leaves them
out; rows that were forgotten are overwritten, and their cells are measured again without them.
"""

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAGIC, VERSION, HEADER = b"RECUCELL", 2, 4096
LAYOUT = struct.Struct("<8sII16s16s16sQQQI")  # magic, version, width, generation, two tokens, places, cells, rows, sum
CRC = struct.Struct("<I")
REACH = ("radius", "low", "high", "longest", "scatter", "spread", "first", "last")
RADIUS, LOW, HIGH, LONGEST, SCATTER, SPREAD, FIRST, LAST = range(len(REACH))
SLACK = 1e-5  # what float32 may have rounded away of a length
SHARES = 1001  # quantiles that are kept


@dataclass(eq=False)
class Table:
    """What is known of m cells over n rows of width d.

    `means` [m, d] float32; `reach` [m, 8] float64, see `measured`; `starts` [m + 1] int64, where the rows of a cell
    begin; `members` [n] int64, the places of rows in the order of the file, -1 = overwritten; `shares`
    [SHARES] float64, quantiles of the share of all rows that is read, cell by cell, until one of the best is.
    """

    means: np.ndarray
    reach: np.ndarray
    starts: np.ndarray
    members: np.ndarray
    shares: np.ndarray

    def packed(self) -> bytes:
        """All of it, one array after the other."""
        return b"".join(
            np.ascontiguousarray(x).tobytes() for x in (self.means, self.reach, self.starts, self.members, self.shares)
        )

    @classmethod
    def size(cls, m: int, n: int, d: int) -> int:
        """Bytes of a table."""
        return 4 * m * d + 8 * (len(REACH) * m + m + 1 + n + SHARES)

    @classmethod
    def unpacked(cls, data: bytes, m: int, n: int, d: int) -> "Table":
        """What `packed` made, as arrays of its own."""
        flat = np.frombuffer(data, "<f8", offset=4 * m * d).copy()
        whole = flat.view("<i8")
        a, b, c = len(REACH) * m, len(REACH) * m + m + 1, len(REACH) * m + m + 1 + n
        means = np.frombuffer(data, "<f4", m * d).reshape(m, d).copy()
        return cls(means, flat[:a].reshape(m, len(REACH)), whole[a:b], whole[b:c], flat[c:])


def measured(rows: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of rows [c, d] and the times [c] they speak of: their mean [d] float32, and how far they reach from it [8].

    `radius`: the largest distance from the mean; `low`, `high`: the least and the largest part of a row along the mean;
    `longest`: the largest length; `scatter`: what the mean square along any direction, from the mean, is at most (the
    largest eigenvalue of the covariance is at most the fourth root of the sum of their fourth powers); `spread`: the
    root of the mean square of the distances; `first`, `last`: times. No rows: all zeros.
    """
    if not len(rows):
        return np.zeros(rows.shape[1], np.float32), np.zeros(len(REACH))
    mean = rows.mean(0, dtype=np.float64).astype(np.float32)
    off = rows - mean
    far = np.sqrt(np.einsum("ij,ij->i", off, off, dtype=np.float64))
    long = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    along = rows.astype(np.float64) @ (mean / max(float(np.linalg.norm(mean)), 1e-30)).astype(np.float64)
    square = off @ off.T if len(rows) < rows.shape[1] else off.T @ off
    scatter = float(np.sqrt(np.linalg.norm(square.astype(np.float64) @ square))) / len(rows)
    slack = SLACK * long.max()
    return mean, np.array(
        [
            far.max() + slack,
            along.min() - slack,
            along.max() + slack,
            long.max() + slack,
            scatter * (1 + 1e-3) + slack**2,
            float(np.sqrt((far**2).mean())),
            times.min(),
            times.max(),
        ]
    )


class Cells:
    """An open index: its table, and its rows mapped into memory."""

    def __init__(self, path: Path, fd: int, head: tuple, table: Table):
        self.path, self.table = path, table
        _, _, self.width, self.generation, _, self.token, self.places, _, n, _ = head
        self._node = os.fstat(fd).st_ino
        first = _first_row(len(table.means), n, self.width)
        if n:
            self._map = mmap.mmap(fd, first + 4 * self.width * n, access=mmap.ACCESS_READ)
            self.rows = np.frombuffer(self._map, "<f4", n * self.width, first).reshape(n, self.width)
        else:
            self.rows = np.empty((0, self.width), np.float32)
        self.lengths = np.linalg.norm(table.means.astype(np.float64), axis=1)
        # Place -> its cell, for what is changed later.
        self.cell_of = np.full(self.places, -1, np.int32)
        there = table.members >= 0
        self.cell_of[table.members[there]] = np.repeat(np.arange(len(table.means)), np.diff(table.starts))[there]

    @property
    def current(self) -> bool:
        """Whether the file under this name is still the one that is open."""
        try:
            return os.stat(self.path).st_ino == self._node
        except OSError:
            return False

    @classmethod
    def opened(cls, path: Path, generation: bytes, token: bytes | None, places: int, *, wiping: bool) -> "Cells | None":
        """The index in a file, None where there is none that belongs to the database with this generation and token.

        `wiping`: rows wait to be overwritten, so that a writer may have been stopped in the middle of it.
        """
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        try:
            told = os.pread(fd, LAYOUT.size + CRC.size, 0)
            if len(told) < LAYOUT.size + CRC.size or CRC.unpack(told[LAYOUT.size :])[0] != zlib.crc32(
                told[: LAYOUT.size]
            ):
                return None
            head = LAYOUT.unpack(told[: LAYOUT.size])
            magic, version, d, mine, before, now, n0, m, n, total = head
            if (magic, version, mine) != (MAGIC, VERSION, generation) or n0 > places:
                return None
            if token is None or (token != now and not (wiping and token == before)):
                return None
            size = Table.size(m, n, d)
            data = b"".join(_pages(fd, HEADER, size))
            if len(data) < size or zlib.crc32(data) != total:
                return None
            if os.fstat(fd).st_size < _first_row(m, n, d) + 4 * d * n:
                return None
            return cls(path, fd, head, Table.unpacked(data, m, n, d))
        finally:
            os.close(fd)

    def wipe(self, places: np.ndarray, times: np.ndarray, token: bytes) -> None:
        """Overwrite what is known of places, on the disk; the cells are measured again, and the file has a new token.

        `times` [n] are those of all places. A kill in the middle leaves a table that does not have its sum.
        """
        table, fd = self.table, os.open(self.path, os.O_RDWR)
        try:
            gone = np.flatnonzero(np.isin(table.members, places))
            first = _first_row(len(table.means), len(table.members), self.width)
            for at in gone.tolist():
                os.pwrite(fd, bytes(4 * self.width), first + 4 * self.width * at)
            table.members[gone] = -1
            for cell in np.unique(np.searchsorted(table.starts, gone, "right") - 1).tolist():
                some = np.arange(int(table.starts[cell]), int(table.starts[cell + 1]))
                some = some[table.members[some] >= 0]
                mean, reach = measured(self.rows[some], times[table.members[some]])
                table.means[cell], table.reach[cell] = mean, reach
                self.lengths[cell] = np.linalg.norm(mean.astype(np.float64))
            data = table.packed()
            _put(fd, HEADER, data)
            os.fsync(fd)
            _put(fd, 0, _header(self.generation, self.token, token, self.places, table, data))
            os.fsync(fd)
            self.token = token
        finally:
            os.close(fd)


def written(path: Path, generation: bytes, token: bytes, places: int, table: Table, keys: np.ndarray) -> None:
    """Make the file of an index over the first places; `keys` [places, d] are taken cell by cell."""
    d = keys.shape[1]
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        data = table.packed()
        at = _first_row(len(table.means), len(table.members), d)
        for first in range(0, len(table.members), 2**14):
            rows = np.ascontiguousarray(keys[table.members[first : first + 2**14]], "<f4")
            _put(fd, at + 4 * d * first, rows.reshape(-1).view(np.uint8).data)
        _put(fd, HEADER, data)
        _put(fd, 0, _header(generation, token, token, places, table, data))
        os.ftruncate(fd, max(os.fstat(fd).st_size, at + 4 * d * len(table.members)))
        os.fsync(fd)
    finally:
        os.close(fd)


def _header(generation: bytes, before: bytes, token: bytes, places: int, table: Table, data: bytes) -> bytes:
    (m, d), n = table.means.shape, len(table.members)
    told = LAYOUT.pack(MAGIC, VERSION, d, generation, before, token, places, m, n, zlib.crc32(data))
    return told + CRC.pack(zlib.crc32(told))


def _first_row(m: int, n: int, d: int) -> int:
    """Where the rows begin: at a page of its own."""
    return -(-(HEADER + Table.size(m, n, d)) // 4096) * 4096


def _put(fd: int, at: int, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        done = os.pwrite(fd, left, at)
        left, at = left[done:], at + done


def _pages(fd: int, at: int, size: int) -> Iterator[bytes]:
    while size > 0:  # one call does not read more than 2 GB
        part = os.pread(fd, min(size, 2**28), at)
        if not part:
            return
        yield part
        at, size = at + len(part), size - len(part)
