"""Masks and biases: who may read whom, and a thumb on the scale.

Both are kept as what they mean (causal, a window, lengths, slopes), never as an N x N tensor, and give any rectangle
on demand. Queries are the *last* positions of the keys: query i of q stands at key i + (k - q), as it does when a
language model goes on from its cache. So a causal mask with fewer queries than keys needs no offset argument.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from recuerdo.errors import ShapeError


@dataclass(frozen=True)
class Extent:
    """The size of the read a rectangle is cut from."""

    queries: int
    keys: int

    @property
    def offset(self) -> int:
        """The key position of query 0."""
        return self.keys - self.queries

    def positions(self, rows: slice, cols: slice, device: torch.device) -> tuple[Tensor, Tensor]:
        """Key positions of the rows, [n, 1], and of the columns, [m]."""
        at_rows = torch.arange(*rows.indices(self.queries), device=device)[:, None] + self.offset
        return at_rows, torch.arange(*cols.indices(self.keys), device=device)


def as_part(x: Tensor, dim: int, index: slice) -> Tensor:
    """A slice along `dim`, unless x broadcasts there."""
    return x if x.shape[dim] == 1 else x[(..., index) + (slice(None),) * (-dim - 1)]


def _four(x: Tensor, what: str) -> Tensor:
    if x.dim() > 4:
        raise ShapeError(f"{what} has shape {tuple(x.shape)}: pass at most [b, h, q, k]")
    return x[(None,) * (4 - x.dim())]


@dataclass(frozen=True, eq=False)
class Mask:
    """Which keys a query may read: all conditions together. Combine masks with `&`."""

    causal: bool = False
    before: int | None = None  # at most so many keys back from the query's own position
    after: int | None = None  # at most so many keys ahead
    lengths: Tensor | None = None  # [b]: only the first lengths[b] keys exist
    allowed: Tensor | None = None  # bool, broadcasts to [b, h, q, k]; True = may read
    made: dict[object, tuple[int, Tensor | None]] = field(default_factory=dict, init=False, repr=False)  # by `once`

    def __and__(self, other: "Mask | Tensor") -> "Mask":
        other = as_mask(other)

        def both(mine, theirs, how):
            return theirs if mine is None else mine if theirs is None else how(mine, theirs)

        return Mask(
            causal=self.causal or other.causal,
            before=both(self.before, other.before, min),
            after=both(self.after, other.after, min),
            lengths=both(self.lengths, other.lengths, torch.minimum),
            allowed=both(self.allowed, other.allowed, torch.logical_and),
        )

    __rand__ = __and__

    @property
    def structural(self) -> bool:
        """Whether positions alone decide (causal, window)."""
        return self.lengths is None and self.allowed is None

    @property
    def per_key(self) -> bool:
        """Whether all queries may read the same keys, and `allowed` alone says which."""
        only = self.allowed is not None and not self.causal and not self.banded and self.lengths is None
        return only and self.allowed is not None and self.allowed.shape[-2] == 1

    def once(self, kind: object, make: Callable[[Tensor], Tensor | None]) -> Tensor | None:
        """What `make` makes of `allowed`, made again only where that has been written to: a decoder reads the same keys
        of the same source in every layer, word for word."""
        if self.allowed is None:
            return None
        if self.allowed.is_inference():  # nobody counts who writes to it
            return make(self.allowed)
        version = self.allowed._version
        if self.made.get(kind, (None,))[0] != version:
            self.made[kind] = version, make(self.allowed)
        return self.made[kind][1]

    @property
    def banded(self) -> bool:
        """Whether a window cuts the keys off."""
        return self.before is not None or self.after is not None

    def columns(self, rows: slice, extent: Extent) -> slice:
        """The keys that any of these rows can reach, judging by positions."""
        start, stop, _ = rows.indices(extent.queries)
        first, last = 0, extent.keys
        if self.before is not None:
            first = max(first, start + extent.offset - self.before)
        ahead = 0 if self.causal else self.after
        if ahead is not None:
            last = min(last, stop - 1 + extent.offset + ahead + 1)
        last = max(last, 0)
        return slice(min(first, last), last)

    def block(self, rows: slice, cols: slice, extent: Extent, device: torch.device) -> Tensor | None:
        """True where the row may read the column, broadcastable to [b, h, n, m]; None if everywhere."""
        parts = []
        if self.causal or self.banded:
            i, j = extent.positions(rows, cols, device)
            if self.causal:
                parts.append(j <= i)
            if self.before is not None:
                parts.append(j >= i - self.before)
            if self.after is not None:
                parts.append(j <= i + self.after)
        if self.lengths is not None:
            _, j = extent.positions(rows, cols, device)
            parts.append(j < self.lengths.to(device)[:, None, None, None])
        if self.allowed is not None:
            parts.append(as_part(as_part(self.allowed, -2, rows), -1, cols))
        if not parts:
            return None
        seen = parts[0]
        for part in parts[1:]:
            seen = seen & part
        return seen

    def without_positions(self) -> "Mask":
        """The same mask without its causal and window parts."""
        return replace(self, causal=False, before=None, after=None) if self.causal or self.banded else self


causal = Mask(causal=True)
everything = Mask()


def lengths(counts: Tensor) -> Mask:
    """Only the first `counts[b]` keys of each example exist (padding stands behind)."""
    return Mask(lengths=counts)


def window(before: int | None, after: int | None = 0) -> Mask:
    """At most `before` keys back and `after` keys ahead of the query's own position; None = no limit."""
    if (before is not None and before < 0) or (after is not None and after < 0):
        raise ShapeError(f"a window holds its own position: before={before} and after={after} must be 0 or more")
    return Mask(before=before, after=after)


