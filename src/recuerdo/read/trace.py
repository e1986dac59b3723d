"""What a read keeps, and what can be asked of it later.

A Reading holds its inputs and one number per row, the log-mass. From these every weight is exact on demand, and every
summary is itself a read or one pass over row blocks: nothing N x N is stored, whoever looks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recuerdo.errors import AddressError, ReadError, ShapeError
from recuerdo.read import summary
from recuerdo.read.merge import Part
from recuerdo.read.pairing import Pairing
from recuerdo.read.remix import Regions
from recuerdo.read.summary import Summary, Top


class Cache:
    """Keys and values that grow step by step (a generation): the readings of all steps look into the newest tensors."""

    def __init__(self, key: Tensor, value: Tensor):
        self.key, self.value = key, value


@dataclass(frozen=True, eq=False)
class Bent:
    """What bends made of a read: log-masses before and log-factors of every region, [b, h, q, r + 1], the rest last."""

    regions: Regions
    log_masses: Tensor
    log_factors: Tensor

    @property
    def before(self) -> Tensor:
        """The share of each query's weight on the keys of each bend, unbent: [b, h, q, r]."""
        return self._of_bends(self.log_masses)

    @property
    def after(self) -> Tensor:
        """The same in the bent read: [b, h, q, r]."""
        return self._of_bends(self.log_masses + self.log_factors)

    def _of_bends(self, log_masses: Tensor) -> Tensor:
        parts = log_masses[..., :-1].movedim(-1, 0)
        return torch.stack([self.regions.of_bend(parts, i) for i in range(len(self.regions.bends))], -1).exp()


