"""Maps that hold only what can be seen: rows of cells, every cell of at least `floor`."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Sparse:
    """Row r has the columns `index[start[r]:start[r+1]]`, ascending, with `value`; any other cell is below `floor`."""

    shape: tuple[int, int]
    start: np.ndarray  # [rows + 1]
    index: np.ndarray  # [cells]
    value: np.ndarray  # [cells] float32
    floor: float
    signed: bool = False

    @classmethod
    def of(cls, dense: np.ndarray, floor: float, *, signed: bool = False) -> "Sparse":
        """The cells of a dense map [rows, cols] that are at least `floor` in size."""
        seen = np.abs(dense) >= max(floor, 1e-12)
        row, col = np.nonzero(seen)
        start = np.concatenate([[0], np.cumsum(seen.sum(1))])
        return cls((dense.shape[0], dense.shape[1]), start, col, dense[row, col].astype(np.float32), floor, signed)

    @classmethod
    def stacked(cls, parts: list["Sparse"], columns: int) -> "Sparse":
        """Maps over the same columns, one below the other."""
        starts, before = [np.zeros(1, np.int64)], 0
        for part in parts:
            starts.append(part.start[1:] + before)
            before += part.start[-1]
        return cls(
            (sum(p.shape[0] for p in parts), columns),
            np.concatenate(starts),
            np.concatenate([p.index for p in parts]) if parts else np.zeros(0, np.int64),
            np.concatenate([p.value for p in parts]) if parts else np.zeros(0, np.float32),
            max((p.floor for p in parts), default=0.0),
            any(p.signed for p in parts),
        )

    def at_most(self, cells: int) -> "Sparse":
        """The same map with a floor so high that at most so many cells are left."""
        if len(self.value) <= cells:
            return self
        size = np.abs(self.value)
        floor = float(
            np.nextafter(np.partition(size, len(size) - cells - 1)[len(size) - cells - 1], np.float32(np.inf))
        )
        keep = size >= floor
        row = np.repeat(np.arange(self.shape[0]), np.diff(self.start))[keep]
        start = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=self.shape[0]))])
        return Sparse(self.shape, start, self.index[keep], self.value[keep], floor, self.signed)

    def row(self, r: int) -> np.ndarray:
        """A row written out, [cols]."""
        out = np.zeros(self.shape[1], np.float32)
        part = slice(self.start[r], self.start[r + 1])
        out[self.index[part]] = self.value[part]
        return out

    def dense(self) -> np.ndarray:
        """All of it, [rows, cols]; cells below the floor are 0."""
        return (
            np.stack([self.row(r) for r in range(self.shape[0])]) if self.shape[0] else np.zeros(self.shape, np.float32)
        )