def allow(allowed: Tensor) -> Mask:
    """A boolean tensor that broadcasts to [b, h, q, k]; True = may read."""
    if allowed.dtype != torch.bool:
        raise ShapeError(f"a mask is boolean, not {allowed.dtype}: pass mask=x.bool(), or bias=x for added scores")
    return Mask(allowed=_four(allowed, "the mask"))


def as_mask(mask: "Mask | Tensor | None") -> Mask:
    """None, a boolean tensor or a Mask, as a Mask."""
    if mask is None:
        return everything
    return mask if isinstance(mask, Mask) else allow(mask)


# ---------------------------------------------------------------------------------------------------------- biases


@runtime_checkable
class Bias(Protocol):
    """Numbers added to the scores."""

    def block(self, rows: slice, cols: slice, extent: Extent, device: torch.device) -> Tensor:
        """The bias of a rectangle, broadcastable to [b, h, n, m]."""
        ...


@dataclass(frozen=True, eq=False)
class Added:
    """A tensor that broadcasts to [b, h, q, k]. With one row ([..., 1, k]) it is a bias per key."""

    values: Tensor

    @property
    def per_key(self) -> bool:
        return self.values.shape[-2] == 1

    def block(self, rows: slice, cols: slice, extent: Extent, device: torch.device) -> Tensor:
        return as_part(as_part(self.values, -2, rows), -1, cols)


@dataclass(frozen=True, eq=False)
class Alibi:
    """`-slope_h * |i - j|` (Press et al. 2022). `slopes` [h]; `Alibi.for_heads(h)` gives the paper's."""

    slopes: Tensor

    @classmethod
    def for_heads(cls, heads: int) -> "Alibi":
        """The paper's slopes 2^(-8/h), 2^(-16/h), …; between powers of two every second slope of the next one."""

        def powers(n: int) -> list[float]:
            return [2 ** (-8 * (i + 1) / n) for i in range(n)]

        below = 2 ** (heads.bit_length() - 1)
        slopes = powers(below) + powers(2 * below)[0::2][: heads - below]
        return cls(torch.tensor(slopes))

    def block(self, rows: slice, cols: slice, extent: Extent, device: torch.device) -> Tensor:
        i, j = extent.positions(rows, cols, device)
        return -self.slopes.to(device)[:, None, None] * (i - j).abs()


@dataclass(frozen=True, eq=False)
class Relative:
    """One learned number per head and distance, clipped at the ends (Shaw et al. 2018, as a bias).

    `table` [h, 2 * reach + 1]; entry `reach + j - i` is added where query i reads key j.
    """

    table: Tensor

    def block(self, rows: slice, cols: slice, extent: Extent, device: torch.device) -> Tensor:
        i, j = extent.positions(rows, cols, device)
        reach = self.table.shape[-1] // 2
        return self.table[:, (j - i).clamp(-reach, reach) + reach]


def as_biases(bias: "Tensor | Bias | tuple | list | None") -> tuple[Bias, ...]:
    """None, a tensor, a Bias, or several of them, as a tuple of Bias."""
    if bias is None:
        return ()
    if isinstance(bias, Tensor):
        return (Added(_four(bias, "the bias")),)
    if isinstance(bias, tuple | list):
        return tuple(b for part in bias for b in as_biases(part))
    return (bias,)