class Reading:
    """One read: `mixed` [b, h, q, e], `lse` [b, h, q] (softmax only, else None), and the trace to ask more of.

    `path` says how it was computed, `address` where in a watched model.
    """

    def __init__(
        self,
        part: Part,
        pairing: Pairing,
        value: Tensor,
        *,
        path: str,
        kept: Callable[[], Tensor] | None = None,
        address: str = "",
    ):
        self._mixed: Tensor | None = part.mixed
        self.lse = part.lse if pairing.is_softmax else None
        self.path, self.address, self._kept = path, address, kept
        self.bent: Bent | None = None
        self._pairing, self._value = pairing, value
        self._cache: Cache | None = None
        self._keys = value.shape[2]

    def __repr__(self) -> str:
        where = f" at {self.address}" if self.address else ""
        return f"Reading{where}({' x '.join(map(str, self.shape))} weights [b, h, q, k], {self.path} path)"

    @property
    def mixed(self) -> Tensor:
        """The read values, [b, h, q, e]."""
        return summary.mix(self, self.value).to(self.value.dtype) if self._mixed is None else self._mixed

    def let_go_of_mixed(self) -> None:
        """Keep the trace only; `mixed` is read again when asked for. For looks at long texts that only need weights."""
        self._mixed = None

    @property
    def pairing(self) -> Pairing:
        """Queries, keys and the rules between them."""
        if self._cache is None:
            return self._pairing
        return self._pairing.with_tensors(self._pairing.query, self._cache.key[:, :, : self._keys])

    @property
    def kept(self) -> Tensor | None:
        """The weights, where the path had to make them anyway."""
        return None if self._kept is None else self._kept()

    @property
    def value(self) -> Tensor:
        """The values, [b, g, k, e]."""
        return self._value if self._cache is None else self._cache.value[:, :, : self._keys]

    def look_into(self, cache: Cache) -> None:
        """Let go of the own keys and values and use the first ones of a cache that holds the same."""
        nothing = self._value[:, :, :0].clone()
        self._pairing, self._value = self._pairing.with_tensors(self._pairing.query, nothing), nothing
        self._cache = cache

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[b, h, q, k]: batch, heads, queries, keys."""
        b, h, q, _ = self._pairing.shape
        return b, h, q, self._keys

    @property
    def part(self) -> Part:
        """(mixed, lse), to be merged with reads of other keys by the same queries. Softmax only."""
        if self.lse is None:
            name = type(self.pairing.normalise).__name__
            raise ReadError(f"{name} has no log-mass to merge by: reads merge under softmax only")
        return Part(self.mixed, self.lse)

    @property
    def weights(self) -> "Weights":
        """The weights, exact and lazy: `reading.weights[rows, cols]` -> [b, h, n, m]."""
        return Weights(self)

    def mass(self, regions: Tensor) -> Tensor:
        """The share of each query's weight on r regions of keys: regions [k, r] (or [b, 1, k, r]) -> [b, h, q, r].

        Regions may overlap and may be soft. O(N) memory, differentiable in query, key, bias and regions.
        """
        return summary.mass(self, regions)

    def log_mass(self, keys: Tensor) -> Tensor:
        """The log of the share of each query's weight on some keys, [k] or [b, k] bool: [b, h, q]; -inf = none seen.

        Under softmax of products it costs a read of these keys alone. Differentiable: made for losses on marks.
        """
        return summary.log_mass(self, keys)

    def received(self, rows: Tensor | None = None) -> Tensor:
        """What every key receives, summed over the queries: [b, h, k]. `rows` [.., q] weighs the queries."""
        return summary.received(self, rows)

    def diagonal(self) -> Tensor:
        """The weight that every query gives to its own position: [b, h, q] (see recuerdo.read.mask for positions)."""
        return summary.diagonal(self)

    def entropy(self) -> Tensor:
        """How widely each query reads, in nats: [b, h, q]; 0 = one key only. Differentiable under softmax."""
        return summary.entropy(self)

    def top(self, k: int = 8) -> Top:
        """The k strongest keys of every query: weights and indices, each [b, h, q, k]; weight 0 has index -1."""
        return summary.summarise(self, top=k, bins=0).top

    def overview(self, bins: int = 64) -> Tensor:
        """The mean weights in a grid of at most `bins` x `bins` equal parts of queries and keys: [b, h, r, c].

        Query i lies in part floor(i * r / q), key j in part floor(j * c / k); a cell is the mean over its queries of
        the mass on its keys, so rows sum to one.
        """
        return summary.summarise(self, top=0, bins=bins).overview

    def summary(self, *, top: int = 8, bins: int = 64) -> Summary:
        """Entropy, received mass, the `top` strongest keys and the overview, in one pass over the rows."""
        return summary.summarise(self, top=top, bins=bins)


class Weights:
    """The weight matrix of a read, any rectangle of it exact on demand; indexed by [rows, cols]."""

    def __init__(self, reading: Reading):
        self._reading = reading

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[b, h, q, k]."""
        return self._reading.shape

    def __getitem__(self, index: object) -> Tensor:
        """Rows and columns as slices or integers (an integer keeps its axis): [b, h, n, m]."""
        if not isinstance(index, tuple) or len(index) != 2:
            raise ShapeError("weights are asked for by two indices: weights[rows, cols], such as weights[10:20, :]")
        rows = _as_slice(index[0], self.shape[2], "row")
        cols = _as_slice(index[1], self.shape[3], "column")
        return summary.weights(self._reading, rows, cols)

    def __repr__(self) -> str:
        return f"Weights(shape={self.shape}, exact on demand: weights[rows, cols])"


def _as_slice(index: object, size: int, what: str) -> slice:
    if isinstance(index, slice):
        start, stop, step = index.indices(size)
        if step != 1:
            raise ShapeError(f"{what}s are asked for in one piece, not in steps of {step}: index the result instead")
        return slice(start, max(start, stop))
    if not isinstance(index, int):
        raise ShapeError(f"{what}s are asked for by a slice or a number, not by {type(index).__name__}")
    at = index + size if index < 0 else index
    if not 0 <= at < size:
        raise AddressError(f"there is no {what} {index}: this read has {size}")
    return slice(at, at + 1)
